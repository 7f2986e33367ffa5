"""The controller's connections to workers: does one answer, and what does it stream."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import aiohttp

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


async def frames(session: aiohttp.ClientSession, worker: str, body: bytes) -> AsyncIterator[bytes]:
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


def was_refused(error: aiohttp.ClientError) -> bool:
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
