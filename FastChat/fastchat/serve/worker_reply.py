"""The reply to a request, from the samples that the engine fills."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastchat.protocol.worker_protocol import FinishReason, GenerateReply, Usage
from fastchat.serve.engine_request import EngineRequest, Sample
from fastchat.serve.stopping import cut_at_stop, decode, hold_back


@dataclass
class Job:
    """A request that was checked, and how its reply is to look."""

    engine: EngineRequest
    echo: str
    """Text in front of every answer."""
    return_token_ids: bool


def reply_of(job: Job, tokenizer: Any, *, final: bool) -> dict[str, Any]:
    """The state of all samples as it goes over the wire; `final` once the request is done."""
    request = job.engine
    answers = [answer_of(sample, request, tokenizer) for sample in request.samples]
    tokens = [list(sample.tokens) for sample in request.samples]
    return wire_reply(
        [job.echo + text for text, _ in answers],
        [reason if final else None for _, reason in answers],
        len(request.prompt),
        [len(sample) for sample in tokens],
        (request.prompt, tokens) if job.return_token_ids else (None, None),
    )


def wire_reply(
    texts: list[str],
    reasons: list[FinishReason | None],
    prompt: int,
    counts: list[int],
    ids: tuple[list[int] | None, list[list[int]] | None],
) -> dict[str, Any]:
    """The samples of an answer as a frame; lists only where there are several.

    Args:
        texts: of the samples, with what is echoed.
        reasons: why they ended; None for those that go on.
        prompt: length of the prompt in tokens.
        counts: generated tokens of the samples.
        ids: tokens of the prompt and of the samples, if they were asked for.
    """
    several, completion = len(texts) > 1, sum(counts)
    reply = GenerateReply(
        text=texts if several else texts[0],
        usage=Usage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
        ),
        finish_reason=reasons if several else reasons[0],
        completion_tokens=counts,
        prompt_token_ids=ids[0],
        token_ids=ids[1],
    )
    wire = reply.model_dump(exclude_none=True)
    # FastChat's clients look for the key in every frame of a stream.
    wire.setdefault("finish_reason", None)
    return wire


def answer_of(
    sample: Sample, request: EngineRequest, tokenizer: Any
) -> tuple[str, FinishReason | None]:
    """The text of a sample without what stopped it, and why it ended (None: it goes on)."""
    reason, tokens = sample.finish_reason, list(sample.tokens)
    if tokens and tokens[-1] in request.stop_ids:
        tokens.pop()
    text = decode(tokenizer, tokens)
    if reason is None:
        return hold_back(text, request.stop), None
    short = cut_at_stop(text, request.stop)
    return short, "stop" if short != text else reason
