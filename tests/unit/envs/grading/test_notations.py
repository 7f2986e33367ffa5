r"""Ways to write one answer that models use, and near misses that look like them.

    python -m pytest tests/unit/envs/grading/test_notations.py

Each row is reference, content of the box, and the verdict that a careful reader gives.
"""

from envs.gsm8k import GSM8K
from tests.support.grading_rows import faults_of

GSM8K_ROWS = [
    # words that change the number
    ("7", "negative 7", "wrong"),
    ("-7", "negative 7", "right"),
    ("-7", "The answer is negative 7", "right"),
    ("-7", r"\text{minus }7", "right"),
    ("7", "minus 7", "wrong"),
    ("7", r"7\text{ eighths}", "wrong"),
    ("7", "7 sixths", "wrong"),
    ("3", r"3\text{ fifths}", "wrong"),
    ("5", "5 fifth graders", "right"),
    ("7", "twice 7", "wrong"),
    ("7", "double 7", "wrong"),
    ("7", "triple the 7", "wrong"),
    ("14", "Double is 14", "right"),
    ("7", "square root of 7", "wrong"),
    ("7", "the cube of 7", "wrong"),
    ("7", "up to 7", "wrong"),
    # spellings of one number
    ("5", r"5^{th}", "right"),
    ("5", r"5^\text{th}", "right"),
    ("5", r"5^{\text{th}} day", "right"),
    ("10", "10:00", "right"),
    ("10", "10:00 AM", "right"),
    ("10", "10:30", "wrong"),
    ("1030", "10:30", "wrong"),
    ("72", "[72]", "right"),
    ("72", r"\{72\}", "right"),
    ("72", r"\left[72\right]", "right"),
    ("72", "[71, 72]", "wrong"),
    ("1500000", r"\$1.5M", "right"),
    ("5000", r"\$5K", "right"),
    ("5000", "5k", "right"),
    ("72", r"72\text{°F}", "right"),
    ("72", r"72^\circ\text{F}", "right"),
    ("72", r"\emph{72}", "right"),
    ("72", '"72"', "right"),
    ("72", "*72*", "right"),
    ("72", "**72**", "right"),
    ("72", r"\text{A) }72", "right"),
    ("72", "(B) 72", "right"),
    ("123456", "1,23,456", "right"),
    ("123456", "1,2,3456", "wrong"),
    ("72", "₱72", "right"),
    ("72", r"\textdollar 72", "right"),
    ("72", r"\£72", "right"),
    ("0.5", "½", "right"),
    ("5.5", "5½", "right"),
    ("72", "７２", "right"),
    ("72", "７１", "wrong"),
]

MATH_ROWS = [
    # letters are products and differences, not words
    ("a(b-c)", "ab-c", "wrong"),
    ("a-(b-c)", "a-b-c", "wrong"),
    ("(x-y)z", "x-yz", "wrong"),
    ("ABC", "abc", "wrong"),
    ("x-y", "X-Y", "wrong"),
    ("p - q", "-q+p", "right"),
    ("p - q", "q-p", "wrong"),
    ("a-b", "-(b-a)", "right"),
    ("(a - b)(b - c)(c - a)", "(b-c)(a-b)(c-a)", "right"),
    ("(a - b)(b - c)(c - a)", "(b-a)(b-c)(c-a)", "wrong"),
    ("x(x-y)", "(x-y)x", "right"),
    ("x(x-y)", "x^2-xy", "right"),
    ("xyz", "zyx", "right"),
    ("abc", r"a \cdot b \cdot c", "right"),
    ("i,-i", r"\pm i", "right"),
    ("x,-x", r"\pm x", "right"),
    # words are
    ("even", "Even", "right"),
    ("even", r"\text{even}", "right"),
    ("even", "odd", "wrong"),
    ("Tuesday", r"\text{on Tuesday}", "right"),
    ("(E)", "E", "right"),
    ("(E)", r"\text{(E)}", "right"),
    ("(E)", "(D)", "wrong"),
    ("A, C, F", r"\text{F, A and C}", "right"),
    ("A, C, F", "A, C", "wrong"),
    (r"\text{neither}", "neither", "right"),
    ("right triangle", r"\text{right triangle}", "right"),
    # numbers
    (r"\frac{1}{3}", r"0.\bar{3}", "right"),
    (r"\frac{1}{3}", r"0.\bar3", "right"),
    (r"\frac{1}{6}", r"0.1\bar{6}", "right"),
    (r"\frac{1}{3}", r"0.\bar{4}", "wrong"),
    (r"\frac{1}{2}", "½", "right"),
    ("2", r"\text{two}", "right"),
    ("2", "two", "right"),
    ("0", r"\text{zero}", "right"),
    ("2", r"\text{three}", "wrong"),
    ("7", r"7\ ", "right"),
    ("7", r"7\\", "right"),
    ("7", r"\therefore 7", "right"),
    ("7", r"\emph{7}", "right"),
    ("5", r"5^{\text{th}}", "right"),
    (r"x^{th}", "x^{th}", "right"),
    ("5", r"5 \pmod{7}", "right"),
    ("5", r"5 \pmod 7", "right"),
    ("5", r"5\ (\text{mod }7)", "right"),
    ("5", "5 (mod 7)", "right"),
    ("5", r"x \equiv 5 \pmod{7}", "right"),
    ("5", r"x \equiv 4 \pmod{7}", "wrong"),
    ("7", r"5 \pmod{7}", "wrong"),
    # lists of three-digit numbers, and thousands
    ("256,128", "128,256", "right"),
    ("256,128", "128, 256", "right"),
    ("256,128", "128,255", "wrong"),
    ("100,200", r"\{100,200\}", "right"),
    ("100,200", r"\{100,300\}", "wrong"),
    ("1234", "1,234", "right"),
    ("1,234", "1234", "right"),
    ("1234", "1,235", "wrong"),
    ("(100,200)", "(200,100)", "wrong"),
    # sets
    (r"\mathbb{R}", r"(-\infty,\infty)", "right"),
    (r"\mathbb{R}", r"\text{all real numbers}", "right"),
    (r"(-\infty,\infty)", r"x \in \mathbb{R}", "right"),
    (r"(-\infty, \infty)", r"\text{All reals}", "right"),
    (r"\text{all real numbers}", r"(-\infty, +\infty)", "right"),
    (r"\mathbb{R}", r"[0,\infty)", "wrong"),
    (r"\mathbb{R}", r"\emptyset", "wrong"),
    (r"[0,\infty)", r"\mathbb{R}", "wrong"),
    (r"\emptyset", r"\text{no solution}", "right"),
    (r"\text{no solution}", r"\text{No solutions}", "right"),
    (r"\text{no real solutions}", r"\emptyset", "right"),
    (r"\emptyset", "0", "wrong"),
    ("0", r"\emptyset", "wrong"),
    ("0", r"\text{no solution}", "wrong"),
    (r"(1,\infty)", r"\{x \in \mathbb{R} : x > 1\}", "right"),
    (r"(1,\infty)", r"\{x \in \mathbb{R} \mid x > 1\}", "right"),
    (r"(1,\infty)", r"\{x \in \mathbb{R} : x \ge 1\}", "wrong"),
    (r"(-\infty,1)\cup(1,\infty)", r"x\in\mathbb{R}, x\ne 1", "right"),
    (r"\{1,2\}", r"x \in \{1,2\}", "right"),
    ("1,2", r"x \in \{1,2\}", "right"),
    ("1,2", r"x \in \{1,3\}", "wrong"),
    # names of figures
    ("AB", r"\overline{AB}", "right"),
    ("ABC", r"\angle ABC", "right"),
    (r"\triangle ABC", "ABC", "right"),
    ("AB", r"\overline{AC}", "wrong"),
    # columns
    (
        r"\begin{pmatrix}1\\2\end{pmatrix}",
        r"\begin{smallmatrix}1\\2\end{smallmatrix}",
        "right",
    ),
    (
        r"\begin{pmatrix}1\\2\end{pmatrix}",
        r"\left(\begin{smallmatrix}1\\3\end{smallmatrix}\right)",
        "wrong",
    ),
]


def test_gsm8k():
    verdicts = [GSM8K.judge(rf"\boxed{{{a}}}", f"#### {r}").verdict for r, a, _ in GSM8K_ROWS]
    assert [row for row, given in zip(GSM8K_ROWS, verdicts, strict=True) if given != row[2]] == []


def test_math():
    assert faults_of([(rf"\boxed{{{r}}}", rf"\boxed{{{a}}}", v) for r, a, v in MATH_ROWS]) == []
