"""From a checked request of the OpenAI API to its reply, whole or as a stream."""

import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from fastchat.client.workers import Cluster
from fastchat.constants import RequestError
from fastchat.protocol.openai_api_protocol import ChatRequest, CompletionRequest
from fastchat.serve.http import gathered, together, unless_dropped
from fastchat.serve.openai.errors import ApiError, from_worker
from fastchat.serve.openai.replies import DONE, Progress, Shape, event
from fastchat.serve.openai.requests import DEFAULT_MAX_TOKENS, asks_of, held
from fastchat.serve.prometheus import HUNG_UP, Metrics

log = logging.getLogger("fastchat.openai_api_server")


@dataclass
class _Outcome:
    """How a request ended, for the metrics."""

    code: int | str = HUNG_UP
    usage: dict[str, int] | None = None


class Answers:
    """Answers requests with the workers of a controller.

    `default_max_tokens` is the longest answer to a chat that names no length.
    """

    def __init__(self, cluster: Cluster, default_max_tokens: int = DEFAULT_MAX_TOKENS):
        self.cluster = cluster
        self.default_max_tokens = default_max_tokens
        self.in_flight = 0
        self.metrics = Metrics("api")
        self.metrics.read("in_flight", "Requests being answered", lambda: self.in_flight)

    async def answer(self, request: Request, wanted: ChatRequest | CompletionRequest) -> Response:
        """The reply to a request; a client that hangs up ends its generation.

        ApiError if there is no answer, and nothing has been sent.
        """
        path = request.url.path
        if not wanted.stream:
            whole = json.dumps(await unless_dropped(request, self._whole(wanted, path)))
            return Response(whole, media_type="application/json")
        events = self._events(wanted, path)
        # The first event is waited for, so that a refusal gets an HTTP status of its own.
        first = await unless_dropped(request, anext(events))
        if first is None:
            return Response()
        return StreamingResponse(_continued(first, events), media_type="text/event-stream")

    async def _whole(self, wanted: ChatRequest | CompletionRequest, path: str) -> dict[str, Any]:
        with self._counted(path) as outcome:
            async with held(self.cluster, wanted.model) as worker:
                asks = await asks_of(self.cluster, worker, wanted, self.default_max_tokens)
                calls = (self.cluster.generate(worker, ask.body) for ask in asks)
                reply = Shape(wanted).whole(asks, await gathered(calls))
            outcome.code, outcome.usage = 0, reply["usage"]
            return reply

    async def _events(
        self, wanted: ChatRequest | CompletionRequest, path: str
    ) -> AsyncGenerator[bytes, None]:
        """The stream of an answer; what fails after its beginning becomes one more event."""
        shape, begun = Shape(wanted), False
        try:
            with self._counted(path) as outcome:
                async with held(self.cluster, wanted.model) as worker:
                    asks = await asks_of(self.cluster, worker, wanted, self.default_max_tokens)
                    sent = [Progress(ask, shape) for ask in asks]
                    streams = [self.cluster.stream(worker, ask.body) for ask in asks]
                    async with contextlib.aclosing(together(streams)) as frames:
                        async for number, frame in frames:
                            if not begun:
                                begun = True
                                yield shape.roles(sum(ask.n for ask in asks))
                            for chunk in sent[number].chunks(frame):
                                yield chunk
                outcome.usage = shape.usage([one.last for one in sent if one.last])
                outcome.code = 0
                if shape.include_usage:
                    yield shape.chunk([], outcome.usage)
                yield DONE
        except Exception as error:
            if not begun:
                raise
            if not isinstance(error, ApiError):
                log.exception("an answer broke off")
                error = ApiError(500, f"the server failed: {type(error).__name__}")
            yield event(error.body())

    @contextlib.contextmanager
    def _counted(self, path: str) -> Iterator[_Outcome]:
        """Count a request when it ends, and name its failure in OpenAI's words."""
        outcome = _Outcome()
        self.in_flight += 1
        try:
            yield outcome
        except RequestError as error:
            outcome.code = int(error.code)
            raise from_worker(error) from error
        except ApiError as error:
            outcome.code = error.status
            raise
        finally:
            self.in_flight -= 1
            self.metrics.count_request(path, outcome.code, outcome.usage)


async def _continued(
    first: bytes, rest: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    async with contextlib.aclosing(rest):
        yield first
        async for chunk in rest:
            yield chunk
