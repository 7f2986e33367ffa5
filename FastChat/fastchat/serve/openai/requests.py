"""A request of the OpenAI API as requests to a worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastchat.protocol.openai_api_protocol import ChatRequest, CompletionRequest
from fastchat.serve.conv_style import render
from fastchat.serve.openai.errors import ApiError
from fastchat.serve.openai.workers import Worker, Workers

DEFAULT_MAX_TOKENS = 4096
"""Longest answer to a chat that names no length, in tokens. A worker reserves room for the whole of
an answer: one that may fill a long context would leave room for few others."""


@dataclass(frozen=True)
class Ask:
    """One request to a worker."""

    body: dict[str, Any]
    first: int
    """Index of its first choice; the others follow."""
    n: int
    """Number of its choices."""
    counts: bool = True
    """Whether its prompt counts; a prompt that is sent once per sample counts once."""


async def asks_of(
    workers: Workers,
    worker: Worker,
    wanted: ChatRequest | CompletionRequest,
    default_max_tokens: int = DEFAULT_MAX_TOKENS,
) -> list[Ask]:
    """The requests to `worker` that answer `wanted`, their choices in order.

    Args:
        workers: those that `worker` is one of.
        worker: the one that will answer.
        wanted: the request.
        default_max_tokens: longest answer to a chat that names no length.

    Raises:
        ApiError: the prompt does not fit, or a stock worker cannot do what is asked.
        RequestError: the worker fails.
    """
    if isinstance(wanted, ChatRequest):
        longest = wanted.longest or default_max_tokens
        bodies = [await _chat_body(workers, worker, wanted, longest)]
    else:
        bodies = [await _completion_body(workers, worker, wanted, p) for p in wanted.prompts()]
    n = wanted.n
    if not worker.is_stock:
        return [Ask({**wanted.sampling(), **body}, i * n, n) for i, body in enumerate(bodies)]
    asks = []
    for i, body in enumerate(bodies):
        for sample in range(n):
            seed = None if wanted.seed is None else wanted.seed + sample
            single = {**wanted.sampling(), **body, "n": 1, "seed": seed}
            asks.append(Ask(single, i * n + sample, 1, counts=sample == 0))
    return asks


async def _chat_body(
    workers: Workers, worker: Worker, wanted: ChatRequest, longest: int
) -> dict[str, Any]:
    messages = [message.plain() for message in wanted.messages]
    if worker.conv is None:
        # The worker shortens an answer to what the messages leave of the context.
        return {"messages": messages, "max_new_tokens": longest}
    try:
        prompt = render(worker.conv, messages)
    except ValueError as error:
        raise ApiError(400, str(error), param="messages") from error
    own_stop = worker.conv["stop_str"] or []
    return {
        **await _fitted(workers, worker, prompt, longest),
        "stop": [*wanted.stop, *([own_stop] if isinstance(own_stop, str) else own_stop)],
        "stop_token_ids": [*wanted.stop_token_ids, *(worker.conv["stop_token_ids"] or ())],
    }


async def _completion_body(
    workers: Workers, worker: Worker, wanted: CompletionRequest, prompt: dict[str, Any]
) -> dict[str, Any]:
    if "prompt" in prompt:
        body = await _fitted(workers, worker, prompt["prompt"], wanted.longest)
    elif worker.is_stock:
        text = "the model's worker takes no token ids; send the prompt as text"
        raise ApiError(400, text, param="prompt")
    else:
        body = {**prompt, "max_new_tokens": wanted.longest}
    return {**body, "echo": wanted.echo}


async def _fitted(workers: Workers, worker: Worker, prompt: str, longest: int) -> dict[str, Any]:
    """A text prompt and the length of its answer: `longest` or what the context leaves.

    Workers cut the beginning of a text that is too long, silently; here it is an error.
    """
    count = (await workers.question(worker, "/count_token", {"prompt": prompt}))["count"]
    room = worker.context_length - count - (1 if worker.is_stock else 0)
    if room < 1:
        raise ApiError(
            400,
            f"the prompt has {count} tokens and leaves no room for an answer in the context of "
            f"{worker.context_length}; shorten it",
            "context_length_exceeded",
        )
    return {"prompt": prompt, "max_new_tokens": min(longest, room)}
