r"""One spelling for many: ``clean`` brings the ways to write the same LaTeX answer together.

Both sides of a comparison go through it, so that ``\$10,\!080`` and ``10080`` meet. Text only:
nothing is evaluated, and the callers bound the length.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from itertools import islice

from envs.grading.symbols import without_symbols

_END = r"(?![a-zA-Z])"
_Replacement = str | Callable[[re.Match[str]], str]
_Rule = tuple[re.Pattern[str], _Replacement]

_FOREIGN = (
    r"(?:(?!以上|以下|左右|千(?![克米瓦卡]))(?![万亿百十半多余至到或和与约])"
    r"[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af\u0400-\u04ff]\s?)+"
)
"""A unit in a script that is not Latin; no number, hedge or "and" is in it."""
_RELATIONS = {"<=": "le", ">=": "ge", "!=": "ne"}
_ZEROS = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "万": 4, "亿": 8}
_COMMANDS = {
    **dict.fromkeys(("leq", "leqslant", "le"), r"\le "),
    **dict.fromkeys(("geq", "geqslant", "ge"), r"\ge "),
    **dict.fromkeys(("neq", "ne"), r"\ne "),
    **dict.fromkeys(("emph", "hbox", "mbox"), r"\text"),
    **dict.fromkeys(("dfrac", "tfrac", "cfrac"), r"\frac"),
    **dict.fromkeys(("dbinom", "tbinom"), r"\binom"),
    **{f"var{letter}": rf"\{letter} " for letter in ("epsilon", "phi", "theta", "rho")},
    **dict.fromkeys(("degree", "degrees"), r"^{\circ}"),
    **dict.fromkeys(("lvert", "rvert"), "|"),
    **dict.fromkeys(("lVert", "rVert", "Vert"), r"\|"),
    **{"lt": "<", "gt": ">", "lbrace": r"\{", "rbrace": r"\}", "lparen": "(", "rparen": ")"},
    **{
        "lg": r"\log ",
        "lbrack": "[",
        "rbrack": "]",
        "colon": ":",
        "percent": "%",
        "Bbb": r"\mathbb",
    },
}
"""What commands are written as; all others stay."""


def _rules(*rules: tuple[str, _Replacement]) -> list[_Rule]:
    return [(re.compile(pattern), replacement) for pattern, replacement in rules]


def _letter(styled: re.Match) -> str:
    """The letter, in braces behind a command or a sign that would take it."""
    letter, before = styled[1] or styled[2], styled.string[: styled.start()]
    return f"{{{letter}}}" if re.search(r"[a-zA-Z^_]\s*$", before) else letter


def _repeating(dotted: re.Match) -> str:
    return rf"\overline{{{''.join(re.findall('[0-9]', dotted[0]))}}}"


def chosen(total: str, letter: str, of_them: str) -> str:
    """Combinations, C, or permutations, P, as a binomial or a fraction."""
    if letter == "C":
        return rf"\binom{{{total}}}{{{of_them}}}"
    return rf"\frac{{({total})!}}{{({total}-{of_them})!}}"


def _lines(block: re.Match) -> str:
    """The equations of ``aligned`` without what lines them up; ``cases`` with conditions stay."""
    return (
        block[0]
        if block[1] in ("cases", "array") and re.search(r"&(?!\s*=)", block[2])
        else block[2].replace("&", "")
    )


_SIZES = r"left|right|[bB]igg?[lrm]?|middle"
_STYLES = (
    r"displaystyle|textstyle|scriptstyle|tiny|small|normalsize|large|Large|LARGE|huge|bf|it|rm|cal|sf|tt|sc"
    r"|limits|boldsymbol|bold|pmb|bm|ensuremath|displaylimits|centering|underline|overbrace|boxed|fbox|checkmark"
)
_CONSTANT = r"[-+\d\s./{}^*]|\\(?:frac|sqrt|pi|cdot)(?![a-zA-Z])"
_INDEXED = r"[A-Za-z](?:_\{?\w\}?)?"
_OPERATORS = r"(?:arc)?(?:sin|cos|tan)|cot|sec|csc|log|ln|exp|max|min|gcd|Re|Im"
_RULES = _rules(
    (r"^\s*\*\*(.*)\*\*\s*$", r"\1"),
    (r"^\s*([*\"“'])([^*\"“”']*)[*\"”']\s*$", r"\2"),
    (r"^\s*\\(?:therefore|because|sim|implies|[Rr]ightarrow|to)" + _END, ""),
    (
        r"(?:\\left\s*\\\{\s*)?\\begin\{(cases|aligned|gathered|split|(?:align|gather|equation)\*?)\}"
        r"(.*?)\\end\{\1\}(?:\s*\\right\s*\.)?",
        _lines,
    ),
    (
        r"\\left\s*\\\{\s*\\begin\{(array)\}\s*\{[lcr\s]*\}(.*?)\\end\{array\}\s*\\right\s*\.",
        _lines,
    ),
    # x = 1 \quad y = 2
    (
        r"(=[^=]*[\w})])\s*(?:\\q?quad" + _END + r"|\\[,;: \\]|~)+\s*"
        r"(?=[A-Za-z](?:_\{?\w\}?|\([a-z]\))?\s*=)",
        r"\1, ",
    ),
    # plain text: sqrt(2), 3pi/4, x**2; a root sign takes the whole number after it
    (r"(?<![\\a-zA-Z])log_?(\d+)\s*(?=\()", r"\\log_{\1}"),
    (
        r"(?<![\\a-zA-Z])(sqrt|pi|sin|cos|tan|log|ln|infty|arc(?:sin|cos|tan)|(?:cot|sec|csc)(?=\())"
        r"(?![a-zA-Z])",
        r"\\\1 ",
    ),
    (r"(?<![\\a-zA-Z])a(sin|cos|tan)(?=\()", r"\\arc\1 "),
    (r"(?<![\\a-zA-Z])cbrt(?=\()", r"\\sqrt[3]"),
    (r"(?<![\\a-zA-Z])abs\(([^()]*)\)", r"|\1|"),
    (r"(?:\b[Pp]ositive )?(?<![\\a-zA-Z])[Ii]nfinity(?![a-zA-Z])", r"\\infty "),
    (r"\b[Nn]egative (?=\\infty)", "-"),
    (r"\\sqrt(?![a-zA-Z])\s*(\[\d+\])?\s*(?:\(((?:[^()]|\([^()]*\))*)\)|(\d+))", r"\\sqrt\1{\2\3}"),
    (r"\*\*(?=[\d({-])", "^"),
    (r"(?<=[)\]])\s*U\s*(?=[(\[])", r"\\cup "),
    (r"(?<=[\d)])(or|and)(?=[A-Z\d(])", r" \1 "),
    (r"(?<!\\)\\[()\[\]]|`", ""),
    (
        r"\\(?:pounds|euro|yen|cents?|text(?:dollar|euro|sterling|yen|cent))"
        + _END
        + r"|\\?[$€£¥₹¢₱₩₦₫₽₺฿]",
        "",
    ),
    (r"\\%", "%"),
    (r"\\([a-zA-Z]+)", lambda m: _COMMANDS.get(m[1], m[0])),
    (rf"\\(?:{_STYLES}){_END}", ""),
    (rf"\\(?:{_SIZES})\.", ""),
    (rf"\\(?:{_SIZES}){_END}\s*", ""),
    (r"\\textcolor\s*\{[a-zA-Z]*\}|\\color\s*(?:\{[a-zA-Z]*\}|[a-z]+\s)", ""),
    (r"\\(?:hspace|vspace|phantom)\*?\s*\{[^{}]*\}|\\label\s*\{[^{}]*\}", " "),
    (rf"^\s*\\\{{\s*{_INDEXED}(?:\s*,\s*{_INDEXED})+\s*\\\}}\s*=\s*(?=\\\{{)", ""),
    # a set whose braces LaTeX would not print: x \in {1,2}
    (
        r"(^\s*(?=\{[^{}]*\}\s*\\c[ua]p\b)|\\(?:in|cup|cap|setminus)\s*"
        r"|=\s*(?=\{[^{}]*,)(?!\{\d+(?:,\d{3})+\}))\{([^{}()\[\]]*[\d,][^{}()\[\]]*)\}",
        r"\1\\{\2\\}",
    ),
    # a vector is its letter, and so are the units i, j and k
    (r"\\(?:vec|mathbf)\s*(?:\{\s*([A-Za-z])\s*\}|([A-Za-z]))", _letter),
    (r"\\hat\s*(?:\{*\s*(?:([ijk])|\\([ij])math)\s*\}+|([ijk]))", r"{\1\2\3}"),
    (r"\\math(?:bf|it|rm)(?=\{[^{}]*(?:=|\\(?:frac|sqrt|pi)))", ""),
    (r"\\(?:text|math)(?:bf|it|rm|sf|tt|normal|up|md|sc)" + _END, r"\\text"),
    (r"\\mathbb\s*([RNZQC])", r"\\mathbb{\1}"),
    # a letter in another alphabet, but not the sets of numbers; a word as an operator
    (
        r"\\(?:math(?:cal|scr|frak)|mathbb(?!\s*\{?\s*[RNZQC]))\s*(?:\{\s*([A-Za-z\d]+)\s*\}|([A-Za-z]))",
        r"\1\2",
    ),
    (
        rf"\\(?:operatorname\*?|text)\s*\{{\s*\\?({_OPERATORS})\s*\}}(?=\s*[({{\\\w])",
        r"\\\1 ",
    ),
    (
        r"\\((?:operatorname|text)\s*\{\s*)?(arc|)(c|)tg(?![a-zA-Z])(?(1)\s*\})",
        lambda m: rf"\{m[2]}{'cot' if m[3] else 'tan'} ",
    ),
    (
        r"\\(?:operatorname\*?|math(?:bin|rel|ord|punct|open|close))\s*\{\s*([A-Za-z:,()\[\]])\s*\}",
        r"\1",
    ),
    (
        r"\\(?:operatorname\*?|mathop)\s*(\{[A-Za-z ]+\})"
        r"(?=[\s.,;)}]*(?:$|\\text|\\operatorname))",
        r"\\text\1",
    ),
    (
        r"\\(?:operatorname|text)\s*\{\s*cis\s*\}\s*(?:\(([^()]*)\)|([^\s+,()]+))",
        r"(\\cos(\1\2)+i\\sin(\1\2))",
    ),
    (r"\\(max|min)\s*\\\{([^{}\\]*)\\\}", r"\\\1(\2)"),
    (r"\\text\s*\{", r"\\text{"),
    (r"(?<=\d)\{\s*:\s*\}(?=\d)", ":"),
    (
        r"^\s*(?:\\text\{)?\s*all real numbers (?:except|other than)(?: for)?[\s}]*([^{}]+)\}?$",
        r"\\mathbb{R}\\setminus\\{\1\\}",
    ),
    (r"\\text\s+(\w)(?!\w)", r"\\text{\1}"),
    (r"\\(?:text|operatorname\*?|mathop)\s*\{\s*(\\text\{[^{}]*\})\s*\}", r"\1"),
    (
        r"\\pmod\s*\{?\s*(\w+)\s*\}?"
        r"|(?:\\text\{\s*)?\(\s*(?:\\[bp]?mod|\\text\{\s*mod\s*\}|mod)"
        r"(?:\s|\\[,;: ]|\})*\{?\s*(\w+)\s*\}?\s*\)"
        r"|(?<=\d)\s*(?:\\b?mod|\\text\{\s*mod\s*\}|\bmod)\s*\{?(\d+)\}?\s*$",
        r"\\pmod{\1\2\3}",
    ),
    (r"[<>]=|(?<!\d)!=", lambda m: rf"\{_RELATIONS[m[0]]} "),
    (rf"\^\s*(?:\\circ{_END}|\{{\s*\\circ\s*\}})", r"^{\\circ}"),
    (r"\\text\{([^{}]*)\^\{\\circ\}([^{}]*)\}", r"\\text{\1}^{\\circ}\\text{\2}"),
    (r"\\text\{\s*((?:-?\d(?:[\d.,/\s]|(?<!\d)-|\b(?:and|or)\b)*)|[:,.+-])\s*\}", r"\1"),
    (r"\\text\{\s*(-?\d[\d.,]*)\s+((?:hundred|thousand|[mb]illion)[a-z ]*\})", r"\1\\text{\2"),
    # words of other scripts: 共12平方厘米, 18 яблок
    (r"^\s*(?:答案?|总?共[有计]?|一共有?|等于|还?剩下?|[为是有])+\s*[:为是]?\s*(?=[-\d\\])", ""),
    (
        rf"(?<=[\d}}%万亿])\s*(\\text\{{\s*)?{_FOREIGN}(?:\^\{{?[23]\}}?|/{_FOREIGN})?\s*(?(1)\}})[\s.]*$",
        "",
    ),
    (rf"(?<=\d)\s*\^\s*(?:o{_END}|\{{\s*o\s*\}})", r"^{\\circ}"),
    (r"(?<=[a-zA-Z])(?<![\\_a-zA-Z][a-zA-Z])\^\s*(?:\{\s*1\s*\}|1(?!\d))", ""),
    (
        r"(?<=\d)\s*\^\s*(?:\{\s*)?(?:\\text\{\s*(?:st|nd|rd|th)\s*\}|(?<=\{)(?:st|nd|rd|th))"
        r"(?:\s*\})?",
        "",
    ),
    (r"(\.\d*)\{((?:\\(?:dot|overline|bar)\s*(?:\{\s*\d+\s*\}|\d)|\d)+)\}", r"\1\2"),
    (
        r"(\.\d{0,9}?)(?:(\d)\2{2,}|(\d{2,6}?)\3+)\s*(?:\.{3}|\\[lc]?dots" + _END + ")",
        r"\1\\overline{\2\3}",
    ),
    (r",\s*(?:\.{3}|…)", r",\\ldots "),
    (
        r"(?<=\d)\s*(\\text\{\s*)?and (?:a|one) (half|quarter)\b",
        lambda m: f".{5 if m[2] == 'half' else 25}{m[1] or ''}",
    ),
    (r"\.\((\d+)\)", r".\\overline{\1}"),
    (r"(\\overline\s*\{\d+\})\s*(?:\.{3}|\\[lc]?dots" + _END + ")", r"\1"),
    (r"(?<!\d)\.(?=\\(?:dot|overline|bar)\b)", "0."),
    (r"(?<=[\d.])\\dot\s*\{?\d\}?(?:(?:\d|\\dot\s*\{?\d\}?)*\\dot\s*\{?\d\}?)?", _repeating),
    (r"(?<=[\d.])\\(?:bar|overline)\s*(?:\{[\s\\,]*(\d+)[\s\\,]*\}|(\d))", r"\\overline{\1\2}"),
    (
        r"(?:\{\})?[_^]\{?(\d+|n)\}?\s*(?:\\text\{\s*)?([CP])\}?\s*_\{?(\w+)\}?",
        lambda m: chosen(*m.groups()),
    ),
    (r"(?<![A-Za-z])C_\{?(\d+)\}?\s*\^\s*\{?(\d+)\}?", r"\\binom{\1}{\2}"),
    (r"\{([^{}]*)\\choose" + _END + r"([^{}]*)\}", r"\\binom{\1}{\2}"),
    (r"(\d+)\s*\\choose" + _END + r"\s*(\d+)", r"\\binom{\1}{\2}"),
    (r"\\log\s*_\s*(?:e" + _END + r"|\{\s*e\s*\})", r"\\ln "),
    (r"\\varnothing" + _END + r"|\\\{\s*\\\}|\\text\{\s*(?:the )?empty set\s*\}", r"\\emptyset "),
    (r"\^\s*(?:\{\s*((?:\\prime\s*)+)\}|\\prime" + _END + ")", lambda m: "'" * m[0].count("prime")),
    (r"\^\s*\{\s*('+)\s*\}", r"\1"),
    (
        r"(?:\\|(?<![a-zA-Z\\]))exp\s*"
        r"(?:\(((?:[^()]|\([^()]*\))*)\)|\{([^{}]*)\}|(?<=\s)(\d+|[a-z])(?![\w(^.]))",
        r"e^{\1\2\3}",
    ),
    (
        r"(?<=\d)((?:\s|~|\\[,; ]|(?:\\text)?\{)*)([aApP])(?:\.\s?)?[mM]\b\.?",
        lambda m: f"{m[1]}{m[2].lower()}m",
    ),
    (r"(?<=\d)\s*\"", "''"),
    # a reason behind the answer
    (
        r"(?<=\S)(?:\\q?quad|\\[,;: ]|\s)*(?:\\text\{\s*\(|\(\s*\\text\{)\s*"
        r"(?:since|as|because|when|if)\b[^{}]*\}.*\)\s*$",
        "",
    ),
    # a point with its name: A(2,3)
    (
        r"(^|[,;]|\b(?:and|or)\b)((?:\s|\\text\{\s*\}|\})*)([A-Z](?:_\{?\d\}?)?'*)\s*"
        rf"(\((?:{_CONSTANT})+(?:,(?:{_CONSTANT})+)+\))(?=\s*(?:[,;.]|\\text|and\b|or\b|$))",
        r"\1\2\3=\4",
    ),
)

# Thousands: LaTeX separators count everywhere, a bare comma only outside brackets, where it could
# separate the members of a tuple. "@" marks a candidate until the whole group is seen.
_MARKED = re.compile(
    r"(?<=\d)\s*(?:\{\s*,\s*\}|,\s*\\[!,;: ]|\\[!,;: ](?:\s*,)?|\{\\[,;: ]\}|~)\s*(?=\d{3}(?!\d))"
)
_COMMAS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_POINTS = re.compile(r"(?<![\d.,])\d{1,3}(?:(?:\.\d{3}){2,}(?![\d.,])|(?:\.\d{3})+,\d\d?(?!\d))")
_LOOSE = re.compile(r"(?<![\d.,])\d{1,3}(?:, \d{3})*, 0\d\d(?:, \d{3})*(?![\d,])")
_LAKHS = re.compile(r"(?<![\d.,])\d{1,2}(?:(,|\{,\}|,\\!|\\,)\d{2})(?:\1\d{2})*\1\d{3}(?![\d,])")
_BLANKS = re.compile(r"(?<![\d.,@])\d{1,3}(?: \d{3})+(?![\d,@]|\s*/)")
_QUOTE = re.compile(r"(?<=\d)['_](?=\d{3}(?!\d))")
_GROUPED = re.compile(r"(?<![\d@.])\d{1,3}(?:@\d{3})+(?![\d@])")
_TUPLE = re.compile(r"(?:[(\[]|\\\{|\\begin)[^()\[\]]*\d[, ]\s*\d")

_LATE_RULES = _rules(
    # not after a backslash: "\\ " ends a row of a matrix
    (r"~|(?<!\\)\\[,;:!> ]|\\q?quad" + _END + r"|\\(?:thinspace|enspace)" + _END, " "),
    (r"(?<![\w.}])(-?\d+)\s+(\d+)\s*/\s*(\d+)(?![\w.])", r"\1\\frac{\2}{\3}"),
    (
        r"(?<![\w.}])(-?\d+)\s*\\text\{\s*and\s*\}\s*(?=\\frac\s*(?:\{\d+\}|\d)\s*(?:\{\d+\}|\d))",
        r"\1",
    ),
    (r"\s*\\text\{\s*(hundred|[mb]illion|thousand)\b", r" \1 \\text{"),
    (
        r"(?<=[\d}])(?:\s|\\text\{\s*\})*(hundred|thousand|million|billion|万|亿)\b",
        lambda m: rf"\cdot 10^{{{_ZEROS[m[1]]}}}",
    ),
    (
        r"(?<=[\d}])\s*\\frac\s*\{\s*\\text\{([^{}]*)\}\s*\}\s*\{\s*\\text\{([^{}]*)\}\s*\}$",
        r" \\text{\1/\2}",
    ),
    (r"(?<=\d)\s*(?:\\text\{\s*to\s*\}|\bto\b)\s*(?=\d)", ":"),
    (
        r"(?<=\d)[\s}]*(?:\\text\{\s*)?(?:dollars? )?and[\s}]*(?:\\text\{)?(\d\d?)"
        r"[\s}]*(?:\\text\{\s*)?cents?\b",
        lambda m: f".{int(m[1]):02}",
    ),
    (r"\b(hours?|minutes?|days?|weeks?|years?|feet|foot|yards?|pounds?) and\b(?=[\s}]*\d)", r"\1"),
    (r"\\text\{\s*\}", " "),
    (r"(\([^()]*,[^()]*\))\s+(?=\([^()]*,[^()]*\))", r"\1, "),
    (r"\s+", " "),
)
_COMMAND = re.compile(r"\\(frac|sqrt|binom)(?![a-zA-Z])\s*")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_ARGUMENT = re.compile(r"\s*(\\[a-zA-Z]+|[^\s{}\\])")


@lru_cache(maxsize=8192)
def clean(text: str) -> str:
    """Return ``text`` with one spelling for symbols, spaces, wrappers and thousands."""
    text = without_symbols(text)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    text = _join_thousands(text)
    for pattern, replacement in _LATE_RULES:
        text = pattern.sub(replacement, text)
    text = _brace_arguments(text).strip().rstrip(".,;:\\").strip()
    while text.startswith("{") and matching_brace(text, 0) == len(text) - 1:
        text = text[1:-1].strip()
    return text


def _join_thousands(text: str) -> str:
    if not _TUPLE.search(text):
        text = _LAKHS.sub(lambda m: re.sub(r"\D", "", m[0]), text)
    text = _QUOTE.sub("@", _MARKED.sub("@", text))
    if not _TUPLE.search(text):
        text = _POINTS.sub(lambda m: m[0].replace(".", "").replace(",", "."), text)
        text = _LOOSE.sub(lambda m: m[0].replace(", ", ""), text)
        text = _COMMAS.sub(lambda m: m[0].replace(",", ""), text)
        text = _BLANKS.sub(lambda m: m[0].replace(" ", ""), text)
    text = _GROUPED.sub(lambda m: m[0].replace("@", ""), text)
    return text.replace("@", ",")


def matching_brace(text: str, start: int, limit: int | None = None) -> int:
    r"""Return the index of the brace that closes the one at ``start``; -1 where there is none."""
    depth = 0
    for match in islice(_BRACES.finditer(text, start), limit):
        if match[0] in "{}":
            depth += 1 if match[0] == "{" else -1
            if depth == 0:
                return match.start()
    return -1


def _brace_arguments(text: str) -> str:
    r"""Write ``\frac12`` as ``\frac{1}{2}`` and ``\sqrt2`` as ``\sqrt{2}``, as TeX reads them."""
    for command in reversed(list(_COMMAND.finditer(text))):
        head, at = rf"\{command[1]}", command.end()
        if command[1] == "sqrt" and text.startswith("[", at):
            close = text.find("]", at) + 1
            head, at = head + text[at:close], max(close, at)
        for _ in range(1 if command[1] == "sqrt" else 2):
            argument, at = _argument(text, at)
            head += argument
        text = text[: command.start()] + head + text[at:]
    return text


def _argument(text: str, at: int) -> tuple[str, int]:
    start = at + len(text[at:]) - len(text[at:].lstrip())
    if text.startswith("{", start):
        end = matching_brace(text, start) + 1
        return (text[start:end], end) if end else ("", at)
    match = _ARGUMENT.match(text, at)
    return (f"{{{match[1]}}}", match.end()) if match else ("", at)
