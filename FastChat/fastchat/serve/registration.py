"""A worker's side of the controller: registration and heartbeats, for as long as it lives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import aiohttp

_RETRY_SECONDS = 2.0
_ANSWER_SECONDS = 5.0


class Registration:
    """Keeps a worker known to its controller; a restarted controller learns of it again.

    Args:
        controller: the controller's URL.
        worker: the URL under which others reach the worker.
        status: gives the worker's status, the body of `/worker_get_status`.
        interval: seconds between two heartbeats.
    """

    def __init__(
        self,
        controller: str,
        worker: str,
        status: Callable[[], dict[str, Any]],
        interval: float,
        logger: logging.Logger,
    ):
        self.controller = controller
        self.worker = worker
        self.status = status
        self.interval = interval
        self.logger = logger
        self._registered = False
        self._reachable = True

    async def run(self) -> None:
        """Register, send heartbeats and register again when forgotten, until cancelled."""
        timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                await self._beat(session)
                settled = self._registered and self._reachable
                await asyncio.sleep(
                    self.interval if settled else min(_RETRY_SECONDS, self.interval)
                )

    async def _beat(self, session: aiohttp.ClientSession) -> None:
        """One registration or heartbeat; what fails is logged once and tried again."""
        try:
            if self._registered:
                self._registered = await self._send_heart_beat(session)
            if not self._registered:
                await self._register(session)
            self._reachable = True
        except (aiohttp.ClientError, asyncio.TimeoutError, ValueError, KeyError) as error:
            if self._reachable:
                self.logger.warning(
                    "the controller at %s does not answer (%s); trying again every %g s",
                    self.controller,
                    type(error).__name__,
                    min(_RETRY_SECONDS, self.interval),
                )
            self._reachable = False

    async def _register(self, session: aiohttp.ClientSession) -> None:
        body = {
            "worker_name": self.worker,
            "check_heart_beat": True,
            "worker_status": self.status(),
            "multimodal": False,
        }
        async with session.post(f"{self.controller}/register_worker", json=body) as reply:
            reply.raise_for_status()
        self._registered = True
        self.logger.info("registered at %s as %s", self.controller, self.worker)

    async def _send_heart_beat(self, session: aiohttp.ClientSession) -> bool:
        body = {"worker_name": self.worker, "queue_length": self.status()["queue_length"]}
        async with session.post(f"{self.controller}/receive_heart_beat", json=body) as reply:
            reply.raise_for_status()
            return bool((await reply.json())["exist"])
