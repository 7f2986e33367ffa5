r"""No response and no reference raises, hangs, or runs code.

python -m pytest tests/unit/envs/test_safety.py
"""

import random
from typing import get_args

import pytest

import envs
from envs.grading.answers import Verdict
from envs.grading.expressions import compare
from envs.grading.questions import Question

HOSTILE = {
    "a megabyte before the box": ("a" * 1_000_000 + r"\boxed{72}", "right"),
    "100,000 boxes never closed": (r"\boxed{" * 100_000, "no_answer"),
    "100,000 nested boxes": (r"\boxed{" * 100_000 + "72" + "}" * 100_000, "right"),
    "10,000 nested braces": (r"\boxed{" + "{" * 10_000 + "72" + "}" * 10_000 + "}", "no_answer"),
    "100,000 boxes": (r"\boxed{72}" * 100_000, "right"),
    "100,000 mentions": (r"\boxed " * 100_000, "no_answer"),
    "a megabyte of digits": (r"\boxed{" + "1" * 1_000_000 + "}", "wrong"),
    "a list of 300 numbers": (r"\boxed{" + ", ".join(map(str, range(1, 301))) + "}", "wrong"),
    "a megabyte of blanks": (r"\boxed{" + " " * 1_000_000, "no_answer"),
    "a megabyte of pairs": (r"\boxed{" + "{}" * 500_000 + "}", "no_answer"),
    "a megabyte of backslashes": ("\\" * 1_000_000, "no_answer"),
    "a megabyte of zeros": ("\x00" * 1_000_000 + r"\boxed{72}", "right"),
    "a null byte in the box": ("\\boxed{72\x00}", "right"),
    "a null byte in the number": ("\\boxed{7\x002}", "wrong"),
    "a lone surrogate": ("\\boxed{72\udfff}", "wrong"),
    "right-to-left marks": ("\u202e\\boxed{\u200f72\u202c}", "right"),
    "full-width digits": (r"\boxed{１72}", "wrong"),
    "power tower": (r"\boxed{10^{10^{10}}}", "timeout"),
    "python powers": (r"\boxed{9**9**9**9}", "timeout"),
    "factorial": (r"\boxed{99999999!}", "timeout"),
    "huge exponent": (r"\boxed{1e999999}", "timeout"),
    "a billion digits by name": (r"\boxed{10^{1000000000}}", "timeout"),
}


@pytest.mark.parametrize("name", ["gsm8k", "math"])
def test_hostile_responses_get_a_verdict(name):
    reference = "#### 72" if name == "gsm8k" else r"It is \boxed{72}."
    judge = envs.NAMES[name].judge
    given = {case: judge(response, reference).verdict for case, (response, _) in HOSTILE.items()}
    assert given == {case: verdict for case, (_, verdict) in HOSTILE.items()}


@pytest.mark.parametrize("name", ["gsm8k", "math"])
def test_hostile_references_get_a_verdict(name):
    judge = envs.NAMES[name].judge
    given = {
        (case, mark): judge(r"\boxed{71}", mark + response).verdict
        for case, (response, _) in HOSTILE.items()
        for mark in ("", "#### ")
    }
    assert [case for case, verdict in given.items() if verdict not in ("wrong", "timeout")] == []


PIECES = r"""
x y = < \le \ne \cup \{ \} ( ) [ ] { } , ; | 3 -1 \infty \frac \sqrt ^ _ 2 \pm \setminus \in : & \\
\begin{cases} \end{cases} \left\{ \right. \pmod{7} \equiv ... p.m. 4:30 ' f(x) % or and \vec{a} ! i
\begin{pmatrix} \end{pmatrix} \mathbb{R} _5 10^{99} 1/0 .5 \quad $ # \text{or} \binom{3}{2} \log e
"""


def test_pieces_of_answers_in_any_order_get_a_verdict():
    draw = random.Random(1)
    for _ in range(2000):
        a, b = ("".join(draw.choices(PIECES.split(), k=draw.randint(1, 9))) for _ in range(2))
        outcome = compare(a, b)  # or the question that math-verify is to answer
        assert isinstance(outcome, Question) or outcome in get_args(Verdict), (a, b, outcome)
        envs.Numeric._examine(f"\\boxed{{{a}}}", b)  # as a reference, it raises nothing


PAYLOADS = [
    "__import__('os').system('touch {path}')",
    "<<__import__('os').system('touch {path}')>>",
    "open('{path}', 'w')",
    "[c for c in ().__class__.__base__.__subclasses__()][0]; open('{path}','w')",
    r"\text{{__import__('os').system('touch {path}')}} + \sqrt{{2}}",
    "lambda: open('{path}', 'w')",
    "exec(\"open('{path}', 'w')\")",
]


@pytest.mark.parametrize("name", ["gsm8k", "math"])
def test_no_code_runs(name, tmp_path):
    path = tmp_path / "proof"
    for code in (payload.format(path=path) for payload in PAYLOADS):
        for response, reference in (
            (f"\\boxed{{{code}}}", "#### 5" if name == "gsm8k" else r"\boxed{5}"),
            (f"\\boxed{{{code}}}", f"<<{code}=5>> #### 5 \\boxed{{x + \\sqrt{{3}}}}"),
            (r"\boxed{5}", f"#### {code} \\boxed{{{code}}}"),
        ):
            assert envs.grade(name, response, reference) in (0, -1)
        assert not path.exists(), code
