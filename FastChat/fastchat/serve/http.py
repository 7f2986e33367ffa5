"""The JSON-over-HTTP habits of controller and workers: bodies, frames, clients that hang up."""

import asyncio
import contextlib
import hmac
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastchat.constants import MAX_BODY_BYTES, TOKEN_VARIABLE, ErrorCode, RequestError
from fastchat.protocol.worker_protocol import M, parse

T = TypeVar("T")
_WAITING = 64
"""Items that are kept for a client that reads slowly; then the workers wait."""


async def read_body(request: Request) -> dict[str, Any]:
    """The body of a request as a JSON object; an empty body is an empty object.

    RequestError if it is no JSON, or no object.
    """
    raw = await request.body()
    try:
        body = json.loads(raw or "{}")
    except (ValueError, RecursionError) as error:
        said = f"the body is no JSON: {error}"
        raise RequestError(ErrorCode.VALIDATION_TYPE_ERROR, said) from error
    if not isinstance(body, dict):
        said = f"the body must be a JSON object, got {type(body).__name__}"
        raise RequestError(ErrorCode.VALIDATION_TYPE_ERROR, said)
    return body


async def received(kind: type[M], request: Request) -> M:
    """The body of a request as what it should be; RequestError if it is not."""
    return parse(kind, await read_body(request))


def frame(reply: dict[str, Any]) -> bytes:
    """One message of a stream: JSON and a zero byte."""
    return json.dumps(reply).encode() + b"\0"


async def unless_dropped(request: Request, answer: Awaitable[T]) -> T | None:
    """Await an answer; a client that hangs up cancels it, and there is no reply.

    Starlette lets a plain handler run to its end after a disconnect, so the wait for it is ours.
    """
    work = asyncio.ensure_future(answer)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else None
    finally:
        work.cancel()
        gone.cancel()


async def gathered(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What all calls return; the first that fails ends the others."""
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def together(
    streams: Sequence[AsyncGenerator[T, None]],
) -> AsyncGenerator[tuple[int, T], None]:
    """What several streams yield as it comes, with the stream's number; an error ends them all."""
    queue: asyncio.Queue[Any] = asyncio.Queue(_WAITING)

    async def pump(number: int, stream: AsyncGenerator[T, None]) -> None:
        try:
            async with contextlib.aclosing(stream):
                async for item in stream:
                    await queue.put((number, item))
            await queue.put(None)
        except Exception as error:
            await queue.put(error)

    tasks = [asyncio.create_task(pump(*each)) for each in enumerate(streams)]
    try:
        running = len(tasks)
        while running:
            item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                running -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Bodies:
    """ASGI middleware that reads a body before the application does; what is no body ends here.

    A page in a browser may send other types to any server without asking, so JSON has to be named
    as such.

    `limit` is in bytes; `reply` makes the JSON of an HTTP status and its error; `token` is what
    every POST must bring, if anything.
    """

    def __init__(
        self,
        app: ASGIApp,
        logger: logging.Logger,
        limit: int = MAX_BODY_BYTES,
        reply: Callable[[int, RequestError], dict[str, Any]] = lambda _, error: error.reply(),
        token: str = "",
    ):
        self.app = app
        self.logger = logger
        self.limit = limit
        self.reply = reply
        self._authorization = f"Bearer {token}".encode() if token else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.logger.info("a client hung up in its request to %s", scope["path"])
                return
            part, more = message.get("body", b""), message.get("more_body", False)
            size += len(part)
            # What is too large is read on: a client that still sends would see a broken connection.
            parts = [*parts, part] if size <= self.limit else []
        refusal = self._refusal(headers, size)
        if refusal is not None:
            await self._refuse(*refusal, send)
            return
        whole: list[Message] = [{"type": "http.request", "body": b"".join(parts)}]

        async def replayed() -> Message:
            return whole.pop() if whole else await receive()

        await self.app(scope, replayed, send)

    def _refusal(self, headers: dict[bytes, bytes], size: int) -> tuple[int, RequestError] | None:
        given = headers.get(b"authorization", b"")
        if self._authorization and not hmac.compare_digest(given, self._authorization):
            text = f"send the controller's {TOKEN_VARIABLE} as `Authorization: Bearer TOKEN`"
            return 401, RequestError(ErrorCode.INCORRECT_AUTH_KEY, text)
        if size > self.limit:
            text = f"the request body is larger than {self.limit} bytes"
            return 413, RequestError(ErrorCode.VALIDATION_TYPE_ERROR, text)
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        # Stock clients send no body, of whatever type, where there is nothing to say.
        if size and kind != b"application/json":
            text = "a body must be JSON with the header `Content-Type: application/json`"
            return 415, RequestError(ErrorCode.VALIDATION_TYPE_ERROR, text)
        return None

    async def _refuse(self, status: int, error: RequestError, send: Send) -> None:
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        body = json.dumps(self.reply(status, error)).encode()
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class AsciiJSON(JSONResponse):
    """JSON in ASCII: a text may repeat half a character, which has no bytes of its own."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode()


def new_app(title: str, lifespan: Any, logger: logging.Logger, status: int, **more: Any) -> FastAPI:
    """A server whose refusals are FastChat's, with this HTTP status; `more` goes to `Bodies`."""
    app = FastAPI(title=title, lifespan=lifespan, default_response_class=AsciiJSON)
    app.add_middleware(Bodies, logger=logger, **more)

    @app.exception_handler(RequestError)
    async def refuse(_: Request, error: RequestError) -> Response:
        return AsciiJSON(error.reply(), status_code=status)

    return app


def reads(kind: type[BaseModel]) -> dict[str, Any]:
    """What a route's description in /openapi.json says of a body that it reads itself."""
    schema = kind.model_json_schema()
    parts = schema.pop("$defs", {})

    def inlined(value: Any) -> Any:
        if isinstance(value, dict):
            name = value.get("$ref", "").rpartition("/")[2]
            return inlined(parts[name]) if name else {k: inlined(v) for k, v in value.items()}
        return [inlined(item) for item in value] if isinstance(value, list) else value

    body = {"content": {"application/json": {"schema": inlined(schema)}}}
    return {"openapi_extra": {"requestBody": body}}
