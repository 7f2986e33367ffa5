"""The workers of one model: found through the controller, loaded evenly, left when they fail."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import aiohttp

from rise.policies.policy import RETRIED, PolicyError
from rise.policies.stock_worker import IN_FLIGHT, StockTemplate
from rise.policies.wire import CONTROL_TIMEOUT, post_json

log = logging.getLogger(__name__)

ASKS = 16
"""The controller names one worker per call, by its queue or by lot. A look-up ends when that many
calls in a row have named no new one."""
LOOK_UP_EVERY = 10.0
"""Seconds after which the controller is asked again."""
FORGET_AFTER = 60.0
"""Seconds after which an idle worker that the controller no longer names is forgotten."""
REST = 30.0
"""Seconds for which a worker that failed is asked only if no other one has room: one that refuses
everything at once would look like the least busy one."""
LIMIT = 256
"""Requests in flight at a worker that does not say how many it takes."""
GONE = ("connection", "timeout", "no_worker")
"""Kinds of errors after which a worker is left until the controller names it again."""


@dataclass
class Worker:
    """One worker, and how many of our requests it holds."""

    address: str
    limit: int = LIMIT
    """Requests in flight at most; the others wait here, for whichever worker has room first."""
    template: StockTemplate | None = None
    """How to write a prompt for a stock worker; None: it takes messages, n and seed."""
    context_length: int = 0
    """Longest prompt plus answer of a stock worker, in tokens."""
    in_flight: int = 0
    named_at: float = 0.0
    used_at: float = 0.0
    failed_at: float = -REST


class Workers:
    """The known workers of one model.

    Args:
        session: the client session of the running loop.
        controller: the controller's URL.
        model: the name under which the workers registered.
    """

    def __init__(self, session: aiohttp.ClientSession, controller: str, model: str):
        self._session = session
        self._controller = controller
        self._model = model
        self._known: dict[str, Worker] = {}
        """Every worker ever named: one that comes back still holds what it held."""
        self._named: dict[str, Worker] = {}
        self._asked_at = -LOOK_UP_EVERY
        self._lock = asyncio.Lock()
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> Worker:
        """The worker that holds the fewest of our requests; waits while all of them are full.

        Of several such workers it is the one that was asked longest ago.

        Raises:
            PolicyError: if no worker of the model is known and the controller names none.
        """
        waited = False
        while True:
            await self._look_up_when_due()
            now = time.monotonic()
            free = [worker for worker in self._named.values() if worker.in_flight < worker.limit]
            if free:
                chosen = min(free, key=lambda w: (now - w.failed_at < REST, w.in_flight, w.used_at))
                chosen.used_at = now
                chosen.in_flight += 1
                return chosen
            await self._wait_for_room(first=waited)
            waited = True

    def release(self, worker: Worker) -> None:
        """Say that a request to this worker is over."""
        worker.in_flight -= 1
        self._wake()

    def failed(self, worker: Worker, kind: str) -> None:
        """Say that a request to this worker ended with this kind of error."""
        if kind in RETRIED:
            worker.failed_at = time.monotonic()
        if kind in GONE:
            self._named.pop(worker.address, None)
            self._asked_at = -LOOK_UP_EVERY

    async def _wait_for_room(self, first: bool) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Who was woken and found the place taken goes on waiting at the head of the queue.
        (self._waiting.appendleft if first else self._waiting.append)(waiter)
        try:
            await asyncio.wait_for(waiter, LOOK_UP_EVERY)
        except asyncio.TimeoutError:
            pass  # the next look-up may find a worker with room
        except asyncio.CancelledError:
            self._wake()
            raise

    def _wake(self, count: int = 1) -> None:
        while self._waiting and count > 0:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                count -= 1

    async def _look_up_when_due(self) -> None:
        if self._named and (time.monotonic() - self._asked_at < LOOK_UP_EVERY or self._busy()):
            return
        async with self._lock:
            if not self._named or time.monotonic() - self._asked_at >= LOOK_UP_EVERY:
                await self._look_up()

    def _busy(self) -> bool:
        """Whether somebody looks up already: with a worker at hand nobody else need wait for it."""
        return self._lock.locked()

    async def _look_up(self) -> None:
        errors: dict[str, PolicyError] = {}
        try:
            await self._ask_controller(errors)
        except PolicyError as error:
            if not self._named:
                raise
            log.warning("%s; going on with the workers that are known", error)
        self._asked_at = time.monotonic()
        for worker in list(self._named.values()):
            if self._asked_at - worker.named_at > FORGET_AFTER and worker.in_flight == 0:
                del self._named[worker.address]
        if not self._named:
            nobody = f"the controller at {self._controller} has no worker of {self._model}"
            raise next(iter(errors.values()), PolicyError("no_worker", nobody))

    async def _ask_controller(self, errors: dict[str, PolicyError]) -> None:
        """Enter the workers that the controller names; `errors` gets those that do not answer."""
        url = f"{self._controller}/get_worker_address"
        nothing_new = 0
        while nothing_new < ASKS:
            reply = await post_json(self._session, url, {"model": self._model}, CONTROL_TIMEOUT)
            address = reply.get("address")
            if not address:
                return
            nothing_new += 1
            if address not in self._named and address not in errors:
                nothing_new = 0
                try:
                    await self._enter(address)
                except PolicyError as error:
                    errors[address] = error
            if address in self._named:
                self._named[address].named_at = time.monotonic()

    async def _enter(self, address: str) -> None:
        """Find out what a worker takes and let it be asked.

        Raises:
            PolicyError: it does not answer, or its prompts cannot be written.
        """
        worker = self._known.setdefault(address, Worker(address))
        status = await self._ask(address, "worker_get_status")
        conv = None
        if "extensions" not in status:
            conv = (await self._ask(address, "worker_get_conv_template")).get("conv")
        if conv is None:
            worker.limit, worker.template = int(status.get("limit", LIMIT)), None
        else:
            await self._enter_stock(worker, conv)
        self._named[address] = worker
        self._wake(worker.limit - worker.in_flight)

    async def _enter_stock(self, worker: Worker, conv: dict[str, Any]) -> None:
        try:
            worker.template = StockTemplate.from_reply(conv)
        except ValueError as error:
            raise PolicyError("bad_request", f"{worker.address}: {error}") from error
        details = await self._ask(worker.address, "model_details")
        worker.limit = IN_FLIGHT
        worker.context_length = int(details.get("context_length") or 0)
        log.info("%s is a stock FastChat worker: one sample per request, no seeds", worker.address)

    async def _ask(self, address: str, what: str) -> dict[str, Any]:
        """What a worker says about itself; nothing where it does not know the question."""
        try:
            return await post_json(self._session, f"{address}/{what}", {}, CONTROL_TIMEOUT)
        except PolicyError as error:
            if error.kind != "bad_request":
                raise
            return {}
