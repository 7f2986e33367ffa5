"""The reply to a request, from the samples that the engine fills."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastchat.protocol.worker_protocol import GenerateReply, Usage
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
    request, several = job.engine, job.engine.n > 1
    answers = [answer_of(sample, request, tokenizer) for sample in request.samples]
    texts = [job.echo + text for text, _ in answers]
    reasons = [reason if final else None for _, reason in answers]
    counts = [len(sample.tokens) for sample in request.samples]
    prompt, completion = len(request.prompt), sum(counts)
    reply = GenerateReply(
        text=texts if several else texts[0],
        usage=Usage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
        ),
        finish_reason=reasons if several else reasons[0],
        completion_tokens=counts,
        prompt_token_ids=request.prompt if job.return_token_ids else None,
        token_ids=[list(sample.tokens) for sample in request.samples]
        if job.return_token_ids
        else None,
    )
    wire = reply.model_dump(exclude_none=True)
    # FastChat's clients look for the key in every frame of a stream.
    wire.setdefault("finish_reason", None)
    return wire


def answer_of(sample: Sample, request: EngineRequest, tokenizer: Any) -> tuple[str, str | None]:
    """The text of a sample without what stopped it, and why it ended (None: it goes on)."""
    reason, tokens = sample.finish_reason, list(sample.tokens)
    if tokens and tokens[-1] in request.stop_ids:
        tokens.pop()
    text = decode(tokenizer, tokens)
    if reason is None:
        return hold_back(text, request.stop), None
    short = cut_at_stop(text, request.stop)
    return short, "stop" if short != text else reason
