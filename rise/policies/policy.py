"""Who answers: the one interface that the rollout knows.

`rise.policies.worker` speaks to FastChat workers, `rise.policies.openai_api` to OpenAI-compatible
servers, `rise.policies.function` calls Python functions; `rise.policies.names` decides by a model's
name which of them it is.
"""

from __future__ import annotations

import logging
import math
import random
import re
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import tenacity

from fastchat.utils import visible
from rise.episodes.episode import Message
from rise.policies.keys import redact

log = logging.getLogger(__name__)
T = TypeVar("T")

RETRIED = frozenset({"connection", "no_worker", "overloaded", "server", "timeout"})
"""Kinds of errors that may pass. Every other kind fails at once, as it would fail again."""
GONE = frozenset({"connection", "no_worker", "timeout"})
"""Kinds of errors of somebody who may have gone, and come back."""
ENDS_RUN = frozenset({"not_found", "quota", "setup", "unauthorized"})
"""Kinds of errors after which no further request is made: each would fail the same way."""
UNWRITABLE = re.compile("[\0\ud800-\udfff]")
"""What no file and few servers take: NUL, and half a surrogate pair."""


@dataclass(frozen=True)
class Sample:
    """One answer of a model."""

    text: str
    finish_reason: str
    """stop, or length where the limit of new tokens cut the answer."""
    prompt_tokens: int = 0
    """Tokens of the request. The first sample of a turn has those of all requests that the turn
    took, also of those that gave no answer, and likewise for the two counts below."""
    completion_tokens: int = 0
    requests: int = 1
    token_ids: list[int] | None = None
    """The sampled tokens, the one that ended the answer included, where the server gives them."""
    tokenizer: str | None = None
    """Whose tokens they are: `fastchat.conversation.ChatTemplate.fingerprint`."""
    place: int | None = None
    """Which of the n samples it is, counted from 0, where a server may filter some of them."""
    reasoning: str | None = None
    """What the server sends beside the answer: its reasoning, or why it refuses."""
    uncounted: int = 0
    """How many of the requests came without a count of their tokens."""
    replaced: int = 0
    """Characters of the text that no file takes, and that are U+FFFD now."""

    def __post_init__(self) -> None:
        text, count = replace_unwritable(self.text)
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "replaced", self.replaced + count)
        if self.reasoning:
            object.__setattr__(self, "reasoning", replace_unwritable(self.reasoning)[0])


def replace_unwritable(text: str) -> tuple[str, int]:
    r"""The text with U+FFFD for what no file takes, and how often that was.

    >>> replace_unwritable("half \ud83d") == ("half \N{REPLACEMENT CHARACTER}", 1)
    True
    """
    return UNWRITABLE.subn("\N{REPLACEMENT CHARACTER}", text)


def usage_of(samples: Sequence[Sample]) -> dict[str, int]:
    """What the samples of one turn took, as it is recorded; what is rare only where it is."""
    first = samples[0]
    rare = {
        "requests": first.requests if first.requests > 1 else 0,
        "uncounted_requests": first.uncounted,
        "replaced_characters": sum(sample.replaced for sample in samples),
    }
    return {
        "prompt_tokens": first.prompt_tokens,
        "completion_tokens": sum(sample.completion_tokens for sample in samples),
        **{name: count for name, count in rare.items() if count},
    }


class PolicyError(Exception):
    """A request that gave no answer.

    `kind` is one of: connection, timeout, no_worker, overloaded, server (all retried),
    bad_request, context_overflow, content_filter, malformed, function, and those that end the run:
    unauthorized, quota, not_found, setup. The message holds no API key, whoever repeated it.
    """

    def __init__(self, kind: str, message: str, retry_after: float | None = None):
        message = visible(replace_unwritable(redact(message))[0])
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message
        self.retry_after = retry_after
        self.usage: dict[str, int] = {}
        """requests, prompt_tokens and completion_tokens that the server counted all the same."""


class Policy(ABC):
    """Somebody who answers a dialogue."""

    name: str
    retries: Retries | None = None
    """None where nobody is asked who may go."""

    @abstractmethod
    async def sample(
        self,
        messages: list[Message],
        *,
        n: int,
        seed: int,
        temperature: float,
        top_p: float,
        max_new_tokens: int,
        problem: dict[str, Any],
    ) -> list[Sample]:
        """Give n answers to the dialogue; fewer, but one or more, where a server filtered some.

        Where there are fewer, each says its `place`. Answer i uses seed + i where the server can;
        temperature 0 is greedy. `problem`, the data row plus "task_id", is for programmatic experts
        only. PolicyError if there is no answer; never a text in its place.
        """

    def day(self, of_run: str | None) -> str | None:
        """The day (YYYY-MM-DD) that the prompt of the last answer printed, if it prints one."""
        return of_run

    async def drawn(self) -> dict[str, int]:
        """Worker -> tokens drawn since its start, for whomever, where workers say it."""
        return {}

    @abstractmethod
    async def check(self) -> None:
        """Raise PolicyError if a request could not be answered now. Costs no generation."""

    @abstractmethod
    async def close(self) -> None:
        """Give up connections."""


@dataclass
class Retries:
    """How often a request is tried again, how long it waits before, and who has gone."""

    attempts: int = 4
    """Tries in all that fail in the same way."""
    timeouts: int = 2
    """Of these where each ran out of time."""
    overloads: int | None = None
    """Of these where the server has too much to do, or is still loading; as all others."""
    patience: float = 0.0
    """Seconds that requests wait for whoever has gone, before the last of their tries counts."""
    first_wait: float = 0.5
    """Seconds; doubled for each further try, with jitter."""
    longest_wait: float = 30.0
    """Seconds; a third of it for whoever has gone."""
    longest_asked: float = 300.0
    """Seconds: whoever asks to wait longer is tried again after that."""
    gone_since: float | None = field(default=None, init=False)
    """When the first request failed after the last sign of life, by time.monotonic."""
    _seen_at: float = field(default=-math.inf, init=False)

    async def run(self, call: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Await call(*args) until it answers, fails for good or the tries are used up."""
        failures: Counter[str] = Counter()
        while_others_are_answered = 0
        failed_at = time.monotonic()

        def goes_on(error: BaseException) -> bool:
            nonlocal while_others_are_answered, failed_at
            if not isinstance(error, PolicyError):
                return False
            kind, most = error.kind, self._most(error.kind)
            failures[kind] += 1
            while_others_are_answered += self._seen_at > failed_at
            failed_at = time.monotonic()
            if kind not in GONE:
                self._seen()
            elif self.gone_since is None:
                self.gone_since = failed_at
            is_waited_for = while_others_are_answered < most and self.seconds_left() > 0
            return kind in RETRIED and (failures[kind] < most or is_waited_for)

        trying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(goes_on),
            stop=tenacity.stop_never,
            wait=self._wait,
            before_sleep=_log_retry,
            reraise=True,
        )
        answer: T = await trying(call, *args)
        self._seen()
        return answer

    def seconds_left(self) -> float:
        """How long whoever has gone is still waited for; 0 while he is there."""
        if self.gone_since is None:
            return 0.0
        return max(0.0, self.gone_since + self.patience - time.monotonic())

    def _seen(self) -> None:
        self._seen_at, self.gone_since = time.monotonic(), None

    def _most(self, kind: str) -> int:
        own = {"timeout": self.timeouts, "overloaded": self.overloads or self.attempts}
        return own.get(kind, self.attempts)

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = _error_of(state)
        longest = self.longest_wait / (3 if error.kind in GONE else 1)
        longest = min(longest, self.first_wait * 2 ** min(state.attempt_number - 1, 30))
        asked = min(error.retry_after or 0.0, self.longest_asked)
        return max(asked, random.uniform(longest / 2, longest))


def _error_of(state: tenacity.RetryCallState) -> PolicyError:
    error = state.outcome and state.outcome.exception()
    assert isinstance(error, PolicyError), "only they are retried"
    return error


def _log_retry(state: tenacity.RetryCallState) -> None:
    error = _error_of(state)
    # One line when trouble begins; the later tries of the same request are detail.
    level = logging.WARNING if state.attempt_number == 1 else logging.INFO
    cause = type(error.__cause__ or error).__name__
    log.log(level, "request failed (%s, %s), trying again", cause, error)
