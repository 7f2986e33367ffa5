"""Stop texts: found as soon as an answer contains one, and never part of what a client reads."""

from collections.abc import Iterable, Sequence
from typing import Any

_REPLACEMENT = "\ufffd"


def decode(tokenizer: Any, tokens: Sequence[int]) -> str:
    """The text of an answer's tokens, without special tokens."""
    return tokenizer.decode(list(tokens), skip_special_tokens=True)


def contains_stop(tokenizer: Any, tokens: Sequence[int], stops: Sequence[str]) -> bool:
    """Whether the text of `tokens` contains a stop text that its last token completed."""
    if not stops:
        return False
    # Byte-level tokens hold at least one byte each; a few more cover the seam on the left.
    window = max(len(text.encode()) for text in stops) + 4
    if len(tokens) > window and not _any_in(stops, decode(tokenizer, tokens[-window:])):
        return False
    return _any_in(stops, decode(tokenizer, tokens))


def cut_at_stop(text: str, stops: Iterable[str]) -> str:
    """`text` up to the earliest stop text."""
    places = [text.find(stop) for stop in stops]
    found = [place for place in places if place >= 0]
    return text[: min(found)] if found else text


def hold_back(text: str, stops: Iterable[str]) -> str:
    """`text` without an end that more tokens may change: half a character or half a stop text."""
    text = cut_at_stop(text, stops).rstrip(_REPLACEMENT)
    longest = 0
    for stop in stops:
        sizes = range(min(len(stop) - 1, len(text)), longest, -1)
        longest = next((size for size in sizes if text.endswith(stop[:size])), longest)
    return text[: len(text) - longest]


def _any_in(stops: Iterable[str], text: str) -> bool:
    return any(stop in text for stop in stops)
