"""The OpenAI server's way to the workers: addresses from the controller, requests straight to them.

A worker is asked once what it can do. Ours take messages, token ids and several samples at once; a
stock FastChat worker takes one `prompt` for one answer, and a request without `prompt` costs it a
place for ever, so it never gets one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from fastchat.constants import ErrorCode, RequestError
from fastchat.serve.http import frames, open_session, was_refused
from fastchat.serve.openai.errors import ApiError

_LOOK_UP_SECONDS = 1.0
"""How often the controller, which names one worker at a time, is asked once it names no new one."""
_CHECK_SECONDS = 30.0
"""Age of a worker's last sign of life at which it is asked for one, since of many workers the
controller names each one seldom; at twice that age it gets no request before it has answered."""
_QUESTION_SECONDS = 10.0
"""In all, for what is answered at once; a worker that hangs must not hold up what needs others."""
_TRIES = 3


@dataclass
class Worker:
    """A worker, and what it said about itself."""

    address: str
    context_length: int
    """Prompt plus answer, in tokens."""
    conv: dict[str, Any] | None
    """The template of a stock worker; None for ours, which render messages themselves."""
    in_flight: int = 0
    """Requests of this server."""
    seen_at: float = 0.0
    """Its last sign of life: the controller named it, or it said that it serves the model."""

    @property
    def is_stock(self) -> bool:
        return self.conv is not None


class Workers:
    """The workers of a controller, each known from when it is first named until it fails.

    Args:
        controller: its URL.
        silence: seconds that a worker may send nothing before its request fails.
    """

    def __init__(self, controller: str, silence: float):
        self.controller = controller
        self.silence = silence
        self._session: aiohttp.ClientSession | None = None
        self._known: dict[str, dict[str, Worker]] = {}
        self._asked_at: dict[str, float] = {}
        """When the controller was last asked about a model; none while it names new workers."""
        self._tasks: dict[tuple[str, ...], asyncio.Task[None]] = {}
        """Look-ups by (model,), checks of workers by (model, address)."""

    async def start(self) -> None:
        """Open the client session; must run on the loop that serves."""
        self._session = open_session(self.silence)

    async def close(self) -> None:
        """Close the client session, and end what still uses it."""
        for task in list(self._tasks.values()):
            task.cancel()
        if self._session is not None:
            await self._session.close()

    async def models(self) -> list[str]:
        """The names that the controller serves.

        Raises:
            ApiError: it does not answer.
        """
        return sorted((await self._ask_controller("/list_models", {}))["models"])

    async def pick(self, model: str) -> Worker:
        """The worker of a model that holds the fewest of our requests.

        Raises:
            ApiError: 404 for a model that nobody serves, 503 where no worker can be reached.
        """
        alive = self._alive(model)
        asked = {self._once(self._check, model, address) for address in self._unseen(model)}
        if not alive or self._is_due(model):
            look_up = self._once(self._look_up, model)
            asked.add(look_up)
        # A request waits only where no worker is known to be alive, and only for the first one.
        while asked and not alive:
            _, asked = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            alive = self._alive(model)
        if not alive:
            look_up.result()
            raise ApiError(503, f"no worker of {model!r} can be reached; try again", "no_worker")
        return min(alive, key=lambda worker: worker.in_flight)

    async def context_length(self, model: str) -> int | None:
        """The context of a model in tokens, None where none of its workers says it in time."""
        try:
            return (await asyncio.wait_for(self.pick(model), _QUESTION_SECONDS)).context_length
        except (ApiError, asyncio.TimeoutError):
            return None

    async def ask(
        self, worker: Worker, path: str, body: dict[str, Any], seconds: float | None = None
    ) -> dict[str, Any]:
        """One JSON answer of a worker, in so many seconds or while it is not silent.

        Raises:
            RequestError: the worker refuses the request or fails.
        """
        assert self._session is not None
        limit = self._session.timeout if seconds is None else aiohttp.ClientTimeout(total=seconds)
        worker.in_flight += 1
        try:
            url = f"{worker.address}{path}"
            async with self._session.post(url, json=body, timeout=limit) as reply:
                reply.raise_for_status()
                return _checked(await reply.json(content_type=None))
        except (aiohttp.ClientError, asyncio.TimeoutError, ValueError) as error:
            raise self._failed(worker, error) from error
        finally:
            worker.in_flight -= 1

    async def question(self, worker: Worker, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """As `ask`, for what a worker answers at once."""
        return await self.ask(worker, path, body, _QUESTION_SECONDS)

    async def stream(
        self, worker: Worker, body: dict[str, Any]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The growing answer of a worker, frame by frame.

        Raises:
            RequestError: the worker refuses the request or fails.
        """
        assert self._session is not None
        worker.in_flight += 1
        try:
            raw = json.dumps(body).encode()
            async with contextlib.aclosing(frames(self._session, worker.address, raw)) as parts:
                async for part in parts:
                    for one in part.split(b"\0")[:-1]:
                        yield _checked(json.loads(one))
        except (aiohttp.ClientError, asyncio.TimeoutError, ValueError) as error:
            raise self._failed(worker, error) from error
        finally:
            worker.in_flight -= 1

    def _alive(self, model: str) -> list[Worker]:
        """The workers that may get a request."""
        oldest = time.monotonic() - 2 * _CHECK_SECONDS
        return [w for w in self._known.get(model, {}).values() if w.seen_at >= oldest]

    def _unseen(self, model: str) -> list[str]:
        """Addresses of the workers that should be asked whether they are alive."""
        oldest = time.monotonic() - _CHECK_SECONDS
        return [w.address for w in self._known.get(model, {}).values() if w.seen_at < oldest]

    def _is_due(self, model: str) -> bool:
        """Whether the controller should be asked for one more worker."""
        return time.monotonic() - self._asked_at.get(model, -math.inf) >= _LOOK_UP_SECONDS

    def _once(
        self, work: Callable[..., Coroutine[Any, Any, None]], *about: str
    ) -> asyncio.Task[None]:
        """The task that does some work; the same for all that want it while it runs.

        A request that is given up does not end it: others may wait for it too.
        """
        task = self._tasks.get(about)
        if task is None:
            task = self._tasks[about] = asyncio.create_task(work(*about))
            task.add_done_callback(lambda done: self._ended(about, done))
        return task

    def _ended(self, about: tuple[str, ...], task: asyncio.Task[None]) -> None:
        del self._tasks[about]
        if not task.cancelled():
            task.exception()  # asyncio would complain about one that no request waited for

    async def _check(self, model: str, address: str) -> None:
        """Forget a worker that does not say that it still serves the model."""
        worker = self._known[model].get(address)
        if worker is None:
            return
        served: Sequence[str] = ()
        with contextlib.suppress(RequestError):
            status = await self.question(worker, "/worker_get_status", {})
            served = status.get("model_names", ())
        if model in served:
            worker.seen_at = time.monotonic()
        else:
            self._forget(worker)

    async def _look_up(self, model: str) -> None:
        """Add the worker that the controller names for a model.

        Raises:
            ApiError: the controller does not answer, or the model does not exist.
        """
        known = self._known.get(model, {})
        if known:
            self._asked_at[model] = time.monotonic()
        failed: set[str] = set()
        for _ in range(_TRIES):
            reply = await self._ask_controller("/get_worker_address", {"model": model})
            address = reply.get("address")
            if not address:
                break
            if address in known:
                known[address].seen_at = time.monotonic()
                return
            if address not in failed and await self._add(model, address):
                return
            failed.add(address)
        else:
            return
        served = await self.models()
        if model not in served:
            names = ", ".join(served) or "none"
            text = f"the model {model!r} does not exist here; served: {names}"
            raise ApiError(404, text, "model_not_found", "model")

    async def _add(self, model: str, address: str) -> bool:
        """Add a worker to those of a model; False if it does not answer."""
        try:
            worker = await self._describe(address)
        except RequestError:
            return False
        worker.seen_at = time.monotonic()
        self._known.setdefault(model, {})[address] = worker
        # There may be more of them: the next request asks at once.
        self._asked_at.pop(model, None)
        return True

    async def _describe(self, address: str) -> Worker:
        worker = Worker(address, context_length=0, conv=None)
        status = await self.question(worker, "/worker_get_status", {})
        details = await self.question(worker, "/model_details", {})
        worker.context_length = details["context_length"]
        if "messages" not in status.get("extensions", ()):
            worker.conv = (await self.question(worker, "/worker_get_conv_template", {}))["conv"]
        return worker

    def _forget(self, worker: Worker) -> None:
        for known in self._known.values():
            if known.get(worker.address) is worker:
                del known[worker.address]

    def _failed(self, worker: Worker, error: Exception) -> RequestError:
        """Forget a worker that failed: it may be gone, or another one may live at its address."""
        self._forget(worker)
        refused = isinstance(error, aiohttp.ClientError) and was_refused(error)
        code = ErrorCode.CONTROLLER_NO_WORKER if refused else ErrorCode.CONTROLLER_WORKER_TIMEOUT
        return RequestError(code, f"the model's worker failed ({type(error).__name__}); try again")

    async def _ask_controller(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert self._session is not None
        timeout = aiohttp.ClientTimeout(total=_QUESTION_SECONDS)
        try:
            url = f"{self.controller}{path}"
            async with self._session.post(url, json=body, timeout=timeout) as reply:
                reply.raise_for_status()
                return await reply.json()
        except (aiohttp.ClientError, asyncio.TimeoutError, ValueError) as error:
            text = f"the controller does not answer ({type(error).__name__}); try again"
            raise ApiError(503, text, "no_controller") from error


def _checked(reply: dict[str, Any]) -> dict[str, Any]:
    """A reply without an error.

    Raises:
        RequestError: it carries an error code, or an answer was given up.
    """
    code = reply.get("error_code", 0)
    if code:
        known = ErrorCode(code) if code in set(ErrorCode) else ErrorCode.INTERNAL_ERROR
        raise RequestError(known, reply.get("text", "the worker failed"))
    reasons = reply.get("finish_reason")
    if "abort" in (reasons if isinstance(reasons, list) else [reasons]):
        raise RequestError(ErrorCode.INTERNAL_ERROR, "the worker gave the answer up; try again")
    return reply
