"""Rows that nearly repeat an earlier row: the same question, nearly the same attempts.

Iterations that are pooled, and many samples of one question, say the same thing many times. A row
is dropped if an earlier one that is kept has the same opening, as many attempts and the same
reward, and if each of its attempts shares `similarity` of its pieces with the other's attempt in
the same place. The reward is compared so that a right answer is never dropped for a wrong one that
differs in a digit.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from rise.dataset.rules import Row
from rise.dataset.text_keys import groups, messages_key
from rise.dataset.writer import RowSpill
from rise.metrics.texts import pieces, words

NumberedRow = tuple[int, Row]
"""A row with the number of the log that it is from."""
COMPARED_ROWS = 200
"""Kept rows of its question, the latest, that a row is compared with: time grows quadratically."""
REASON = "near duplicate"


def without_near_duplicates(
    rows: Iterable[NumberedRow], similarity: float, output: Path, dropped: Counter[str]
) -> Iterator[NumberedRow]:
    """The rows, in their order, without those that nearly repeat an earlier one.

    All are read before the first is yielded and wait on the disk of `output`; 17 bytes of each, and
    the rows of one question, are in memory. `similarity` is in (0, 1]: 1 drops attempts that share
    all pieces.
    """
    with RowSpill(output) as spill:
        keys = array("Q")
        for number, row in rows:
            opening = row.messages[: row.opening]
            keys.append(messages_key(opening, str(len(row.messages)), str(row.reward)))
            spill.append({"number": number, "row": vars(row)})
        keep = bytearray(b"\1" * len(keys))
        for group in groups(keys):
            for place in _repeating(spill, group, similarity):
                keep[place] = 0
                dropped[REASON] += 1
        kept = (at for at, is_kept in zip(spill.offsets, keep, strict=True) if is_kept)
        for record in spill.rows(kept):
            yield record["number"], Row(**record["row"])


def _repeating(spill: RowSpill, group: list[int], similarity: float) -> Iterator[int]:
    if len(group) == 1:
        return
    kept: list[list[frozenset[tuple[str, ...]]]] = []
    records = spill.rows(spill.offsets[place] for place in group)
    for place, record in zip(group, records, strict=True):
        messages = record["row"]["messages"][record["row"]["opening"] :]
        attempts = [_piece_set(m["content"]) for m in messages if m["role"] == "assistant"]
        if any(_alike(attempts, other, similarity) for other in reversed(kept[-COMPARED_ROWS:])):
            yield place
        else:
            kept.append(attempts)


def _piece_set(text: str) -> frozenset[tuple[str, ...]]:
    return frozenset(pieces(text) or [tuple(words(text))])


def _alike(attempts: list, others: list, similarity: float) -> bool:
    """Whether each pair has that share of its pieces in common (the Jaccard index)."""
    pairs = zip(attempts, others, strict=True)
    return all(len(a & b) / len(a | b) >= similarity for a, b in pairs)
