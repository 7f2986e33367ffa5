r"""SVAMP, ASDiv and any file of questions with one number as the answer.

python -m pytest tests/unit/envs/test_numeric.py
"""

import importlib.util
import os
from pathlib import Path

import pytest

import envs

ROOT = Path(__file__).resolve().parents[3]
DATA = Path(os.environ.get("RISE_TEST_DATA", ROOT.parent / "shared" / "data"))
AIME = [
    {"question": "Find the remainder when $7^{2}$ is divided by 1000.", "answer": "049"},
    {"question": "Find $m + n$.", "answer": 73},
    {"question": "How many such sequences are there?", "answer": "000"},
    {"question": "Find the area.", "answer": "999"},
]


def with_answer(write, answer):
    return envs.make("numeric", write({"question": "How much?", "answer": answer}))


@pytest.mark.parametrize(
    ("reference", "response"),
    [
        (5, "5.0"),
        (2.5, r"\frac{5}{2}"),
        (-3.0, "-3"),
        (1e22, "10^{22}"),
        (1e-7, r"1 \times 10^{-7}"),
        (0.1, r"\frac{1}{10}"),
        ("2,125", "2125"),
        ("$1,250.50", "1250.5"),
        ("€ 12", r"12 \text{ euros}"),
        ("12%", r"12\%"),
        ("50%", "0.5"),
        ("3/4", "0.75"),
        ("7 1/2", "7.5"),
        ("15 apples", "15"),
        ("40 + 32 = 72\n#### 72", "72"),
    ],
)
def test_a_number_may_be_written_in_any_way(write, reference, response):
    env = with_answer(write, reference)
    assert env.reference(0) == str(reference)
    assert env.grade(f"so \\boxed{{{response}}}", 0).reward == 1
    assert env.grade(f"so \\boxed{{{response}1}}", 0).reward == 0
    assert env.grade(f"it is {response}", 0).reward == -1


def test_a_rounded_reference_is_met_by_the_exact_answer():
    mean = "(50+57+49+57)/4=53.3\n#### 53.3"
    rows = [
        ("10/3=3.333\n#### 3.333", r"\frac{10}{3}", "right"),
        ("10/3=3.333\n#### 3.333", "10/3", "right"),
        ("10/3=3.333\n#### 3.333", r"3.\overline{3}", "right"),
        ("10/3=3.333\n#### 3.333", "3.33333", "right"),
        ("10/3=3.333\n#### 3.333", "3.33334", "wrong"),
        ("10/3=3.333\n#### 3.333", "3.33", "wrong"),
        ("10/3=3.333\n#### 3.333", "3.334", "wrong"),
        ("10/3=3.333\n#### 3.333", "3", "wrong"),
        ("10/3=3.333\n#### 3.333", "3333/1000", "right"),
        ("10/3=3.333\n#### 3.333", "3.3331", "wrong"),
        (mean, "53.25", "right"),
        (mean, r"\frac{213}{4}", "right"),
        (mean, "53.2", "wrong"),
        (mean, "53", "wrong"),
        ("6 + 1 = 7; 20/3 = 6.67\n#### 6.67", "20/3", "right"),
        ("6 + 1 = 7; 20/3 = 6.67\n#### 6.67", "6.666", "wrong"),
        ("80/60 (min/hour) = 1.33 (hour)\n#### 1.33", "4/3", "right"),
        ("4.80/4=1.20\n#### 1.2", "1.25", "wrong"),
        ("4.80/4=1.20\n#### 1.2", "4.9/4", "wrong"),
        ("4.80/4=1.20\n#### 1.2", "1.21", "wrong"),
        ("3.333", "10/3", "right"),
        ("-3.333", r"-\frac{10}{3}", "right"),
        ("-3.333", "10/3", "wrong"),
        ("66.67%", r"\frac{200}{3}\%", "right"),
        ("2.5", "2.54", "wrong"),
        ("2.5", "2.46", "wrong"),
        ("2.5", "5/2", "right"),
        ("6.67", "20/3", "right"),
        ("6.66", "20/3", "wrong"),
        ("3", "10/3", "wrong"),
        ("2", "5/2", "wrong"),
    ]
    for name in ("svamp", "asdiv", "numeric"):
        judge = envs.NAMES[name].judge
        given = [(a, b, judge(f"\\boxed{{{b}}}", a).verdict) for a, b, _ in rows]
        assert [row for row in given if row not in rows] == []


def test_arithmetic_is_worth_what_it_comes_to():
    for name in ("gsm8k", "svamp", "asdiv", "numeric"):
        judge = envs.NAMES[name].judge
        assert judge(r"\boxed{57 + 26}", "#### 83").verdict == "right"
        assert judge(r"\boxed{57 + 27}", "#### 83").verdict == "wrong"
        assert judge(r"\boxed{57 + x}", "#### 83").verdict == "wrong"


def test_aime_answers_have_leading_zeros_or_none(write):
    env = envs.make("numeric", write(*AIME))
    for index, answer in enumerate((49, 73, 0, 999)):
        for text in (f"{answer}", f"{answer:03d}", f"{answer:03d}."):
            assert env.grade(f"\\boxed{{{text}}}", index).verdict == "right", text
        for text in (answer + 1, answer + 1000, f"{answer}0.5"):
            assert env.grade(f"\\boxed{{{text}}}", index).verdict == "wrong", text
    assert env.same_answer("073", "73") and not env.same_answer("073", "730")


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ("seven", "no number as the answer, but 'seven'"),
        ("3, 4", "no number as the answer"),
        ("3:4", "no number as the answer"),
        ("3\n4", "no number as the answer"),
        ("it is\n####", "no number after '####'"),
        (" ", "'answer' must be a text that is not empty"),
        (float("nan"), "no number as the answer, but 'nan'"),
        (float("inf"), "no number as the answer, but 'inf'"),
        (True, "must be a number or a text with one, not True"),
        (None, "must be a number or a text with one, not None"),
        ([5], r"must be a number or a text with one, not \[5\]"),
    ],
)
def test_what_is_not_one_number_is_refused(write, answer, cause):
    path = write(AIME[0], {"question": "How much?", "answer": answer})
    with pytest.raises(ValueError, match=cause) as caught:
        envs.make("numeric", path)
    assert f"{path}, line 2: " in str(caught.value)


def test_a_missing_file_names_a_download_only_where_there_is_one(tmp_path):
    for name in ("svamp", "asdiv"):
        with pytest.raises(ValueError, match=f"python data/fetch.py {name}"):
            envs.make(name, tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="give a file of JSON lines") as caught:
        envs.make("numeric", tmp_path / "none.jsonl")
    assert "fetch.py" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "original", "rows"), [("svamp", "SVAMP.json", 1000), ("asdiv", "ASDiv.xml", 2092)]
)
@pytest.mark.parametrize("kind", ["own", "numeric"])
def test_every_reference_of_the_real_files_is_right(tmp_path, name, original, rows, kind):
    source = DATA / name / original
    if not source.is_file():
        pytest.skip(f"no {source}: python data/fetch.py {name}, then set RISE_TEST_DATA to data/")
    spec = importlib.util.spec_from_file_location("fetch", ROOT / "data" / "fetch.py")
    fetch = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fetch)
    path = tmp_path / "test.jsonl"
    path.write_bytes(fetch.to_lines(name, fetch.read_rows(source.read_bytes(), original), original))
    env = envs.make(name if kind == "own" else kind, path)
    assert len(env) == rows
    answers = [env.reference(index).rsplit("####", 1)[1].strip() for index in range(rows)]
    verdicts = [env.grade(f"\\boxed{{{answer}}}", i).verdict for i, answer in enumerate(answers)]
    assert verdicts == ["right"] * rows
    wrong = [env.grade(f"\\boxed{{1{answer}}}", i).verdict for i, answer in enumerate(answers)]
    assert wrong == ["wrong"] * rows
