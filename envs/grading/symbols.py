r"""Symbols of Unicode as LaTeX: ``x²`` is ``x^{2}``, ``∛8`` is ``\sqrt[3]8``."""

import re
import unicodedata
from collections.abc import Callable

_VULGAR = {c: unicodedata.normalize("NFKC", c).split("\u2044") for c in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
_RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ"
_LOWERED = "₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ"
_GREEK = "αβγδεζηθικμνξπρστυφχψω"
_SYMBOLS = str.maketrans(
    {
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"),
        **dict.fromkeys(map(chr, range(32)), " "),
        **dict.fromkeys("\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\ufeff"),
        **dict.fromkeys(map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A)])),
        **dict.fromkeys("\u00a0\u2007\u2008\u2009\u200a\u202f", r"\,"),
        **dict.fromkeys("\u2018\u2019\u02bc", "'"),
        **{c: rf"\frac{{{top}}}{{{bottom}}}" for c, (top, bottom) in _VULGAR.items()},
        **{"×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "÷": r"\div "},
        **{c: rf"\{unicodedata.name(c).split()[-1].lower()} " for c in _GREEK},
        **{"∞": r"\infty ", "±": r"\pm ", "∓": r"\mp ", "≠": r"\ne ", "≈": r"\approx "},
        **dict.fromkeys("°˚º", r"^{\circ}"),
        **dict.fromkeys("✕✖⨯", r"\times "),
        **dict.fromkeys("≤⩽≦", r"\le "),
        **dict.fromkeys("≥⩾≧", r"\ge "),
        **{"∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "′": "'", "″": "''"},
        **{"∖": r"\setminus ", "∣": "|", "∶": ":", "。": ".", "、": ",", "ℓ": r"\ell "},
        **{"⟨": r"\langle ", "⟩": r"\rangle ", "⌊": r"\lfloor ", "⌋": r"\rfloor "},
        **{"⌈": r"\lceil ", "⌉": r"\rceil ", "∠": r"\angle ", "△": r"\triangle "},
        **{"∑": r"\sum ", "∏": r"\prod ", "∫": r"\int ", "≡": r"\equiv ", "¬": r"\neg "},
        **{"∧": r"\land ", "∨": r"\lor ", "→": r"\to ", "⇒": r"\implies ", "ϕ": r"\phi "},
        **{"√": r"\sqrt ", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]", "λ": r"\lambda "},
        **{"∕": "/", "⁄": "/", "…": r"\ldots "},
        **{"⊂": r"\subset ", "⊆": r"\subseteq ", "∉": r"\notin ", "⊥": r"\perp "},
        **{"∥": r"\parallel ", "≅": r"\cong ", "∃": r"\exists ", "∄": r"\nexists "},
        **{c: rf"\mathbb{{{unicodedata.normalize('NFKC', c)}}}" for c in "ℝℤℕℚℂ"},
        **dict.fromkeys("∅Ø", r"\emptyset "),
        **dict.fromkeys("✓✔✅"),
        **{chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},  # full-width １２％
    }
)


def _written(mark: str) -> Callable[[re.Match], str]:
    return lambda run: f"{mark}{{{unicodedata.normalize('NFKC', run[0])}}}"


_RUNS: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile("[³⁴]√"), lambda root: "∛" if root[0] == "³√" else "∜"),
    (re.compile("(\\d)\u0307"), r"\\dot{\1}"),
    (re.compile("(\\d)\u0305"), r"\\overline{\1}"),
    (
        re.compile("[\U0001d400-\U0001d7ffℊℎℯℴⅅ-ⅉ]+"),
        lambda run: unicodedata.normalize("NFKC", run[0]),
    ),
    (
        re.compile("([⁰¹²³⁴-⁹]+)[/⁄∕]([₀-₉]+)"),
        lambda m: unicodedata.normalize("NFKC", rf"\frac{{{m[1]}}}{{{m[2]}}}"),
    ),
    (re.compile(r"(?<=\d)\s*∘"), "°"),
    (re.compile(r"ℝ\s*[\\∖]\s*\\?\{([^{}\\]*)\\?\}"), r"ℝ\\setminus\\{\1\\}"),
    (re.compile(r"(?<![\\a-zA-Z])\x0c?f?rac(?=\{)"), r"\\frac"),
    (
        re.compile("[À-ÖÙ-öù-ÿ]+"),
        lambda run: re.sub("[^a-zA-Z]", "", unicodedata.normalize("NFKD", run[0])),
    ),
    (re.compile(f"[{_RAISED}]+"), _written("^")),
    (re.compile(f"[{_LOWERED}]+"), _written("_")),
]
"""Before the single symbols, as one exponent has several."""


def without_symbols(text: str) -> str:
    """Return ``text`` with a LaTeX command, or a letter, for each symbol."""
    for pattern, replacement in _RUNS:
        text = pattern.sub(replacement, text)
    return text.translate(_SYMBOLS)
