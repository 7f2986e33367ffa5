"""Which parameters a server does not take, from what it says when it refuses a request.

A parameter that a server refuses is found out once, said, recorded in config.json ("left_out") and
left out from then on; where it is n, samples are asked for one by one, and where it is an answer in
one piece ("stream=false"), answers are streamed. What the server says names the parameter in most
cases; where it does not, those are tried that no answered request had, first all of them together:
where that is refused in the same words for several problems, nothing more is asked. What was tried
counts once a request is answered. A refusal that names none, or comes as a failure of the server
(500), counts when it comes twice. Where the limit of new tokens is too large for the model, the
largest one that the server names is tried in its place ("max_tokens>2048" is what is left out).
"""

import asyncio
import itertools
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from rise.policies.policy import PolicyError

log = logging.getLogger(__name__)
T = TypeVar("T")
Ask = Callable[[dict[str, Any]], Awaitable[T]]
"""Sends a request; RefusedRequest where it is not taken as it is."""

LIMITS = ("max_tokens", "max_completion_tokens")
"""Two names of the limit of new tokens; one of them is sent."""
WHOLE = "stream=false"
"""An answer in one piece; where that is refused, it is asked for as a stream."""
OPTIONAL = {
    "n": r"(?<![\w\\])n(?![\w/-])|(multiple|one|single|several|number of|1) "
    r"(completion|choice|candidate|generation|sample|sequence|response|output)|candidate_?count|"
    r"(num|n)_?(generations|samples|return_sequences|choices|completions|cmpl)|best_of",
    "seed": r"seed",
    "top_p": r"top[_ -]?p\b|nucleus",
    "temperature": r"temperature",
    "max_tokens": r"max(imum)?[_ -]?(new|output)?[_ -]?tokens",
    "max_completion_tokens": r"max[_ -]?completion[_ -]?tokens",
    "return_token_ids": r"return_token_ids",
    WHOLE: r"(?<!up)(?<!down)stream|\bsse\b|synchronous|流",
    "stream_options": r"stream[_ -]?options|include[_ -]?usage",
}
"""Parameters that a server may refuse, and how it names them."""
OUT_OF_RANGE = re.compile(
    r"between|range|(greater|less|larger|smaller|lower|higher|more) than|at (most|least)|"
    r"non-?negative|positive|[<>]=? ?-?\d+(?![\d.]*>)|\bin [\[(]|"
    r"too (large|small|high|low)|exceed|minimum|maximum|above|beyond"
)
"""How servers say that they take the parameter, but not this value."""
MORE = "max_tokens>"
"""With a number, what is left out where a model takes no larger limit, whatever its name."""
NUMBER = re.compile(r"(?<![\w.-])\d+(?:,\d{3})*(?!\w|-\d|\.\d)")
ABOUT_THE_PROMPT = re.compile(r"\b(messages|roles?|prompts?)\b")


INSTEAD = {
    "n": "samples are asked for one by one",
    "max_tokens": "max_completion_tokens is sent",
    "max_completion_tokens": "max_tokens is sent",
    WHOLE: "answers are streamed",
}
"""What is done where one of them is refused; others are left out."""
HOPELESS = 4
"""So many problems refused in every form, and none answered: the next one ends the run."""


class RefusedRequest(PolicyError):
    """A request that the server does not take as it is; `said` has its words, in lower case."""

    said = ""


class Forms:
    """In which form a server takes requests; `newer`: whether it calls the limit by its newer name.

    `learned` is called with the name and all that is left out when something was added.
    """

    def __init__(
        self,
        name: str,
        newer: bool,
        left_out: Sequence[str],
        learned: Callable[[str, list[str]], None],
    ):
        self.left_out = list(left_out)
        self._name, self._newer, self._learned = name, newer, learned
        self._learning = asyncio.Lock()
        self._taken: set[Any] = set()
        """Parameters with their values that are not refused: an answered request had them."""
        self._answered = False
        self._hopeless = 0
        """Problems that were refused in the plainest form too, before anything was answered."""

    async def answered(self, request: dict[str, Any], ask: Ask[T]) -> T:
        """The answer to a request without what the server is known, or found, to refuse."""
        sent = fitted(request, self.left_out, self._newer)
        try:
            return await self._try(sent, ask)
        except RefusedRequest as error:
            refused = error
        async with self._learning:
            if fitted(request, self.left_out, self._newer) == sent:
                return await self._learn(request, refused, ask)
        return await self.answered(request, ask)

    async def _try(self, sent: dict[str, Any], ask: Ask[T]) -> T:
        answer = await ask(sent)
        self._answered = True
        self._taken.update(marks(sent).values())
        return answer

    async def _learn(self, request: dict[str, Any], first: RefusedRequest, ask: Ask[T]) -> T:
        """The answer to a request that was refused, once that is left out which is refused.

        The first refusal is raised where it is none of the parameters.
        """
        if self._hopeless >= HOPELESS and not self._answered:
            message = f"{first.message}, to every form of a request: the server's log may say why"
            raise PolicyError("setup", message)
        left_out, refused = self.left_out, first
        tried: list[list[str]] = []
        why: dict[str, str] = {}
        fails = first.kind == "server"
        while True:
            sent = fitted(request, left_out, self._newer)
            new = [name for name, mark in marks(sent).items() if mark not in self._taken]
            suspects = suspected(sent, refused.said, () if fails else new)
            if not tried and suspects and (fails or not named_in(sent, first.said)):
                try:  # it may have been a failure that passes
                    return await self._try(sent, ask)
                except RefusedRequest as error:
                    if bare(error.said) != bare(first.said):
                        raise
                if not fails and await self._refuses_all(request, new, first, ask):
                    self._hopeless += 1
                    raise first
            trials = (sorted({*left_out, *names}) for names in suspects)
            trial = next((t for t in trials if t not in tried and not {*LIMITS} <= {*t}), None)
            if trial is None:
                if not fails:
                    self._taken.update(marks(sent).values())
                    named = named_in(sent, first.said).keys() - {WHOLE}
                    if named and not self._answered:  # nobody would be
                        raise PolicyError("setup", f"{first.message}; give another value")
                raise first
            tried.append(trial)
            now = {name: refused.message for name in trial if name not in left_out}
            try:
                answer = await self._try(fitted(request, trial, self._newer), ask)
            except RefusedRequest as error:
                if bare(error.said) != bare(refused.said):
                    left_out, refused = trial, error  # something else is refused now
                    why |= now
                continue
            for name, said in (why | now).items():
                most = f"answers have {name.removeprefix(MORE)} tokens at most"
                instead = most if name.startswith(MORE) else INSTEAD.get(name, "it is left out")
                message = "%s does not take %s (%s): %s from now on"
                log.warning(message, self._name, name, said, instead)
            self.left_out = trial
            self._learned(self._name, trial)
            return answer

    async def _refuses_all(
        self, request: dict[str, Any], new: list[str], first: RefusedRequest, ask: Ask[T]
    ) -> bool:
        """Whether a request is refused in the same words without all that is suspected."""
        plain = {*new} - {WHOLE}
        forms = [plain - {*LIMITS}, plain, {WHOLE} & {*new}]
        for left_out in forms if len(plain) > 1 else []:
            try:
                await self._try(
                    fitted(request, sorted({*self.left_out, *left_out}), self._newer), ask
                )
                return False
            except RefusedRequest as error:
                if bare(error.said) != bare(first.said):
                    return False
        return len(plain) > 1


def suspected(sent: dict[str, Any], said: str, new: Sequence[str] = ()) -> list[list[str]]:
    """What to leave out, the likeliest first, where a server says this (in lower case) of it.

    Where it names none, those of the `new` are tried.

    >>> suspected({"temperature": 0.7, "top_p": 1.0}, "temperature and top_p: only one of them")
    [['top_p'], ['temperature'], ['top_p', 'temperature']]
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
    free.sort(key=named.__getitem__)
    lower = _lower_limits(sent, said)
    others = [name for name in free if lower and name not in LIMITS]
    return _combinations(others) + lower + _combinations(free)


def _lower_limits(sent: dict[str, Any], said: str) -> list[list[str]]:
    """The largest limit of new tokens below the one sent that a server names, or one less.

    >>> _lower_limits({"max_tokens": 4096}, "max_tokens must be from 1 to 2,049 (exclusive)")
    [['max_tokens>2049'], ['max_tokens>2048']]
    """
    asked = next((sent[name] for name in LIMITS if name in sent), 0)
    if not any(re.search(OPTIONAL[name], said) for name in LIMITS):
        return []
    numbers = (int(number.replace(",", "")) for number in NUMBER.findall(said))
    most = max((number for number in numbers if number < asked), default=0)
    return [[f"{MORE}{number}"] for number in (most, most - 1) if number > 0]


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
    sent = {name: value for name, value in request.items() if name not in hidden}
    most = [int(name.removeprefix(MORE)) for name in left_out if name.startswith(MORE)]
    return sent | {name: min(sent[name], *most) for name in LIMITS if most and name in sent}


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
