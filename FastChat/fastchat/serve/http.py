"""The JSON-over-HTTP habits of controller and workers.

The controller's connections to workers: does one answer, and what does it stream.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
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


_CONNECT_SECONDS = 10.0
_LOOKUP_SECONDS = 2.0


def open_session(silence: float) -> aiohttp.ClientSession:
    """A client session for any number of streams; must be made on the loop that serves.

    Args:
        silence: seconds that a worker may send nothing.
    """
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=silence)
    # No connection is kept: a worker that closes an idle one would look like one that died.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    return aiohttp.ClientSession(connector=connector, timeout=timeout)


async def frames(
    session: aiohttp.ClientSession, worker: str, body: bytes
) -> AsyncGenerator[bytes, None]:
    """What a worker streams for a request, in pieces that end with a frame.

    Raises:
        aiohttp.ClientError: the worker cannot be reached, breaks off or refuses the request.
        asyncio.TimeoutError: it is silent for too long.
    """
    headers = {"Content-Type": "application/json"}
    url = f"{worker}/worker_generate_stream"
    async with session.post(url, data=body, headers=headers) as reply:
        reply.raise_for_status()
        rest = b""
        async for chunk in reply.content.iter_any():
            rest += chunk
            whole, separator, rest = rest.rpartition(b"\0")
            if separator:
                yield whole + separator


def was_refused(error: Exception) -> bool:
    """Whether nobody listens at the worker's port; other failures may be this process's own."""
    return (
        isinstance(error, aiohttp.ClientConnectorError)
        and error.os_error.errno == errno.ECONNREFUSED
    )


async def accepts(url: str) -> bool:
    """False if a worker's port refuses connections; a slow one gets the benefit of the doubt."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except OSError:
        return True
    # "localhost" may have an IPv6 address beside the one that the worker listens on.
    refusals = [await _refuses(address) for *_, address in found]
    return not all(refusals)


async def _refuses(address: tuple[Any, ...]) -> bool:
    connection = asyncio.open_connection(address[0], address[1])
    try:
        _, writer = await asyncio.wait_for(connection, _LOOKUP_SECONDS)
    except ConnectionRefusedError:
        return True
    except (OSError, asyncio.TimeoutError):
        return False
    writer.close()
    return False
