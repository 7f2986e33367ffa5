"""JSON requests to controllers and workers: every failure is a typed error, never a text."""

from __future__ import annotations

import asyncio
import json
import time
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp

from rise.policies.policy import PolicyError, Sample

CONTROL_TIMEOUT = 10.0
"""Seconds for a request that generates nothing."""

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


def new_session() -> aiohttp.ClientSession:
    """A session without a limit of its own: the rollout bounds the requests in flight."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


async def post_json(
    session: aiohttp.ClientSession, url: str, body: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """POST JSON and return the JSON object of the reply.

    Raises:
        PolicyError: connection, timeout, overloaded (429), unauthorized (401, 403), server (5xx),
            bad_request (other 4xx) or malformed (no JSON object).
    """
    try:
        async with session.post(
            url, json=body, timeout=aiohttp.ClientTimeout(total=seconds)
        ) as response:
            if response.status >= 400:
                raise _status_error(response, url, await response.text())
            reply = await response.json(content_type=None)
    except asyncio.TimeoutError as error:
        raise PolicyError("timeout", f"no answer from {url} within {seconds:g} s") from error
    except aiohttp.ClientConnectorError as error:
        raise PolicyError("connection", f"{url}: {error.strerror}") from error
    except aiohttp.ClientError as error:
        raise PolicyError("connection", f"{url}: {type(error).__name__} {error}") from error
    except ValueError as error:
        raise PolicyError("malformed", f"{url} sent no JSON: {error}") from error
    if not isinstance(reply, dict):
        raise PolicyError("malformed", f"{url} sent {type(reply).__name__}, not an object")
    return reply


def read_reply(reply: dict[str, Any], n: int) -> list[Sample]:
    """The n samples of a worker's reply.

    Raises:
        PolicyError: if the reply carries an error code, an aborted answer, or not n texts.
    """
    if reply.get("error_code", 0) != 0:
        raise _code_error(reply)
    texts = _as_list(reply.get("text"), n)
    reasons = [reason or "stop" for reason in _as_list(reply.get("finish_reason"), n)]
    usage = reply.get("usage") or {}
    counts = reply.get("completion_tokens")
    if counts is None:  # a stock worker reports the sum only
        counts = split_evenly(usage.get("completion_tokens", 0), n)
    complete = len(texts) == len(reasons) == len(counts) == n
    if not complete or not all(isinstance(text, str) for text in texts):
        raise PolicyError("malformed", f"asked for {n} texts, got {len(texts)}")
    if not {"stop", "length"}.issuperset(reasons):
        raise PolicyError("server", f"an answer ended with {sorted(set(reasons))}")
    prompt_tokens = usage.get("prompt_tokens", 0)
    return [
        Sample(text, reason, prompt_tokens, count)
        for text, reason, count in zip(texts, reasons, counts, strict=True)
    ]


def split_evenly(total: int, n: int) -> list[int]:
    """Split a total that a server reports for n samples together; the first ones get the rest.

    >>> split_evenly(7, 3)
    [3, 2, 2]
    """
    return [total // n + (i < total % n) for i in range(n)]


def _as_list(value: Any, n: int) -> list[Any]:
    if isinstance(value, list):
        return value
    return [value] * n if value is None else [value]


def status_kind(status: int) -> str:
    """The kind of error that an HTTP status of 400 or more stands for."""
    return "server" if status >= 500 else STATUS_KINDS.get(status, "bad_request")


def _code_error(reply: dict[str, Any]) -> PolicyError:
    code = reply["error_code"]
    kind = CODE_KINDS.get(code) or status_kind(code // 100)
    return PolicyError(kind, f"error_code {code}: {str(reply.get('text'))[:500]}")


def _status_error(response: aiohttp.ClientResponse, url: str, body: str) -> PolicyError:
    try:
        reply = json.loads(body)
    except ValueError:
        reply = None
    if isinstance(reply, dict) and isinstance(reply.get("error_code"), int):
        return _code_error(reply)
    message = f"{url} answered HTTP {response.status}: {body[:500]}"
    return PolicyError(status_kind(response.status), message, seconds_to_wait(response.headers))


def seconds_to_wait(headers: Any) -> float | None:
    """The Retry-After header, a number or a date, in seconds from now; None without a valid one."""
    value = headers.get("Retry-After") or ""
    try:
        return float(value)
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
