"""The samples of an answer as they come from an OpenAI-compatible server."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fastchat.constants import ErrorCode, RequestError
from fastchat.protocol.worker_protocol import FinishReason, GenerateRequest, wire_reply
from fastchat.serve.stopping import cut_at_stop, hold_back


@dataclass
class Sample:
    """One sample, and how much of it is known."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    """Generated tokens, empty if the server gives none."""
    counted: int | None = None
    """Their number, if the server says it."""
    finish_reason: FinishReason | None = None

    def take(self, choice: dict[str, Any]) -> None:
        """Add a choice of a reply, or what a chunk of a stream adds to it.

        Raises:
            RequestError: the server gave the sample up.
        """
        message = choice.get("message") or choice.get("delta") or choice
        self.text += message.get("content") or message.get("text") or ""
        self.tokens += choice.get("token_ids") or []
        reason = choice.get("finish_reason")
        if reason in ("abort", "error"):
            raise RequestError(ErrorCode.INTERNAL_ERROR, "the server gave the answer up")
        if reason is not None:
            self.finish_reason = "length" if reason == "length" else "stop"


@dataclass
class UpstreamJob:
    """A checked request, and the samples that grow."""

    request: GenerateRequest
    ids: list[int]
    """The prompt."""
    max_new_tokens: int
    echo: str
    """Text in front of every answer."""
    samples: list[Sample] = field(init=False)
    prompt_tokens: int | None = None
    """Length of the prompt if the server rendered it, None if we did."""

    def __post_init__(self) -> None:
        self.samples = [Sample() for _ in range(self.request.n)]

    def reply(self, tokenizer: Any, *, final: bool) -> dict[str, Any]:
        """The state of all samples as it goes over the wire.

        Raises:
            RequestError: `final`, and the server left a sample without an end.
        """
        if final and any(sample.finish_reason is None for sample in self.samples):
            reason = "the server behind the worker broke an answer off"
            raise RequestError(ErrorCode.INTERNAL_ERROR, reason)
        stops = self.request.stop
        texts, reasons = [], []
        for sample in self.samples:
            # Not every server leaves the stop text out.
            ended = sample.finish_reason is not None
            cut = cut_at_stop(sample.text, stops) if ended else hold_back(sample.text, stops)
            texts.append(self.echo + cut)
            reasons.append(sample.finish_reason if final else None)
        tokens = [list(sample.tokens) for sample in self.samples]
        with_ids = self.request.return_token_ids and any(tokens)
        return wire_reply(
            texts,
            reasons,
            self.prompt_tokens or len(self.ids),
            [_count(sample, tokenizer) for sample in self.samples],
            (self.ids, tokens) if with_ids else (None, None),
        )


def _count(sample: Sample, tokenizer: Any) -> int:
    if sample.tokens:
        return len(sample.tokens)
    if sample.counted is not None:
        return sample.counted
    # A server that counts nothing in its streams: the text's own tokens are what is known.
    return len(tokenizer(sample.text, add_special_tokens=False)["input_ids"])
