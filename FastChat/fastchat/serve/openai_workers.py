"""The OpenAI server's way to the workers: addresses from the controller, requests straight to them.

A worker is asked once what it can do. Ours take messages, token ids and several samples at once; a
stock FastChat worker takes one `prompt` for one answer, and a request without `prompt` costs it a
place for ever, so it never gets one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp

from fastchat.constants import ErrorCode, RequestError
from fastchat.serve.openai_errors import ApiError
from fastchat.serve.relay import frames, open_session, was_refused

_LOOK_UP_SECONDS = 1.0
"""Age at which an address is asked for again: the controller names one worker at a time, and so a
second worker is found soon."""
_FORGET_SECONDS = 60.0
"""A worker that the controller has not named for so long is forgotten."""
_QUESTION_SECONDS = 10.0
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
    named_at: float = 0.0
    """When the controller named it last."""

    @property
    def is_stock(self) -> bool:
        return self.conv is not None


class Workers:
    """The workers of a controller.

    Args:
        controller: its URL.
        silence: seconds that a worker may send nothing before its request fails.
    """

    def __init__(self, controller: str, silence: float):
        self.controller = controller
        self.silence = silence
        self._session: aiohttp.ClientSession | None = None
        self._known: dict[str, dict[str, Worker]] = {}
        self._asked_at = 0.0
        self._looking_up = asyncio.Lock()

    async def start(self) -> None:
        """Open the client session; must run on the loop that serves."""
        self._session = open_session(self.silence)

    async def close(self) -> None:
        """Close the client session."""
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
        # While one request waits for a slow controller, the others take the workers that are known.
        if not (self._known.get(model) and self._looking_up.locked()):
            async with self._looking_up:
                await self._refresh(model)
        known = self._known.get(model)
        if not known:
            raise ApiError(503, f"no worker of {model!r} can be reached; try again", "no_worker")
        return min(known.values(), key=lambda worker: worker.in_flight)

    async def ask(self, worker: Worker, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """One JSON answer of a worker.

        Raises:
            RequestError: the worker refuses the request or fails.
        """
        assert self._session is not None
        worker.in_flight += 1
        try:
            async with self._session.post(f"{worker.address}{path}", json=body) as reply:
                reply.raise_for_status()
                return _checked(await reply.json(content_type=None))
        except (aiohttp.ClientError, asyncio.TimeoutError, ValueError) as error:
            raise self._failed(worker, error) from error
        finally:
            worker.in_flight -= 1

    async def stream(self, worker: Worker, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
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

    async def _refresh(self, model: str) -> None:
        """Ask the controller for a worker if that is due, and forget those that it left out."""
        now = time.monotonic()
        known = self._known.get(model, {})
        if known and now - self._asked_at < _LOOK_UP_SECONDS:
            return
        self._asked_at = now
        try:
            await self._look_up(model)
        except ApiError:
            # A controller that restarts is no reason to leave workers that are known.
            if not known:
                raise
        for address in [
            a for a, worker in known.items() if now - worker.named_at > _FORGET_SECONDS
        ]:
            del known[address]

    async def _look_up(self, model: str) -> None:
        """Add the worker that the controller names for a model."""
        for _ in range(_TRIES):
            reply = await self._ask_controller("/get_worker_address", {"model": model})
            address = reply.get("address")
            if not address:
                break
            known = self._known.get(model, {})
            try:
                worker = known.get(address) or await self._describe(address)
            except RequestError:
                continue
            worker.named_at = time.monotonic()
            self._known.setdefault(model, {})[address] = worker
            return
        else:
            return
        served = await self.models()
        if model not in served:
            names = ", ".join(served) or "none"
            text = f"the model {model!r} does not exist here; served: {names}"
            raise ApiError(404, text, "model_not_found", "model")

    async def _describe(self, address: str) -> Worker:
        worker = Worker(address, context_length=0, conv=None)
        status = await self.ask(worker, "/worker_get_status", {})
        worker.context_length = (await self.ask(worker, "/model_details", {}))["context_length"]
        if "messages" not in status.get("extensions", ()):
            worker.conv = (await self.ask(worker, "/worker_get_conv_template", {}))["conv"]
        return worker

    def _failed(self, worker: Worker, error: Exception) -> RequestError:
        """Forget a worker that failed: it may be gone, or another one may live at its address."""
        for known in self._known.values():
            if known.get(worker.address) is worker:
                del known[worker.address]
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
