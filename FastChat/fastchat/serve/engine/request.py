"""What goes into the engine and what comes out of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from fastchat.constants import ErrorCode, FinishReason, RequestError
from fastchat.serve.engine.gpu_errors import is_full
from fastchat.serve.stopping import contains_stop
from fastchat.utils import first_line

_GREEDY_TEMPERATURE = 1e-5
_GREEDY_TOP_P = 1e-8


@dataclass(frozen=True)
class SamplingParams:
    """How one row draws its tokens."""

    temperature: float = 1.0
    top_p: float = 1.0
    """Keep the smallest set of likeliest tokens with at least this probability."""
    top_k: int = -1
    """Keep that many of the likeliest tokens, before top_p; -1 and 0 keep all."""
    presence_penalty: float = 0.0
    """Taken from the logit of every token of the answer so far."""
    frequency_penalty: float = 0.0
    """Taken as often as the answer has the token."""
    repetition_penalty: float = 1.0
    """Divides the positive logits of the tokens of prompt and answer, and multiplies others."""

    @property
    def penalized(self) -> bool:
        others = self.presence_penalty or self.frequency_penalty
        return bool(others) or self.repetition_penalty != 1.0

    @property
    def greedy(self) -> bool:
        return self.temperature < _GREEDY_TEMPERATURE or self.top_p < _GREEDY_TOP_P

    @property
    def truncated(self) -> bool:
        return not self.greedy and (self.top_p < 1.0 or self.top_k > 0)


@dataclass(frozen=True)
class Score:
    """Log-probabilities of one place under the model's own distribution."""

    logprob: float
    """Of the token that stands there."""
    top: list[tuple[int, float]]
    """The likeliest tokens with theirs, the likeliest first."""


@dataclass
class EngineStats:
    """Counters since the start."""

    prompt_tokens: int = 0
    prefill_tokens: int = 0
    reused_tokens: int = 0
    """Prompt tokens whose keys and values were copied from another slot instead."""
    generated_tokens: int = 0
    decode_steps: int = 0


@dataclass(eq=False)
class Sample:
    """One answer to a prompt; the engine's thread appends to it."""

    rng: random.Random
    tokens: list[int] = field(default_factory=list)
    """Generated so far, the stop token included."""
    scores: list[Score] = field(default_factory=list)
    """Of the tokens, where the request wants `logprobs`; each is there before its token."""
    finish_reason: FinishReason | None = None


@dataclass(eq=False)
class EngineRequest:
    """A prompt to continue `n` times.

    `done` resolves to the request itself once every sample has a finish reason, or to the error
    that ended it. Cancelling `done` makes the samples leave at the engine's next step.
    """

    prompt: list[int]
    params: SamplingParams
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()
    n: int = 1
    seed: int | None = None
    """Sample i draws from `seed + i`; None draws afresh."""
    logprobs: int | None = None
    """How many likeliest tokens are scored at each place beside the one there; None: nothing is."""
    scores_prompt: bool = False
    """Whether the prompt's tokens are scored too; `max_new_tokens` may be 0 then."""
    on_progress: Callable[[], object] | None = None
    """Called from the engine's thread after a sample has grown."""
    done: Future[EngineRequest] = field(default_factory=Future)
    samples: list[Sample] = field(init=False)
    prompt_scores: list[Score | None] = field(init=False)
    """One per token; the first has nothing before it, so it has none."""
    _claimed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        seeds = [None if self.seed is None else self.seed + i for i in range(self.n)]
        self.samples = [Sample(random.Random(seed)) for seed in seeds]
        self.prompt_scores = [None] * len(self.prompt) if self.scores_prompt else []

    @property
    def length(self) -> int:
        """Tokens that the longest possible answer needs in the cache, prompt included."""
        return len(self.prompt) + self.max_new_tokens

    @property
    def plain(self) -> bool:
        """Whether nothing but drawing tokens has to be done for it."""
        return self.logprobs is None and not self.params.penalized

    def check(self, longest: int, vocabulary: int) -> None:
        """Refuse what a model with this context, in tokens, and vocabulary can never generate."""
        if not self.prompt or self.max_new_tokens < (0 if self.scores_prompt else 1):
            raise RequestError(ErrorCode.PARAM_OUT_OF_RANGE, "the prompt has no tokens")
        if self.length > longest:
            raise RequestError(
                ErrorCode.CONTEXT_OVERFLOW,
                f"a prompt of {len(self.prompt)} tokens and an answer of {self.max_new_tokens} "
                f"exceed the {longest} tokens that fit",
            )
        if not 0 <= min(self.prompt) <= max(self.prompt) < vocabulary:
            raise RequestError(
                ErrorCode.PARAM_OUT_OF_RANGE,
                f"the prompt has token ids outside of 0..{vocabulary - 1}",
            )

    def end_of(self, tokens: list[int], tokenizer: Any) -> FinishReason | None:
        if tokens[-1] in self.stop_ids or contains_stop(tokenizer, tokens, self.stop):
            return "stop"
        return "length" if len(tokens) >= self.max_new_tokens else None

    def finish(self, sample: Sample, reason: FinishReason) -> None:
        sample.finish_reason = reason
        if all(other.finish_reason for other in self.samples) and self._claim():
            self.done.set_result(self)

    def fail(self, error: Exception) -> None:
        for sample in self.samples:
            sample.finish_reason = sample.finish_reason or "abort"
        if self._claim():
            self.done.set_exception(error)

    def _claim(self) -> bool:
        """True once, and only if nobody has cancelled the request."""
        if self._claimed:
            return False
        self._claimed = True
        return self.done.set_running_or_notify_cancel()


def as_request_error(error: Exception) -> RequestError:
    if isinstance(error, RequestError):
        return error
    code = ErrorCode.CUDA_OUT_OF_MEMORY if is_full(error) else ErrorCode.INTERNAL_ERROR
    return RequestError(code, f"the worker failed: {type(error).__name__}: {first_line(error)}")
