"""Replies of an OpenAI-compatible server, read up to a limit, unpacked or not."""

import zlib
from collections.abc import AsyncIterator
from typing import Any

from fastchat.constants import MAX_REPLY_BYTES

HEADERS = {"Accept-Encoding": "identity"}
"""A few bytes unpack to any number of them; who packs all the same is read like this."""
_PACKED = ("gzip", "x-gzip", "deflate")
_EITHER = 32 + zlib.MAX_WBITS


class Oversize(Exception):
    """A reply that is larger than any answer, or packed so that it cannot be told."""


class _Bounded:
    def __init__(self, stream: Any, is_packed: bool):
        self._stream = stream
        self._unpacker = zlib.decompressobj(_EITHER) if is_packed else None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MAX_REPLY_BYTES
        async for part in self._stream:
            if self._unpacker is not None:
                try:
                    part = self._unpacker.decompress(part, left + 1)
                except zlib.error as error:
                    raise Oversize(f"its reply cannot be unpacked: {error}") from error
            left -= len(part)
            if left < 0:
                raise Oversize(f"its reply has more than {MAX_REPLY_BYTES} bytes")
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


async def bound(response: Any) -> None:
    """An event hook of httpx, of whichever version: the body that follows is bounded.

    Oversize if it is packed as nobody asked for.
    """
    packed = response.headers.pop("content-encoding", "identity").strip().lower()
    if packed not in ("", "identity", *_PACKED):
        await response.aclose()
        raise Oversize(f"its reply is packed as {packed[:50]!r}, which was not asked for")
    base = next(k for k in type(response.stream).__mro__ if k.__name__ == "AsyncByteStream")
    kind = type("Bounded", (_Bounded, base), {})
    response.stream = kind(response.stream, packed in _PACKED)
