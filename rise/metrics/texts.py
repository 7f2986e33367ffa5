"""How a text repeats itself, and how much of an attempt is the attempt before it.

Words and runs of punctuation marks are counted. `rise.metrics.turns` applies the functions to the
turns of a run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

NGRAM = 4
"""Words in a row that count as one piece: short enough to be found again, too long for chance."""
COMPARED_WORDS = 100
"""Words of each text that `edit_similarity` reads: its time grows with their product, and two
texts of this length take about 10 ms."""


def repetition(text: str, n: int = NGRAM) -> float:
    """The share of a text's n-grams that it had already said, in 0..1.

    Formula: 1 - (distinct n-grams) / (all n-grams). A text of fewer than n words has none and
    counts as 0. A model that degenerates into a loop comes close to 1.

    >>> repetition("2 + 2 = 4 so the answer is 4")
    0.0
    >>> repetition("so it is 4 so it is 4 so it is 4")
    0.5555555555555556
    >>> repetition("4 4 4")
    0.0

    Raises:
        ValueError: if n is below 1.
    """
    pieces = _pieces(text, n)
    return 1 - len(set(pieces)) / len(pieces) if pieces else 0.0


def copy_rate(previous: str, attempt: str, n: int = NGRAM) -> float:
    """The share of an attempt's n-grams that the previous attempt has too, in 0..1.

    Formula: (n-grams of the attempt that occur in `previous`) / (n-grams of the attempt), each as
    often as it is said. An attempt of fewer than n words counts as 0.

    >>> copy_rate("first 3 + 4 = 7 then stop", "I see: 3 + 4 = 7")
    0.4
    >>> copy_rate("3 + 4 = 7", "3 + 4 = 8"), copy_rate("7", "7")
    (0.5, 0.0)

    Raises:
        ValueError: if n is below 1.
    """
    pieces, known = _pieces(attempt, n), set(_pieces(previous, n))
    return sum(piece in known for piece in pieces) / len(pieces) if pieces else 0.0


def edit_similarity(previous: str, attempt: str) -> float:
    """How alike two texts are, from 0 (no word in common) to 1 (the same words).

    Formula: 1 - (words to insert, delete or replace) / (words of the longer text), over the first
    `COMPARED_WORDS` words of each. Two empty texts are alike.

    >>> edit_similarity("3 + 4 = 7", "3 + 4 = 8"), edit_similarity("yes", "no")
    (0.8, 0.0)
    >>> edit_similarity("so 3 + 4 = 7", "3 + 4 = 7 clips")
    0.6666666666666667
    """
    a, b = (_words(text)[:COMPARED_WORDS] for text in (previous, attempt))
    if a == b:
        return 1.0
    from nltk.metrics.distance import edit_distance  # takes a second or two to import

    return 1 - edit_distance(*_differing(a, b)) / max(len(a), len(b))


def piece_set(text: str, n: int = NGRAM) -> frozenset[tuple[str, ...]]:
    """The n-grams of a text; a text of fewer than n words is one piece.

    >>> sorted(piece_set("it is 4 so 4"))
    [('is', '4', 'so', '4'), ('it', 'is', '4', 'so')]

    Raises:
        ValueError: if n is below 1.
    """
    return frozenset(_pieces(text, n) or [tuple(_words(text))])


def common_share(a: frozenset[tuple[str, ...]], b: frozenset[tuple[str, ...]]) -> float:
    """How much of what two texts say both of them say, in 0..1 (the Jaccard index).

    Formula: (pieces in both) / (pieces in at least one); see `piece_set`.

    >>> common_share(piece_set("so it is 4 then"), piece_set("so it is 4 now"))
    0.3333333333333333
    """
    return len(a & b) / len(a | b)


def _differing(a: Sequence[str], b: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Both texts without their common beginning and end, which cost time and no edits."""
    start, shortest = 0, min(len(a), len(b))
    while start < shortest and a[start] == b[start]:
        start += 1
    end = 0
    while end < shortest - start and a[-1 - end] == b[-1 - end]:
        end += 1
    return a[start : len(a) - end], b[start : len(b) - end]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]+", text)


def _pieces(text: str, n: int) -> list[tuple[str, ...]]:
    if n < 1:
        raise ValueError(f"n-grams of {n} words: n must be at least 1")
    words = _words(text)
    return list(zip(*(words[start:] for start in range(n)), strict=False))
