r"""Extraction of the last box, and exact comparison of GSM8K answers.

    python -m pytest tests/unit/envs/grading/test_answers.py

``tests/support/grading/gsm8k*.jsonl`` hold hand-written responses with the verdict that a careful
reader gives them.
"""

from fractions import Fraction

import pytest

from envs.grading.answers import (
    Quantity,
    gsm8k_reference,
    last_box,
    quantity,
    same_quantity,
    stated_verdict,
)
from envs.grading.latex import clean
from envs.gsm8k import GSM8K
from tests.support.grading_rows import read_rows


def test_what_a_model_says_of_an_answer():
    rows = [
        (r"Step 2 is fine. \boxed{right}", "right"),
        (r"\boxed{\text{Correct.}}", "right"),
        (r"It looked \boxed{right}, but 2 + 2 is 4: \boxed{\textbf{Wrong}}", "wrong"),
        (r"\boxed{not correct}", "wrong"),
        ("The answer is right.", "unclear"),
        (r"\boxed{72}", "unclear"),
        (r"\boxed{right or wrong}", "unclear"),
        ("", "unclear"),
    ]
    assert [row for row in rows if stated_verdict(row[0]) != row[1]] == []


def judge(box: str, reference: str):
    return GSM8K.judge(
        f"So the answer is \\boxed{{{box}}}.", f"2 * 1 = <<2*1=2>>2\n#### {reference}"
    )


def test_the_last_balanced_box_is_the_answer():
    rows = [
        (r"The answer is \boxed{72}.", "72"),
        (r"First \boxed{71}, no: \boxed{72}", "72"),
        (r"\boxed{72} and then nothing", "72"),
        (r"\boxed {72}", "72"),
        ("\\boxed{\n72\n}", "72"),
        (r"\boxed 5", "5"),
        (r"$\boxed5$", "5"),
        (r"$\boxed 72$ apples", "72"),
        (r"$\boxed x$", "x"),
        (r"\fbox{72}", "72"),
        (r"\boxed{71} \fbox{72}", "72"),
        (r"\fbox{71} \boxed{72}", "72"),
        (r"\boxed{\boxed{72}}", "72"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ 1 \right.}", r"\left\{ 1 \right."),
        (r"\boxed{72} as \boxed asks", "72"),
        (r"\\boxed{72}", "72"),
        (r"\[\boxed{72}\]", "72"),
        (r"\boxed{72}}}}}", "72"),
        (r"\boxed{72}. I put it in a box.", "72"),
        (r"I wrote it in \boxed.", None),
        (r"\boxed{72", None),
        (r"\boxed{71} ... \boxed{72", None),
        (r"\boxed{}", None),
        (r"\boxed{ }", None),
        ("The answer is 72", None),
        ("#### 72", None),
        ("boxed{72}", None),
        (r"\unboxed{72}", None),
        ("", None),
    ]
    assert [row for row in rows if last_box(row[0]) != row[1]] == []


@pytest.mark.parametrize("name", ["gsm8k", "gsm8k_notations"])
def test_the_reward_is_a_careful_readers(name):
    rows = read_rows(name)
    grades = [GSM8K.judge(row["response"], row["reference"]) for row in rows]
    wanted = [GSM8K.rewards[row["label"]] for row in rows]
    assert [r for r, g, w in zip(rows, grades, wanted, strict=True) if g.reward != w] == []


def test_times_count_unless_they_multiply():
    rows = [
        (r"5\text{ times}", "5", "right"),
        ("5 times", "5", "right"),
        ("4 times.", "4", "right"),
        (r"\text{4 times}", "4", "right"),
        ("He goes 4 times", "4", "right"),
        (r"10\text{ times a week}", "10", "right"),
        ("5 times (per week)", "5", "right"),
        ("3 times as many", "3", "right"),
        ("2 times larger", "2", "right"),
        ("The number of times is 5", "5", "right"),
        ("4 times", "5", "wrong"),
        ("5 times 3", "5", "wrong"),
        ("5 times 3", "3", "wrong"),
        (r"5\text{ times }3", "5", "wrong"),
        ("3 times five", "3", "wrong"),
        ("three times 5", "5", "wrong"),
        ("3 times the number", "3", "wrong"),
        ("3 times a number", "3", "wrong"),
        ("3 times x", "3", "wrong"),
        ("3 times Tom's age", "3", "wrong"),
    ]
    assert [row for row in rows if judge(*row[:2]).verdict != row[2]] == []


def test_a_box_without_a_digit_has_no_answer():
    assert GSM8K.judge(r"\boxed{eighteen}", "#### 18").answer is None


@pytest.mark.parametrize(
    "box", ["10^{10^{10}}", "99999999!", "9**9**9**9", "1e999999", "2^{99999}"]
)
def test_a_number_too_large_to_compute_is_a_timeout(box):
    grade = judge(box, "72")
    assert (grade.verdict, grade.reward) == ("timeout", 0)


def test_references_keep_their_commas_and_signs():
    rows = [
        ("#### 72", 72),
        ("x\n#### 2,125", 2125),
        ("#### 1,234,567", 1234567),
        ("#### -4", -4),
        ("#### $15", 15),
        ("#### 5 apples\n", 5),
        ("one #### 1 two #### 2", 2),
        ("#### 2.50", Fraction(5, 2)),
        ("72", 72),
    ]
    assert [row for row in rows if gsm8k_reference(row[0]) != Quantity(Fraction(row[1]))] == []


@pytest.mark.parametrize(
    "text", ["", "####", "#### ", "#### abc", "#### 9**9**9**9", "####\n5 or 6"]
)
def test_a_reference_without_a_number_is_refused(text):
    with pytest.raises(ValueError, match="no number after '####'"):
        gsm8k_reference(text)


@pytest.mark.parametrize("reference", ["", "no number", "#### __import__('os')", r"\boxed{72}, 5"])
def test_nothing_is_right_against_an_unreadable_reference(reference):
    assert GSM8K.judge(r"\boxed{72}", reference).verdict == "wrong"
    assert GSM8K.judge("no box", reference).verdict == "no_answer"


def test_a_percent_sign_may_be_missing_but_a_factor_of_100_may_not():
    def same(candidate: str, reference: str) -> bool:
        return same_quantity(quantity(clean(candidate)), quantity(clean(reference)))

    assert same("50%", r"\frac{1}{2}") and same(r"\frac{1}{2}", "50%")
    assert same("50%", "50") and same("50", "50%") and same("87.5%", "87.5")
    assert not same("2000%", "20") and not same("0.5%", "0.5") and not same("20", "2000%")
