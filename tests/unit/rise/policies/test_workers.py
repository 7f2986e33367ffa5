"""Several workers of one model: who is asked, who is left, and that no request is lost.

pytest tests/unit/rise/policies/test_workers.py
"""

import asyncio
import contextlib
import time
from email.utils import formatdate

import pytest
from aiohttp import web

from fastchat.client import workers as pool
from fastchat.client.http import seconds_to_wait
from fastchat.serve.controller import create_app as create_controller
from rise.policies.policy import Retries
from rise.policies.worker import WorkerPolicy
from tests.support.scripted_servers import Wire, wire_reply
from tests.support.servers import post, running

MESSAGES = [{"role": "user", "content": "1+1?"}]
SETTINGS = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 4, "problem": {}}
QUICK = Retries(attempts=4, timeouts=2, first_wait=0.001)


class Fake(Wire):
    """A worker that takes `limit` requests and counts those in flight."""

    def __init__(self, answer, limit=100, seconds=0.0):
        super().__init__(answer)
        self.limit, self.seconds = limit, seconds
        self.in_flight = self.most_in_flight = 0

    async def _generate(self, request):
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.seconds)
            return await super()._generate(request)
        finally:
            self.in_flight -= 1


class Controller(Wire):
    """Names the given workers in turn."""

    def __init__(self, *workers):
        super().__init__(lambda _: None)
        self.workers = list(workers)

    async def _address(self, request):
        self.paths.append(request.path)
        worker = self.workers[len(self.paths) % len(self.workers)]
        return web.json_response({"address": worker.url})


def answer(_):
    return wire_reply("fine")


def ask(policy, times, lanes):
    """Ask `times` times, `lanes` at a time, and return all texts."""

    async def run():
        waiting = iter(range(times))
        texts = []

        async def lane():
            for i in waiting:
                [sample] = await policy.sample(MESSAGES, n=1, seed=i, **SETTINGS)
                texts.append(sample.text)

        try:
            await asyncio.gather(*(lane() for _ in range(lanes)))
        finally:
            await policy.close()
        return texts

    return asyncio.run(run())


@contextlib.contextmanager
def fakes(*workers):
    """Starts the workers and a controller that names them; yields the controller."""
    with contextlib.ExitStack() as stack:
        for worker in workers:
            stack.enter_context(worker)
        yield stack.enter_context(Controller(*workers))


@pytest.mark.parametrize("method", ["shortest_queue", "lottery"])
def test_three_workers_get_even_shares(method, monkeypatch):
    # The lottery may take more than one look-up to name everybody.
    monkeypatch.setattr(pool, "LOOK_UP_EVERY", 0.02)
    with running(create_controller(method)) as controller, contextlib.ExitStack() as stack:
        three = [stack.enter_context(Fake(answer, seconds=0.01)) for _ in range(3)]
        for worker in three:
            status = {"model_names": ["student"], "speed": 1, "queue_length": 0}
            body = {"worker_name": worker.url, "worker_status": status, "check_heart_beat": False}
            post(f"{controller}/register_worker", body)
        assert len(ask(WorkerPolicy("student", controller, retries=QUICK), 60, 6)) == 60
    assert sum(len(worker.requests) for worker in three) == 60
    assert min(len(worker.requests) for worker in three) >= 12


class Dying(Fake):
    """Breaks off every connection after its fifth request, and refuses new ones."""

    broken_off = 0

    async def _generate(self, request):
        if len(self.requests) < 5:
            return await super()._generate(request)
        self.broken_off += 1
        for site in list(self._runner.sites):
            await site.stop()
        request.transport.abort()
        return web.Response()


def test_a_worker_that_dies_is_left_and_no_request_is_lost():
    # The controller goes on naming it, as it does until the heartbeats expire.
    dying, living = Dying(answer, seconds=0.01), Fake(answer, seconds=0.01)
    with fakes(dying, living) as controller:
        texts = ask(WorkerPolicy("student", controller.url, retries=QUICK), 60, 10)
    assert texts == ["fine"] * 60
    assert 1 <= dying.broken_off <= 10  # those that were on their way; none came later
    assert len(dying.requests) + len(living.requests) == 60


def test_a_worker_that_refuses_at_once_does_not_draw_all_requests():
    broken, good = Fake(lambda _: web.Response(status=500)), Fake(answer, seconds=0.005)
    with fakes(broken, good) as controller:
        texts = ask(WorkerPolicy("student", controller.url, retries=QUICK), 40, 8)
    assert texts == ["fine"] * 40
    assert len(broken.requests) <= 8


def test_no_worker_holds_more_requests_than_it_takes():
    small, large = Fake(answer, limit=2, seconds=0.01), Fake(answer, limit=5, seconds=0.01)
    with fakes(small, large) as controller:
        assert len(ask(WorkerPolicy("student", controller.url), 60, 30)) == 60
    assert (small.most_in_flight, large.most_in_flight) == (2, 5)


class Slow(Fake):
    """Answers when `other` has had that many requests."""

    async def _generate(self, request):
        while len(self.other.requests) < self.answers_after:
            await asyncio.sleep(0.01)
        return await super()._generate(request)


def test_what_waits_goes_to_whoever_has_room_first():
    slow, fast = Slow(answer, limit=1), Fake(answer, limit=1)
    slow.other, slow.answers_after = fast, 11
    with fakes(slow, fast) as controller:
        policy = WorkerPolicy("student", controller.url, request_timeout=60)
        assert len(ask(policy, 12, 12)) == 12
    assert len(slow.requests) == 1


def test_a_cancelled_request_makes_room():
    with fakes(Fake(answer, limit=1, seconds=0.2)) as controller:
        policy = WorkerPolicy("student", controller.url)

        async def run():
            tasks = [
                asyncio.create_task(policy.sample(MESSAGES, n=1, seed=i, **SETTINGS))
                for i in range(3)
            ]
            await asyncio.sleep(0.1)
            tasks[0].cancel()  # at the worker
            tasks[1].cancel()  # waiting for it
            [sample] = await asyncio.wait_for(tasks[2], 5)
            await policy.close()
            return sample.text

        assert asyncio.run(run()) == "fine"


@pytest.mark.parametrize("as_date", [False, True])
def test_an_overloaded_worker_is_left_alone_as_long_as_it_asks_for(as_date):
    times = []

    def busy(_):
        times.append(time.monotonic())
        if len(times) > 1:
            return wire_reply("fine")
        wait = formatdate(time.time() + 2, usegmt=True) if as_date else "0.4"
        return web.Response(status=429, headers={"Retry-After": wait})

    with fakes(Fake(busy)) as controller:
        assert ask(WorkerPolicy("student", controller.url, retries=QUICK), 1, 1) == ["fine"]
    assert times[1] - times[0] >= (0.9 if as_date else 0.4)


def test_a_date_that_is_none_is_no_wait():
    assert seconds_to_wait({"Retry-After": "soon"}) is None
    assert seconds_to_wait({}) is None and seconds_to_wait({"Retry-After": "nan"}) is None
    assert seconds_to_wait({"Retry-After": formatdate(0)}) == 0.0
