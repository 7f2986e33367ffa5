"""How clients find the workers of a model, and do without those that hang or are gone.

python -m pytest tests/unit/fastchat/client/test_workers.py
"""

import asyncio
import time
from types import SimpleNamespace

import pytest
import requests
from fastapi import FastAPI

from fastchat.client import workers as client_workers
from fastchat.client.http import PeerError
from fastchat.client.workers import ASKS, Cluster
from fastchat.serve import controller
from fastchat.serve.openai_api_server import create_app
from tests.support.fake_workers import EVERYWHERE, HANG, enter, fake_workers
from tests.support.servers import running


@pytest.fixture
def served():
    """(application of the workers, their URL, the URL of a real controller)"""
    app = fake_workers()
    control = controller.create_app()
    with running(app, host=EVERYWHERE) as workers_url, running(control) as controller_url:
        yield app, workers_url, controller_url


@pytest.fixture
def clock(monkeypatch):
    """What the client takes for the time; a test sets `now`."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(client_workers, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def with_cluster(controller_url, use, silence=HANG):
    """What `use(cluster)` returns."""

    async def run():
        cluster = Cluster(controller_url, silence)
        try:
            return await use(cluster)
        finally:
            await cluster.close()

    return asyncio.run(run())


async def background():
    """Wait for what requests set going."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others)


async def pick(cluster, model):
    """The worker that a request would go to."""
    async with cluster.hold(model) as worker:
        return worker


async def pick_and_hold(cluster, model):
    """The address of a picked worker, which has one request more from now on."""
    worker = await pick(cluster, model)
    worker.in_flight += 1
    await background()
    return worker.address


def controller_that_hangs_after(answers):
    """Controller and worker in one, which gives the worker's address so many times."""
    app = FastAPI()
    app.state.asked = 0

    @app.post("/get_worker_address")
    async def get_worker_address():
        app.state.asked += 1
        if app.state.asked > answers:
            await asyncio.sleep(HANG)
        return {"address": app.state.url}

    @app.post("/worker_get_status")
    async def worker_get_status():
        return {"model_names": ["m"], "extensions": ["messages"], "context_length": 99}

    return app


def test_a_controller_that_hangs_holds_up_no_request_of_a_known_model(clock):
    app = controller_that_hangs_after(1 + ASKS)

    async def ask(cluster):
        known, began, others = await pick(cluster, "m"), time.monotonic(), []
        # Ten minutes: the worker has to say by itself that it is alive.
        for _ in range(30):
            clock.now += 20
            others.append(await pick(cluster, "m"))
        return known, others, time.monotonic() - began

    with running(app) as url:
        app.state.url = url
        known, others, seconds = with_cluster(url, ask)
    assert known.context_length == 99 and all(worker is known for worker in others)
    assert seconds < 8


def test_a_worker_that_hangs_holds_up_its_own_model_only_and_not_for_long(served, monkeypatch):
    monkeypatch.setattr(client_workers, "CONTROL_SECONDS", 2.0)
    app, workers_url, controller_url = served
    app.state.hung.add(("slow", 0))
    for model in ("slow", "good"):
        enter(controller_url, workers_url, model, 0)

    async def ask(cluster):
        began = time.monotonic()
        held = [asyncio.create_task(pick(cluster, "slow")) for _ in range(20)]
        while not app.state.asked:
            await asyncio.sleep(0.01)
        await pick(cluster, "good")
        waiting = not any(task.done() for task in held)
        errors = await asyncio.gather(*held, return_exceptions=True)
        return waiting, errors, time.monotonic() - began

    waiting, errors, seconds = with_cluster(controller_url, ask, silence=20)
    assert waiting and [error.kind for error in errors] == ["timeout"] * 20 and seconds < 10


def test_the_list_of_models_waits_for_all_that_hang_at_the_same_time(served, monkeypatch):
    monkeypatch.setattr(client_workers, "CONTROL_SECONDS", 2.0)
    app, workers_url, controller_url = served
    slow = ["slow1", "slow2", "slow3", "slow4"]
    app.state.hung |= {(model, 0) for model in slow}
    for model in [*slow, "good"]:
        enter(controller_url, workers_url, model, 0)
    with running(create_app(controller_url, silence=20)) as url:
        began = time.monotonic()
        cards = requests.get(f"{url}/v1/models", timeout=200).json()["data"]
        seconds = time.monotonic() - began
    lengths = {card["id"]: card.get("max_model_len") for card in cards}
    assert lengths == {**dict.fromkeys(slow), "good": 99} and seconds < 7


def test_a_busy_model_leaves_the_look_ups_of_a_quiet_one_alone(served, clock):
    _, workers_url, controller_url = served
    for number in range(4):
        enter(controller_url, workers_url, "busy", number)
        enter(controller_url, workers_url, "quiet", number)

    async def ask(cluster):
        found = set()
        for step in range(300):
            clock.now += 0.05
            await pick_and_hold(cluster, "busy")
            if step % 30 == 7:
                found.add(await pick_and_hold(cluster, "quiet"))
        return found

    assert len(with_cluster(controller_url, ask)) == 4


def test_many_workers_are_all_used_however_seldom_the_controller_names_each(served, clock):
    _, workers_url, controller_url = served
    for number in range(80):
        enter(controller_url, workers_url, "m", number)

    async def ask(cluster):
        for _ in range(250):
            clock.now += 1.0
            await pick_and_hold(cluster, "m")
        # A burst: no time to look for more of them.
        return {await pick_and_hold(cluster, "m") for _ in range(160)}

    assert len(with_cluster(controller_url, ask)) == 80


@pytest.mark.parametrize("fate", ["hangs", "serves another model", "lives"])
def test_a_worker_that_is_not_named_is_asked_before_it_is_forgotten(
    served, clock, monkeypatch, fate
):
    monkeypatch.setattr(client_workers, "CONTROL_SECONDS", 1.0)
    app, workers_url, controller_url = served
    enter(controller_url, workers_url, "m", 0)

    async def ask(cluster):
        worker = await pick(cluster, "m")
        # From here on the controller names no worker of the model.
        enter(controller_url, workers_url, "m", 0, served="other")
        if fate == "hangs":
            app.state.hung.add(("m", 0))
        if fate == "serves another model":
            app.state.renamed["m"] = "other"
        for _ in range(10):
            clock.now += 20.0
            assert await pick(cluster, "m") is worker
            await background()

    if fate == "lives":
        with_cluster(controller_url, ask)
    else:
        with pytest.raises(PeerError, match="has no worker of m"):
            with_cluster(controller_url, ask)


def test_names_that_nobody_serves_leave_nothing_behind(served):
    _, workers_url, controller_url = served
    enter(controller_url, workers_url, "m", 0)

    async def ask(cluster):
        await pick(cluster, "m")
        await background()
        before = {name: len(held) for name, held in vars(cluster).items() if hasattr(held, "keys")}
        for number in range(5):
            with pytest.raises(PeerError):
                await pick(cluster, f"no model {number}")
        await background()
        return before, {name: len(vars(cluster)[name]) for name in before}

    before, after = with_cluster(controller_url, ask)
    assert before == after
