"""The workers of a model: found through the controller, loaded evenly, left when they fail.

Requests go straight to a worker: the controller's proxy costs five times the CPU time, and a stock
controller passes at most 40 requests at once.
"""

import asyncio
import contextlib
import json
import logging
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import aiohttp

from fastchat.client.http import PeerError, frames, open_session, parsed, post
from fastchat.constants import LONG_TEXT, controller_headers
from fastchat.protocol.controller_protocol import ModelList, WorkerAddress, WorkerStatus
from fastchat.protocol.worker_protocol import CountReply, GenerateReply

log = logging.getLogger(__name__)

ASKS = 16
"""The controller names one worker per call, by its queue or by lot. A look-up ends when that many
calls in a row have named no new one."""
LOOK_UP_EVERY = 10.0
"""Seconds after which the controller is asked again."""
CHECK_AFTER = 30.0
"""Age of a worker's last sign of life at which it is asked for one, since of many workers the
controller names each one seldom; at twice that age it gets no request before it has answered."""
CONTROL_SECONDS = 10.0
"""For a reply that generates nothing."""
TOGETHER = 1.0
"""Seconds that a first request waits for all workers that were named, so that a burst is shared;
then any worker is enough."""
REST = 30.0
"""Seconds for which a worker that failed is asked only if no other one has room: one that refuses
everything at once would look like the least busy one."""
LIMIT = 256
"""Requests in flight at a worker that does not say how many it takes."""
GONE = ("connection", "timeout", "no_worker")
"""Kinds of errors after which a worker is left until the controller names it again."""
FAILED = (*GONE, "overloaded", "server", "malformed")
"""Kinds of errors after which other workers are preferred."""


_STOCK = (
    "{} is a worker of stock FastChat, which takes no messages, samples and seeds: start the stock "
    "`python -m fastchat.serve.openai_api_server` and name the model as {}@http://HOST:8000/v1, or "
    "serve it with a worker of this repository"
)


@dataclass
class Worker:
    """One worker, and how many of our requests it holds."""

    address: str
    limit: int = LIMIT
    """Requests in flight at most; the others wait here, for whichever worker has room first."""
    context_length: int = 0
    """Prompt plus answer, in tokens; 0 where it does not say."""
    in_flight: int = 0
    seen_at: float = -math.inf
    """Its last sign of life: the controller named it, or it said that it serves the model."""
    used_at: float = 0.0
    failed_at: float = -math.inf
    error: PeerError | None = None
    """Why it cannot be asked."""


class Cluster:
    """A controller and its workers, which may send nothing for `silence` seconds."""

    def __init__(self, controller: str, silence: float | None = None):
        self.controller = controller
        self._silence = silence
        self._opened: aiohttp.ClientSession | None = None
        self._workers: dict[str, Workers] = {}

    @property
    def session(self) -> aiohttp.ClientSession:
        """It belongs to the running loop, so it is opened at the first request."""
        if self._opened is None:
            self._opened = open_session(self._silence)
        return self._opened

    async def close(self) -> None:
        for workers in self._workers.values():
            workers.close()
        self._workers.clear()
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    async def models(self) -> list[str]:
        """The names that the controller serves; PeerError if it does not answer."""
        url = f"{self.controller}/list_models"
        headers = controller_headers()
        listed = await post(self.session, url, {}, ModelList, CONTROL_SECONDS, headers)
        return sorted(listed.models)

    @contextlib.asynccontextmanager
    async def hold(self, model: str) -> AsyncIterator[Worker]:
        """The worker of a model that holds the fewest of our requests, for one more.

        A `PeerError` that ends the block is put down to the worker. PeerError if no worker of the
        model can be asked.
        """
        new = Workers(self.session, self.controller, model)
        workers = self._workers.setdefault(model, new)
        try:
            worker = await workers.acquire()
        except BaseException:
            if not workers._known:  # names that nobody serves leave nothing behind
                self._workers.pop(model, None)
            raise
        try:
            yield worker
        except PeerError as error:
            workers.failed(worker, error)
            raise
        finally:
            workers.release(worker)

    async def generate(
        self, worker: Worker, body: dict[str, Any], seconds: float | None = None
    ) -> GenerateReply:
        """The whole answer to a request; PeerError if there is none."""
        url = f"{worker.address}/worker_generate"
        reply = await post(self.session, url, body, GenerateReply, seconds)
        _check(reply, body, url)
        if None in reply.reasons:
            raise PeerError("malformed", f"{url} sent an answer without an end")
        return reply

    async def stream(
        self, worker: Worker, body: dict[str, Any]
    ) -> AsyncGenerator[GenerateReply, None]:
        """The growing answer to a request; PeerError if there is none, or it breaks off."""
        url = f"{worker.address}/worker_generate_stream"
        ended = False
        raw = json.dumps(body).encode()
        async with contextlib.aclosing(frames(self.session, url, raw)) as pieces:
            async for piece in pieces:
                for one in piece.split(b"\0")[:-1]:
                    reply = parsed(GenerateReply, one, url)
                    _check(reply, body, url)
                    ended = None not in reply.reasons
                    yield reply
        if not ended:
            raise PeerError("connection", f"{url} broke the answer off")

    async def texts(
        self,
        model: str,
        body: dict[str, Any],
        address: str | None = None,
        ended: Callable[[str | None], object] = lambda reason: None,
    ) -> AsyncGenerator[str, None]:
        """The growing text of one answer, by a worker of the model or by the one at `address`.

        `ended` is called with each piece's finish reason, the last one's is the answer's. PeerError
        if there is none, or it breaks off.
        """
        held = contextlib.nullcontext(Worker(address)) if address else self.hold(model)
        async with held as worker:
            replies = self.stream(worker, {"model": model, "echo": False, **body})
            async with contextlib.aclosing(replies):
                async for reply in replies:
                    ended(reply.reasons[0])
                    yield reply.texts[0]

    async def addresses(self, model: str) -> list[str]:
        """All workers that the controller names for a model, whether they answer or not."""
        workers = Workers(self.session, self.controller, model)
        await workers._look_up()
        if not workers._known and workers._trouble:
            raise workers._trouble
        return sorted(workers._known)

    async def drawn(self, model: str) -> dict[str, int]:
        """Address -> tokens since its start, of the model's workers that were asked and say it."""
        session, workers, found = self._opened, self._workers.get(model), dict[str, int]()
        if session is None or workers is None:
            return found

        async def count(address: str) -> None:
            url = f"{address}/worker_get_status"
            with contextlib.suppress(PeerError):
                status = await post(session, url, {}, WorkerStatus, CONTROL_SECONDS)
                if status.engine:
                    found[address] = int(status.engine.get("generated_tokens", 0))

        # Those that answer nothing for minutes, since they are at work, look asleep otherwise.
        there = [worker.address for worker in workers._known.values() if worker.error is None]
        await asyncio.gather(*map(count, there))
        return found

    async def context_length(self, model: str) -> int:
        """Of the worker that comes first, in tokens; 0 where it does not say.

        PeerError if no worker of the model can be asked soon.
        """

        async def hold() -> int:
            async with self.hold(model) as worker:
                return worker.context_length

        try:
            return await asyncio.wait_for(hold(), CONTROL_SECONDS)
        except asyncio.TimeoutError as error:
            raise PeerError("timeout", f"all workers of {model} are busy") from error

    async def count(self, worker: Worker, prompt: str) -> int:
        url = f"{worker.address}/count_token"
        # A worker tokenizes long texts one after the other.
        seconds = CONTROL_SECONDS if len(prompt) <= LONG_TEXT else None
        return (await post(self.session, url, {"prompt": prompt}, CountReply, seconds)).count


def _check(reply: GenerateReply, body: dict[str, Any], url: str) -> None:
    """Raise PeerError unless a reply has what was asked for."""
    n, ids = body.get("n") or 1, reply.token_ids
    found = {len(reply.texts), len(reply.reasons), len(reply.completion_tokens)}
    if found | {len(one) for one in (ids, reply.told) if one is not None} != {n}:
        raise PeerError("malformed", f"{url} was asked for {n} texts and sent {len(reply.texts)}")
    if "abort" in reply.reasons:
        raise PeerError("server", f"{url} gave the answer up", said="the worker gave the answer up")


class Workers:
    """The workers of one model, each known from when it is first named."""

    def __init__(self, session: aiohttp.ClientSession, controller: str, model: str):
        self._session = session
        self._controller = controller
        self._model = model
        self._known: dict[str, Worker] = {}
        """Every worker ever named: one that comes back still holds what it held."""
        self._asked_at = -math.inf
        self._trouble: PeerError | None = None
        """Why the last look-up found nobody."""
        self._tasks: dict[tuple[str, ...], asyncio.Task[None]] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()

    def close(self) -> None:
        for task in list(self._tasks.values()):
            task.cancel()

    async def acquire(self) -> Worker:
        """The worker that holds the fewest of our requests; waits while all of them are full.

        Of several such workers it is the one that was asked longest ago. PeerError if no worker of
        the model can be asked.
        """
        waited = False
        while True:
            await self._some_alive()
            now = time.monotonic()
            free = [worker for worker in self._alive() if worker.in_flight < worker.limit]
            if free:
                chosen = min(free, key=lambda w: (now - w.failed_at < REST, w.in_flight, w.used_at))
                chosen.used_at = now
                chosen.in_flight += 1
                return chosen
            await self._wait_for_room(first=waited)
            waited = True

    def release(self, worker: Worker) -> None:
        worker.in_flight -= 1
        self._wake()

    def failed(self, worker: Worker, error: PeerError) -> None:
        if error.kind in FAILED:
            worker.failed_at = time.monotonic()
        if error.kind in GONE:
            worker.seen_at, worker.error = -math.inf, error
            self._asked_at = -math.inf

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

    def _alive(self) -> list[Worker]:
        """The workers that may get a request."""
        oldest = time.monotonic() - 2 * CHECK_AFTER
        return [worker for worker in self._known.values() if worker.seen_at >= oldest]

    async def _some_alive(self) -> None:
        """See to what is due; wait for it only where no worker is known to be alive."""
        now = time.monotonic()
        unseen = [w for w in self._known.values() if -math.inf < w.seen_at < now - CHECK_AFTER]
        tasks = {self._once(self._check, worker.address) for worker in unseen}
        if not self._alive() or now - self._asked_at >= LOOK_UP_EVERY:
            tasks.add(self._once(self._look_up))
        if self._alive():
            return
        await asyncio.wait(tasks, timeout=TOGETHER)
        while not self._alive() and (others := set(self._tasks.values())):
            await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
        if not self._alive():
            nobody = f"the controller at {self._controller} has no worker of {self._model}"
            raise self._trouble or PeerError("no_worker", nobody)

    def _once(
        self, work: Callable[..., Coroutine[Any, Any, None]], *about: str
    ) -> asyncio.Task[None]:
        """The task that does some work; the same for all that want it while it runs.

        A request that is given up does not end it: others may wait for it too.
        """
        key = (work.__name__, *about)
        if key not in self._tasks:
            task = self._tasks[key] = asyncio.create_task(work(*about))
            task.add_done_callback(lambda _: self._tasks.pop(key))
        return self._tasks[key]

    async def _look_up(self) -> None:
        """Ask the controller for the model's workers until it names no new one."""
        self._asked_at = time.monotonic()
        self._trouble = None
        url, body = f"{self._controller}/get_worker_address", {"model": self._model}
        headers = controller_headers()
        named: dict[str, asyncio.Task[None] | None] = {}
        repeated = 0
        try:
            while repeated < ASKS:
                asked = post(self._session, url, body, WorkerAddress, CONTROL_SECONDS, headers)
                address = (await asked).address
                if not address:
                    break
                repeated += 1
                worker = self._known.setdefault(address, Worker(address))
                if worker.seen_at > -math.inf:
                    worker.seen_at = time.monotonic()
                if address not in named:
                    repeated = 0
                    is_new = worker.seen_at == -math.inf
                    named[address] = self._once(self._check, address) if is_new else None
        except PeerError as error:
            self._trouble = error
            if self._alive():
                log.warning("%s; going on with the workers that are known", error)
        if checks := [task for task in named.values() if task]:
            await asyncio.wait(checks)
        errors = [self._known[address].error for address in named]
        self._trouble = self._trouble or next(filter(None, errors), None)

    async def _check(self, address: str) -> None:
        """Ask a worker what it serves and takes; one that does not serve the model is left."""
        worker, url = self._known[address], f"{address}/worker_get_status"
        try:
            status = await post(self._session, url, {}, WorkerStatus, CONTROL_SECONDS)
            if "messages" not in status.extensions:
                raise PeerError("bad_request", _STOCK.format(address, self._model))
            if self._model not in status.model_names:
                served = ", ".join(status.model_names) or "nothing"
                raise PeerError("no_worker", f"{address} serves {served}, not {self._model}")
        except PeerError as error:
            worker.seen_at, worker.error = -math.inf, error
            return
        worker.limit = status.limit or LIMIT
        worker.context_length = status.context_length
        worker.seen_at, worker.error = time.monotonic(), None
        self._wake(worker.limit - worker.in_flight)
