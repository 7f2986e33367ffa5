"""A worker's side of the controller: registration and heartbeats, for as long as it lives."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
from pydantic import RootModel

from fastchat.client.http import M, PeerError, open_session, post
from fastchat.constants import controller_headers
from fastchat.protocol.controller_protocol import HeartBeatReply

_RETRY_SECONDS = 2.0
_ANSWER_SECONDS = 5.0


@dataclass
class Registration:
    """Keeps a worker known to its controller; a restarted controller learns of it again."""

    controller: str
    worker: str
    """The URL under which others reach it."""
    status: Callable[[], dict[str, Any]]
    interval: float
    """Seconds between two heartbeats."""
    logger: logging.Logger
    _registered: bool = False
    _reachable: bool = True

    async def run(self) -> None:
        """Register, send heartbeats and register again when forgotten, until cancelled."""
        async with open_session() as session:
            while True:
                await self._beat(session)
                settled = self._registered and self._reachable
                await asyncio.sleep(self.interval if settled else self._soon)

    @property
    def _soon(self) -> float:
        return min(_RETRY_SECONDS, self.interval)

    async def _beat(self, session: aiohttp.ClientSession) -> None:
        """One registration or heartbeat; what fails is logged once and tried again."""
        try:
            if self._registered:
                beat = {"worker_name": self.worker, "queue_length": self.status()["queue_length"]}
                reply = await self._ask(session, "receive_heart_beat", beat, HeartBeatReply)
                self._registered = reply.exist
            if not self._registered:
                body = {
                    "worker_name": self.worker,
                    "check_heart_beat": True,
                    "worker_status": self.status(),
                    "multimodal": False,
                }
                await self._ask(session, "register_worker", body, RootModel[Any])
                self._registered = True
                self.logger.info("registered at %s as %s", self.controller, self.worker)
            self._reachable = True
        except PeerError as error:
            if self._reachable:
                text = "the controller: %s; trying again every %g s"
                self.logger.warning(text, error, self._soon)
            self._reachable = False

    async def _ask(
        self, session: aiohttp.ClientSession, path: str, body: dict[str, Any], kind: type[M]
    ) -> M:
        url = f"{self.controller}/{path}"
        return await post(session, url, body, kind, _ANSWER_SECONDS, controller_headers())
