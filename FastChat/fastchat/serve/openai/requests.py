"""A request of the OpenAI API as requests to a worker."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fastchat.client.http import PeerError
from fastchat.client.workers import Cluster, Worker
from fastchat.constants import no_room
from fastchat.protocol.openai_api_protocol import ChatRequest, CompletionRequest
from fastchat.serve.openai.errors import ApiError

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


async def served(cluster: Cluster) -> list[str]:
    """The names that the controller serves; ApiError if it does not answer."""
    try:
        return await cluster.models()
    except PeerError as error:
        text = f"the controller does not answer ({error.kind}); try again"
        raise ApiError(503, text, "no_controller") from error


@contextlib.asynccontextmanager
async def held(cluster: Cluster, model: str) -> AsyncIterator[Worker]:
    """A worker of a model, as `Cluster.hold` gives it.

    ApiError 404 for a model that nobody serves, 503 where no worker can be reached.
    """
    async with contextlib.AsyncExitStack() as stack:
        try:
            worker = await stack.enter_async_context(cluster.hold(model))
        except PeerError as error:
            names = await served(cluster)
            if model not in names:
                text = (
                    f"the model {model!r} does not exist here; served: {', '.join(names) or 'none'}"
                )
                raise ApiError(404, text, "model_not_found", "model") from error
            text = error.said or f"no worker of {model!r} can be reached ({error.kind}); try again"
            raise ApiError(503, text, "no_worker") from error
        yield worker


async def asks_of(
    cluster: Cluster,
    worker: Worker,
    wanted: ChatRequest | CompletionRequest,
    default_max_tokens: int = DEFAULT_MAX_TOKENS,
) -> list[Ask]:
    """The requests to `worker` that answer `wanted`, their choices in order.

    ApiError if the prompt does not fit, PeerError if the worker fails.
    """
    if isinstance(wanted, ChatRequest):
        messages = [message.plain() for message in wanted.messages]
        # The worker shortens an answer to what the messages leave of the context.
        bodies = [{"messages": messages, "max_new_tokens": wanted.longest or default_max_tokens}]
    else:
        bodies = [await _completion_body(cluster, worker, wanted, p) for p in wanted.prompts()]
    n, common = wanted.n, {**wanted.sampling(), "logprobs": wanted.scored}
    return [Ask({**common, **body}, i * n, n) for i, body in enumerate(bodies)]


async def _completion_body(
    cluster: Cluster, worker: Worker, wanted: CompletionRequest, prompt: dict[str, Any]
) -> dict[str, Any]:
    """A prompt and the length of its answer: as asked, or what the context leaves.

    Workers cut the beginning of a text that is too long, silently; here it is an error.
    """
    longest = wanted.longest
    if "prompt" in prompt and worker.context_length:
        count = await cluster.count(worker, prompt["prompt"])
        room = worker.context_length - count
        if room < min(longest, 1):
            said = no_room(count, worker.context_length)
            raise ApiError(400, said, "context_length_exceeded")
        longest = min(longest, room)
    return {**prompt, "max_new_tokens": longest, "echo": wanted.echo}
