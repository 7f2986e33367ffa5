"""JSON over HTTP, asked of controllers and workers: whatever is no answer is a typed error.

A reply is read from the very server that was asked: no redirect is followed and no proxy of the
environment stands between. It is read up to a limit, and never unpacked.
"""

import asyncio
import contextlib
import errno
import json
import math
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from concurrent import futures
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
from pydantic import BaseModel, ValidationError

from fastchat.constants import MAX_REPLY_BYTES, ErrorCode, RequestError
from fastchat.utils import visible, within

M = TypeVar("M", bound=BaseModel)

CODE_KINDS = {
    40301: "bad_request",
    40302: "bad_request",
    40303: "context_overflow",
    42902: "quota",
    50005: "no_worker",
    50006: "timeout",
}
"""Error codes of the worker protocol that have a kind of their own."""
STATUS_KINDS = {401: "unauthorized", 403: "unauthorized", 408: "timeout", 429: "overloaded"}
"""HTTP statuses that have a kind of their own. An error code is a status and two digits."""
ANSWER_SECONDS = 5.0
"""For a server of the network to answer anything."""
_CONNECT_SECONDS = 10.0
_ACCEPT_SECONDS = 2.0
_SHOWN = 500
"""Characters of a reply that an error shows."""
_FOREIGN = "; another program answers there: check the address"


class PeerError(RequestError):
    """A controller or a worker gave no answer.

    `kind` is one of: connection, timeout, no_worker, overloaded, server, bad_request,
    context_overflow, unauthorized, quota, malformed. `said` holds the worker's own words, if it had
    any; the message may name addresses that are nobody else's business.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        code: ErrorCode | None = None,
        said: str = "",
        retry_after: float | None = None,
    ):
        gone = kind == "no_worker"
        default = ErrorCode.CONTROLLER_NO_WORKER if gone else ErrorCode.CONTROLLER_WORKER_TIMEOUT
        super().__init__(code or default, visible(" ".join(message.split())))
        self.kind = kind
        self.said = said
        self.retry_after = retry_after


def open_session(silence: float | None = None) -> aiohttp.ClientSession:
    """A session of the running loop; a server may send nothing for `silence` seconds."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=silence)
    # No connection is kept: a worker that closes an idle one would look like one that died.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    return aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        auto_decompress=False,
        headers={"Accept-Encoding": "identity"},
    )


async def post(
    session: aiohttp.ClientSession,
    url: str,
    body: dict[str, Any],
    kind: type[M],
    seconds: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> M:
    """POST JSON and return the reply, checked; `seconds` None leaves the session's time limit.

    PeerError if there is none, or it is not of this kind.
    """
    timeout = session.timeout if seconds is None else aiohttp.ClientTimeout(total=seconds)
    async with _asked(session, url, json.dumps(body).encode(), timeout, headers) as reply:
        return parsed(kind, await read(reply, timeout.sock_read), url)


async def frames(
    session: aiohttp.ClientSession, url: str, body: bytes
) -> AsyncGenerator[bytes, None]:
    """What a server streams for a JSON body, in pieces that end with a frame (a zero byte).

    PeerError if it cannot be reached, breaks off, refuses the request or is silent for too long.
    """
    async with _asked(session, url, body, session.timeout) as reply:
        async for piece in pieces(reply, b"\0", session.timeout.sock_read):
            yield piece


async def pieces(
    reply: aiohttp.ClientResponse, end: bytes | None, seconds: float | None = None
) -> AsyncIterator[bytes]:
    """A body as it comes, in pieces that end with `end`; what follows the last one is left out.

    None stands for the end of the body. PeerError if there is no end for longer than any answer;
    TimeoutError if it comes more than so many seconds after the first byte.
    """
    rest: list[bytes] = []
    size, began = 0, 0.0
    while chunk := await reply.content.readany():
        began = began if rest else time.monotonic()
        whole, found, tail = chunk.rpartition(end) if end else (b"", b"", chunk)
        if found:
            yield b"".join([*rest, whole, found])
            rest, size, began = [tail] if tail else [], len(tail), time.monotonic()
            continue
        rest.append(chunk)
        size += len(chunk)
        if size > MAX_REPLY_BYTES:
            said = f"{reply.url} sent more than {MAX_REPLY_BYTES} bytes without an answer"
            raise PeerError("malformed", said)
        if time.monotonic() - began > (seconds or math.inf):
            raise asyncio.TimeoutError
    if end is None:
        yield b"".join(rest)


async def read(reply: aiohttp.ClientResponse, seconds: float | None = None) -> bytes:
    """The whole body, as `pieces` reads it."""
    return b"".join([piece async for piece in pieces(reply, None, seconds)])


def parsed(kind: type[M], raw: bytes, url: str) -> M:
    """A reply as what it should be; PeerError if it carries an error code, or is malformed."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        page = page_in(raw.decode(errors="replace"))
        message = f"{url} sent {page}{_FOREIGN}" if page else f"{url} sent no JSON: {error}"
        raise PeerError("malformed", message) from error
    if isinstance(value, dict) and value.get("error_code"):
        raise _code_error(value, url)
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "its reply"
        message = f"{url} sent what is no answer: {place}: {first['msg']}"
        raise PeerError("malformed", message[:_SHOWN]) from error


def page_in(text: str) -> str | None:
    """What a web page says, by its title or else its text; None for what is no page.

    >>> page_in("<html><title>404 Not Found</title>...")
    'a web page (404 Not Found)'
    """
    before = r"(?:\s|<\?.*?\?>|<!--.*?-->)*"
    if not re.match(before + "<(!doctype|html|head|body|meta|script)", text, re.I | re.S):
        return None
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.I | re.S)
    shown = title[1] if title else re.sub(r"<[^>]*>", " ", text[:5000])
    return f"a web page ({shown.strip()[:200]})"


def status_kind(status: int) -> str:
    return "server" if status >= 500 else STATUS_KINDS.get(status, "bad_request")


def seconds_to_wait(headers: Any) -> float | None:
    """The Retry-After header, a number or a date, in seconds from now; None without a valid one."""
    value = headers.get("Retry-After") or ""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
        except (TypeError, ValueError, OverflowError):
            return None
    return seconds if 0 <= seconds < math.inf else None


def unreachable(url: str) -> str | None:
    """Why a server of the network does not answer; None if it does, be it with an error."""

    def ask() -> str | None:
        try:
            with urllib.request.urlopen(url, timeout=ANSWER_SECONDS):
                return None
        except urllib.error.HTTPError:
            return None
        except (OSError, ValueError) as error:
            return str(getattr(error, "reason", error))

    try:
        # The time limit of a request does not cover the look-up of a name.
        return within(2 * ANSWER_SECONDS, ask)
    except futures.TimeoutError:
        return f"nothing within {ANSWER_SECONDS:g} s"


async def accepts(url: str) -> bool:
    """False if a server's port refuses connections; a slow one gets the benefit of the doubt."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    loop = asyncio.get_running_loop()
    try:
        asked = loop.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        found = await asyncio.wait_for(asked, _ACCEPT_SECONDS)
    except (OSError, UnicodeError, asyncio.TimeoutError):
        return True
    # "localhost" may have an IPv6 address beside the one that the server listens on.
    refusals = [await _refuses(address) for *_, address in found]
    return not all(refusals)


async def _refuses(address: tuple[Any, ...]) -> bool:
    connection = asyncio.open_connection(address[0], address[1])
    try:
        _, writer = await asyncio.wait_for(connection, _ACCEPT_SECONDS)
    except ConnectionRefusedError:
        return True
    except (OSError, asyncio.TimeoutError):
        return False
    writer.close()
    return False


@contextlib.asynccontextmanager
async def _asked(
    session: aiohttp.ClientSession,
    url: str,
    body: bytes,
    timeout: aiohttp.ClientTimeout,
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[aiohttp.ClientResponse]:
    """The reply to a JSON body; whatever goes wrong until its end is a typed error."""
    headers = {"Content-Type": "application/json", **(headers or {})}
    asked = session.post(url, data=body, headers=headers, timeout=timeout, allow_redirects=False)
    try:
        async with asked as reply:
            if reply.status >= 300:
                raise _status_error(reply, url, await read(reply))
            yield reply
    except asyncio.TimeoutError as error:
        seconds = timeout.total or timeout.sock_read or _CONNECT_SECONDS
        raise PeerError("timeout", f"no answer from {url} within {seconds:g} s") from error
    except aiohttp.ClientConnectorError as error:
        refused = error.os_error.errno == errno.ECONNREFUSED
        code = ErrorCode.CONTROLLER_NO_WORKER if refused else None
        raise PeerError("connection", f"{url}: {error.strerror or error}", code=code) from error
    except (aiohttp.ClientError, OSError) as error:
        raise PeerError("connection", f"{url}: {type(error).__name__} {error}") from error
    except ValueError as error:
        raise PeerError("malformed", f"{url}: {type(error).__name__} {error}") from error


def was_refused(error: PeerError) -> bool:
    """Whether nobody listens at the server's port; other failures may be this process's own."""
    return error.kind == "connection" and error.code is ErrorCode.CONTROLLER_NO_WORKER


def _code_error(reply: dict[str, Any], url: str) -> PeerError:
    code, said = reply["error_code"], str(reply.get("text") or "the worker failed")[:_SHOWN]
    if not isinstance(code, int):
        return PeerError("malformed", f"{url} sent the error code {str(code)[:_SHOWN]}")
    kind = CODE_KINDS.get(code) or status_kind(code // 100)
    known = ErrorCode(code) if code in set(ErrorCode) else ErrorCode.INTERNAL_ERROR
    return PeerError(kind, f"{url}: error_code {code:.6g}: {said}", code=known, said=said)


def _status_error(reply: aiohttp.ClientResponse, url: str, raw: bytes) -> PeerError:
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(raw)
        if isinstance(value, dict) and isinstance(value.get("error_code"), int):
            return _code_error(value, url)
    if reply.status < 400:
        place = str(reply.headers.get("Location"))[:_SHOWN]
        said = f"{url} redirects to {place}, which is not followed: give the address that answers"
        return PeerError("malformed", said)
    text = raw.decode(errors="replace")
    message = f"{url} answered HTTP {reply.status}: {page_in(text) or text.strip()[:_SHOWN]}"
    if reply.status in (404, 405, 501):
        return PeerError("malformed", message + _FOREIGN)
    wait = seconds_to_wait(reply.headers)
    return PeerError(status_kind(reply.status), message, retry_after=wait)
