r"""Exact values of numeric LaTeX, and the bounds that keep them cheap.

python -m pytest tests/unit/envs/grading/test_exact.py
"""

from fractions import Fraction

import pytest

from envs.grading.exact import MAX_BITS, TooLarge, rational


def test_values_are_exact():
    rows = [
        ("72", 72),
        ("-0.50", Fraction(-1, 2)),
        (".5", Fraction(1, 2)),
        ("1.", 1),
        ("1.5e3", 1500),
        (r"0.\overline{3}", Fraction(1, 3)),
        (r"22.\overline{6}", Fraction(68, 3)),
        (r".1\overline{6}", Fraction(1, 6)),
        ("1/2/2", Fraction(1, 4)),
        (r"\frac{1}{2}", Fraction(1, 2)),
        (r"\frac{\frac{1}{2}}{3}", Fraction(1, 6)),
        (r"7\frac{3}{4}", Fraction(31, 4)),
        (r"-7\frac{3}{4}", Fraction(-31, 4)),
        (r"2 \cdot 3 + 4 \times 5", 26),
        (r"3 \cdot -2", -6),
        ("2(3)(4)", 24),
        ("-2^2", -4),
        ("(-2)^2", 4),
        ("2^{-3}", Fraction(1, 8)),
        ("2^3^2", 512),
        ("4^{1/2}", 2),
        ("(-8)^{1/3}", -2),
        ("5!", 120),
        (r"\binom{5}{2}", 10),
        (r"\sqrt{144}", 12),
        (r"\sqrt{\frac{9}{4}}", Fraction(3, 2)),
        (r"\sqrt[3]{27}", 3),
        (r"602 \times 10^{21}", 602 * 10**21),
        ("1^{10^{10}}", 1),
        ("1^{9999999}", 1),
    ]
    assert [row for row in rows if rational(row[0]) != row[1]] == []


def test_what_is_not_a_rational_number_is_none():
    texts = [
        *("", "x", "5-", "+", "--5", "2 3", "1/0", "0^0", "0^{-1}", "5!!", "(5", "5)", "2{3}", "{"),
        *(r"\sqrt{2}", r"\sqrt{-4}", r"2\frac{3}{2}", r"\frac{1}", "1,2", "٣", "２", "1e", "0x10"),
        *("__import__('os')", "(" * 500 + "1" + ")" * 500, "1+" * 500 + "1", r"\sqrt[3]{2}"),
    ]
    assert [text for text in texts if rational(text) is not None] == []


@pytest.mark.parametrize(
    "text",
    ["10^{10^{10}}", "99999999!", "9**9**9**9", "1e999999999", "9" * 900 + "!", "2^{-99999}"],
)
def test_numbers_too_large_are_refused_before_they_are_computed(text):
    with pytest.raises(TooLarge):
        rational(text)


def test_the_bound_admits_the_largest_factorial_of_math():
    assert rational(r"\frac{1}{2006!}") != rational(r"\frac{1}{2004!}")
    assert rational("2006!").numerator.bit_length() < MAX_BITS
