"""The JSON-over-HTTP habits of controller and workers: bodies, frames, clients that hang up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastchat.constants import MAX_BODY_BYTES, ErrorCode, RequestError

T = TypeVar("T")


async def read_json(request: Request) -> dict[str, Any]:
    """The body of a request as a JSON object; an empty body is an empty object.

    Raises:
        RequestError: it is no JSON, or no object.
    """
    raw = await request.body()
    if not raw:
        return {}
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        code = ErrorCode.VALIDATION_TYPE_ERROR
        raise RequestError(code, f"the body is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise RequestError(
            ErrorCode.VALIDATION_TYPE_ERROR,
            f"the body must be a JSON object, got {type(body).__name__}",
        )
    return body


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


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class BodyLimit:
    """ASGI middleware: a request body over the limit ends with status 413 and is not kept.

    Args:
        limit: in bytes.
        reply: the JSON that tells the client.
    """

    def __init__(
        self,
        app: ASGIApp,
        limit: int = MAX_BODY_BYTES,
        reply: Callable[[RequestError], dict[str, Any]] = RequestError.reply,
    ):
        self.app = app
        self.limit = limit
        self.reply = reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on while it is small enough."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.limit:
            await self._refuse(receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.limit:
                raise RequestError(ErrorCode.VALIDATION_TYPE_ERROR, self._reason())
            return message

        await self.app(scope, counted, send)

    def _reason(self) -> str:
        return f"the request body is larger than {self.limit} bytes"

    async def _refuse(self, receive: Receive, send: Send) -> None:
        # A client that is still sending would see a broken connection instead of the answer.
        while (message := await receive())["type"] == "http.request" and message.get("more_body"):
            pass
        reply = self.reply(RequestError(ErrorCode.VALIDATION_TYPE_ERROR, self._reason()))
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(reply).encode()})
