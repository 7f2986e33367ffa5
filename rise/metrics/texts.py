"""How a text repeats itself, and how much of an attempt is the attempt before it.

Words and runs of punctuation marks are counted. `rise.metrics.turns` applies the functions to the
turns of a run.
"""

import re
from collections.abc import Sequence

NGRAM = 4
"""Words in a row that count as one piece: short enough to be found again, too long for chance."""
COMPARED_WORDS = 100
"""Words of each text that `edit_similarity` reads: two of this length take about 10 ms."""


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
    """
    found = pieces(text, n)
    return 1 - len(set(found)) / len(found) if found else 0.0


def edit_similarity(previous: str, attempt: str) -> float:
    """How alike two texts are, from 0 (no word in common) to 1 (the same words).

    Formula: 1 - (words to insert, delete or replace) / (words of the longer text), over the first
    `COMPARED_WORDS` words of each. Two empty texts are alike.

    >>> edit_similarity("3 + 4 = 7", "3 + 4 = 8"), edit_similarity("yes", "no")
    (0.8, 0.0)
    >>> edit_similarity("so 3 + 4 = 7", "3 + 4 = 7 clips")
    0.6666666666666667
    """
    a, b = (words(text)[:COMPARED_WORDS] for text in (previous, attempt))
    if a == b:
        return 1.0
    from nltk.metrics.distance import edit_distance  # takes a second or two to import

    return 1 - edit_distance(*_differing(a, b)) / max(len(a), len(b))


def _differing(a: Sequence[str], b: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    start, shortest = 0, min(len(a), len(b))
    while start < shortest and a[start] == b[start]:
        start += 1
    end = 0
    while end < shortest - start and a[-1 - end] == b[-1 - end]:
        end += 1
    return a[start : len(a) - end], b[start : len(b) - end]


def words(text: str) -> list[str]:
    """The words and runs of punctuation marks of a text.

    >>> words("It's 3.5!")
    ['It', "'", 's', '3', '.', '5', '!']
    """
    return re.findall(r"\w+|[^\w\s]+", text)


def pieces(text: str, n: int = NGRAM) -> list[tuple[str, ...]]:
    found = words(text)
    return list(zip(*(found[start:] for start in range(n)), strict=False))
