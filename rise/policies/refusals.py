"""Which parameter a server does not take, from what it says when it refuses a request."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

LIMITS = ("max_tokens", "max_completion_tokens")
"""Two names of the limit of new tokens; one of them is sent."""
WHOLE = "stream=false"
"""An answer in one piece; where that is refused, it is asked for as a stream."""
OPTIONAL = {
    "n": r"(?<![\w\\])n(?![\w/-])|(multiple|one|single|several|number of|1) "
    r"(completion|choice|candidate|generation|sample|sequence|response)|candidate_?count|"
    r"(num|n)_?(generations|samples|return_sequences|choices|completions|cmpl)|best_of",
    "seed": r"seed",
    "top_p": r"top[_ -]?p\b|nucleus",
    "temperature": r"temperature",
    "max_tokens": r"max[_ -]?(new|output)?[_ -]?tokens",
    "max_completion_tokens": r"max[_ -]?completion[_ -]?tokens",
    "return_token_ids": r"return_token_ids",
    WHOLE: r"(?<!up)(?<!down)stream|\bsse\b|synchronous|流",
    "stream_options": r"stream[_ -]?options|include[_ -]?usage",
}
"""Parameters that a server may refuse, and how it names them."""
OUT_OF_RANGE = re.compile(
    r"between|range|(greater|less|larger|smaller|lower|higher|more) than|at (most|least)|"
    r"non-?negative|positive|[<>]=? ?-?\d+(?![\d.]*>)|\bin [\[(]|"
    r"too (large|small|high|low)|exceed|minimum|maximum"
)
"""How servers say that they take the parameter, but not this value."""
ABOUT_THE_PROMPT = re.compile(r"\b(messages|roles?|prompts?)\b")


def suspected(sent: dict[str, Any], said: str, new: Sequence[str] = ()) -> list[list[str]]:
    """What to leave out, the likeliest first, where a server says this of a request.

    >>> suspected({"temperature": 0.7, "top_p": 1.0}, "temperature and top_p: only one of them")
    [['top_p'], ['temperature'], ['top_p', 'temperature']]

    Args:
        sent: the request.
        said: the server's words, in lower case.
        new: which are tried where the server names none.
    """
    named = named_in(sent, said)
    if not named and not ABOUT_THE_PROMPT.search(said):
        return _combinations([name for name in new if name != WHOLE]) + [[WHOLE]] * (WHOLE in new)
    if {"temperature", "top_p"} <= named.keys():
        # One of the two: the one that says least, as 1 is everybody's default.
        first = min(("top_p", "temperature"), key=lambda name: sent[name] != 1)
        named[first] = min(named.values()) - 1
    # A value that is out of range is the user's to change, but for those that say nothing.
    in_range = not OUT_OF_RANGE.search(said)
    free = [name for name in named if in_range or name in ("n", "seed") or sent[name] == 1]
    return _combinations(sorted(free, key=named.__getitem__))


def _combinations(names: Sequence[str]) -> list[list[str]]:
    """One of them, two, all."""
    sizes = sorted({*range(1, 1 + len(names))} & {1, 2, len(names)})
    return [[*some] for size in sizes for some in itertools.combinations(names, size)]


def fitted(request: dict[str, Any], left_out: Sequence[str], newer: bool) -> dict[str, Any]:
    """The request without what is left out, and with one name of the limit: the newer, or not."""
    limits = [name for name in LIMITS[:: -1 if newer else 1] if name not in left_out]
    hidden = {*left_out, *LIMITS} - set(limits[:1])
    hidden |= {"n"} if request["n"] == 1 else set()
    hidden |= set() if WHOLE in left_out else {"stream_options"}
    return {name: value for name, value in request.items() if name not in hidden}


def body_of(sent: dict[str, Any]) -> dict[str, Any]:
    """A request as it goes over the wire."""
    body = {name: value for name, value in sent.items() if name != WHOLE}
    body |= {} if WHOLE in sent else {"stream": True}
    return body | ({"stream_options": {"include_usage": True}} if "stream_options" in body else {})


def marks(sent: dict[str, Any]) -> dict[str, Any]:
    """What tells whether a parameter was taken before: itself with its value, but of every seed."""
    return {name: (name, name != "seed" and sent[name]) for name in OPTIONAL if name in sent}


def named_in(sent: dict[str, Any], said: str) -> dict[str, int]:
    """The parameters of a request that a server names, and where it does."""
    places = {name: re.search(words, said) for name, words in OPTIONAL.items() if name in sent}
    return {name: place.start() for name, place in places.items() if place}


def bare(said: str) -> str:
    """What a server says, without numbers of requests and the like."""
    return re.sub(r"\S*\d\S*", "", said)
