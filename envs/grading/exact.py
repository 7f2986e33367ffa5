r"""Exact values of numeric LaTeX: ``rational(r"7\frac{1}{2}")`` is ``Fraction(15, 2)``.

A small recursive-descent reader over rational numbers. It never evaluates code, and it bounds the
size of every number before it computes one, so that ``10^{10^{10}}`` costs nothing.
"""

import re
from fractions import Fraction
from math import comb, factorial, isqrt

MAX_BITS = 24_000
"""Longest numerator plus denominator that is computed; 2006! has 19,100 bits."""
MAX_ROOT_BITS = 100
"""Longest number whose cube or higher root is taken; beyond it floats would round wrongly."""
MAX_TOKENS = 400
MAX_DEPTH = 30

_TOKEN = re.compile(
    r"\s*(?:(?P<repeating>\d*\.\d*\\overline\s*\{\d+\})"
    r"|(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<mark>\\(?:frac|sqrt|binom|cdot|times|ast|div)(?![a-zA-Z])|\*\*|[-+*/^!(){}\[\]]))",
    re.ASCII,
)
_TIMES = ("*", r"\cdot", r"\times", r"\ast")
_OVER = ("/", r"\div")
_OPENS_FACTOR = ("(", r"\frac", r"\sqrt", r"\binom")


class TooLarge(ArithmeticError):
    """It has a number beyond ``MAX_BITS``: whether it is equal stays undecided."""


class _NotRational(ValueError):
    """The text is not an exact rational number in the notation that is read here."""


def rational(text: str) -> Fraction | None:
    r"""Return the exact value of ``text``; None when it is no plain rational number.

    Reads integers, decimals (also ``0.\overline{3}`` and ``1.5e3``), ``\frac``, ``/``, mixed
    numbers, products, powers, factorials, ``\binom``, perfect roots and parentheses; TooLarge
    beyond ``MAX_BITS``.
    """
    try:
        return _Reader(_tokens(text)).whole()
    except (_NotRational, ZeroDivisionError):
        return None


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    at, text = 0, text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or len(tokens) >= MAX_TOKENS:
            raise _NotRational(text[:80])
        tokens.append(match.group().strip())
        at = match.end()
    return tokens


def _bounded(value: Fraction) -> Fraction:
    if value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
        raise TooLarge
    return value


def _literal(token: str) -> Fraction:
    if "overline" in token:
        plain, repeated = re.findall(r"[\d.]+", token)
        shift = 10 ** len(plain.partition(".")[2])
        start = Fraction(plain + "0" if plain.endswith(".") else plain)
        return start + Fraction(int(repeated), shift * (10 ** len(repeated) - 1))
    digits, _, exponent = token.lower().partition("e")
    value = Fraction(digits.rstrip("."))
    return value * _power(Fraction(10), Fraction(exponent)) if exponent else value


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        base, exponent = _root(base, exponent.denominator), Fraction(exponent.numerator)
    if abs(base) == 1:
        return base if exponent % 2 else Fraction(1)
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if base != 0 and size * abs(exponent) > MAX_BITS:
        raise TooLarge
    if base == 0 and exponent <= 0:
        raise _NotRational("0 to a power that is not positive")
    return base ** int(exponent) if base else base


def _root(value: Fraction, degree: int) -> Fraction:
    if not 2 <= degree <= 64 or (value < 0 and degree % 2 == 0):
        raise _NotRational("no real root")
    sign = -1 if value < 0 else 1
    return Fraction(
        sign * _integer_root(abs(value.numerator), degree), _integer_root(value.denominator, degree)
    )


def _integer_root(value: int, degree: int) -> int:
    if degree > 2 and value.bit_length() > MAX_ROOT_BITS:
        raise _NotRational("root of a long number")
    root = isqrt(value) if degree == 2 else round(value ** (1 / degree))
    if root**degree != value:
        raise _NotRational("not a perfect power")
    return root


def _small(value: Fraction, limit: int) -> int:
    if value.denominator != 1 or value < 0:
        raise _NotRational("needs a whole number")
    if value > limit:
        raise TooLarge
    return int(value)


class _Reader:
    """Recursive descent over the tokens; every method leaves ``self.at`` behind what it read."""

    def __init__(self, tokens: list[str]):
        self.tokens = tokens
        self.at = 0
        self.depth = 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, *allowed: str) -> str:
        token = self.peek()
        if not token or (allowed and token not in allowed):
            raise _NotRational(f"expected {allowed}, found {token!r}")
        self.at += 1
        return token

    def whole(self) -> Fraction:
        value = self.sum()
        if self.peek():
            raise _NotRational(f"left over: {self.peek()!r}")
        return value

    def sum(self) -> Fraction:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _NotRational("nested too deeply")
        value = self.product()
        while self.peek() in ("+", "-"):
            sign = 1 if self.take() == "+" else -1
            value = _bounded(value + sign * self.product())
        self.depth -= 1
        return value

    def product(self) -> Fraction:
        value = self.signed()
        while True:
            if self.peek() in _TIMES:
                self.take()
                value = _bounded(value * self.signed())
            elif self.peek() in _OVER:
                self.take()
                value = _bounded(value / self.signed())
            elif self.peek() in _OPENS_FACTOR:
                value = _bounded(value * self.power())
            else:
                return value

    def signed(self) -> Fraction:
        if self.peek() in ("+", "-"):
            return self.power() if self.take() == "+" else -self.power()
        return self.power()

    def power(self) -> Fraction:
        value = self.atom()
        if self.peek() == "!":
            self.take()
            value = Fraction(factorial(_small(value, 2500)))
        if self.peek() in ("^", "**"):
            self.take()
            value = _power(value, self.exponent())
        return _bounded(value)

    def exponent(self) -> Fraction:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _NotRational("nested too deeply")
        value = self.signed()
        self.depth -= 1
        return value

    def atom(self) -> Fraction:
        token = self.take()
        if token in ("(", "{"):
            return self.close(self.sum(), ")" if token == "(" else "}")
        if token == r"\frac":
            return self.group() / self.group()
        if token == r"\sqrt":
            return self.square_root()
        if token == r"\binom":
            return Fraction(comb(_small(self.group(), 500), _small(self.group(), 500)))
        if not (token[0].isdigit() or token[0] == "."):
            raise _NotRational(f"unexpected {token!r}")
        value = _literal(token)
        if token.isdigit() and self.peek() == r"\frac":
            value += self.mixed_part()
        return value

    def mixed_part(self) -> Fraction:
        part = self.atom()
        if not 0 < part < 1:
            raise _NotRational("a mixed number needs a proper fraction")
        return part

    def square_root(self) -> Fraction:
        degree = 2
        if self.peek() == "[":
            self.take()
            degree = _small(self.close(self.sum(), "]"), 64)
        return _root(self.group(), degree)

    def group(self) -> Fraction:
        self.take("{")
        return self.close(self.sum(), "}")

    def close(self, value: Fraction, bracket: str) -> Fraction:
        self.take(bracket)
        return value
