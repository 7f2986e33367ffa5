"""Answers of FastChat workers: the address from the controller, the request straight to the worker.

Requests never pass through the controller's proxy: it costs five times the CPU time and, in the
stock controller, holds at most 40 requests at once.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import aiohttp

from rise.policies import Policy, PolicyError, Retries, Sample

ASKS = 8
"""How often the controller is asked at each look-up: it names one worker per call, so that several
calls find several workers of one model."""
LOOK_UP_EVERY = 10.0
"""Seconds after which the controller is asked again."""
FORGET_AFTER = 60.0
"""Seconds after which a worker that the controller no longer names is forgotten."""
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


class Workers:
    """The known workers of one model, and how many of our requests each of them holds."""

    def __init__(self, session: aiohttp.ClientSession, controller: str, model: str):
        self._session = session
        self._controller = controller
        self._model = model
        self._named_at: dict[str, float] = {}
        self._in_flight: dict[str, int] = {}
        self._used_at: dict[str, float] = {}
        self._asked_at = -LOOK_UP_EVERY
        self._lock = asyncio.Lock()

    async def acquire(self) -> str:
        """The address of the worker that holds the fewest of our requests.

        Of several such workers it is the one that was asked longest ago.

        Raises:
            PolicyError: if the controller does not answer or knows no worker of the model.
        """
        async with self._lock:
            if time.monotonic() - self._asked_at > LOOK_UP_EVERY or not self._named_at:
                await self._look_up()
        address = min(
            self._named_at,
            key=lambda name: (self._in_flight.get(name, 0), self._used_at.get(name, 0.0)),
        )
        self._used_at[address] = time.monotonic()
        self._in_flight[address] = self._in_flight.get(address, 0) + 1
        return address

    def release(self, address: str) -> None:
        """Say that a request to this worker is over."""
        self._in_flight[address] -= 1

    def drop(self, address: str) -> None:
        """Forget a worker that failed, and ask the controller before the next request."""
        self._named_at.pop(address, None)
        self._asked_at = -LOOK_UP_EVERY

    async def _look_up(self) -> None:
        url = f"{self._controller}/get_worker_address"
        for _ in range(ASKS):
            reply = await post_json(self._session, url, {"model": self._model}, CONTROL_TIMEOUT)
            if reply.get("address"):
                self._named_at[reply["address"]] = time.monotonic()
        self._asked_at = time.monotonic()
        for address, named_at in list(self._named_at.items()):
            if self._asked_at - named_at > FORGET_AFTER:
                del self._named_at[address]
        if not self._named_at:
            raise PolicyError(
                "no_worker", f"the controller at {self._controller} has no worker of {self._model}"
            )


class WorkerPolicy(Policy):
    """A model that workers serve under a controller.

    Args:
        name: the name on the command line.
        controller: the controller's URL.
        model: the name under which the workers registered; `name` unless told otherwise.
        request_timeout: seconds for one request, all its samples together.
        retries: how failed requests are tried again.
    """

    def __init__(
        self,
        name: str,
        controller: str,
        *,
        model: str | None = None,
        request_timeout: float = 1800.0,
        retries: Retries | None = None,
    ):
        self.name = name
        self.controller = controller
        self.model = model or name
        self.request_timeout = request_timeout
        self.retries = retries or Retries()
        self._session: aiohttp.ClientSession | None = None
        self._workers: Workers | None = None

    async def sample(
        self, messages, *, n, seed, temperature, top_p, max_new_tokens, problem
    ) -> list[Sample]:
        request = {
            "model": self.model,
            "messages": messages,
            "n": n,
            "seed": seed,
            "temperature": temperature,
            "top_p": top_p,
            "max_new_tokens": max_new_tokens,
            "echo": False,
        }
        return await self.retries.run(self._generate, request)

    async def check(self) -> None:
        workers = self._open()
        address = await workers.acquire()
        try:
            url = f"{address}/worker_get_status"
            await post_json(self._session, url, {}, CONTROL_TIMEOUT)
        finally:
            workers.release(address)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> Workers:
        # The session belongs to the running loop, so it is made at the first request.
        if self._session is None:
            self._session = new_session()
            self._workers = Workers(self._session, self.controller, self.model)
        return self._workers

    async def _generate(self, request: dict[str, Any]) -> list[Sample]:
        workers = self._open()
        address = await workers.acquire()
        try:
            url = f"{address}/worker_generate"
            reply = await post_json(self._session, url, request, self.request_timeout)
            return read_reply(reply, request["n"])
        except PolicyError as error:
            if error.kind in ("connection", "timeout", "no_worker"):
                workers.drop(address)
            raise
        finally:
            workers.release(address)


def new_session() -> aiohttp.ClientSession:
    """A session without a limit of its own: the rollout bounds the requests in flight."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


async def list_models(controller: str) -> list[str]:
    """The names that a controller serves.

    Raises:
        PolicyError: if it does not answer.
    """
    async with new_session() as session:
        reply = await post_json(session, f"{controller}/list_models", {}, CONTROL_TIMEOUT)
    return sorted(reply.get("models", []))


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
    """The Retry-After header in seconds; None without one or where it is a date."""
    try:
        return float(headers.get("Retry-After"))
    except (TypeError, ValueError):
        return None
