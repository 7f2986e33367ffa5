"""How the OpenAI server finds workers, and how it does without those that hang or are gone.

python -m pytest tests/unit/fastchat/serve/openai/test_workers.py
"""

import asyncio
import time
from types import SimpleNamespace

import pytest
import requests
from fastapi import FastAPI

from fastchat.serve import controller
from fastchat.serve.openai import workers as openai_workers
from fastchat.serve.openai.errors import ApiError
from fastchat.serve.openai.workers import Workers
from fastchat.serve.openai_api_server import create_app
from tests.support.fake_workers import HANG, enter, fake_workers
from tests.support.servers import running


@pytest.fixture
def served():
    """(application of the workers, their URL, the URL of a real controller)"""
    app = fake_workers()
    with running(app) as workers_url, running(controller.create_app()) as controller_url:
        yield app, workers_url, controller_url


@pytest.fixture
def clock(monkeypatch):
    """What the OpenAI server takes for the time; a test sets `now`."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(openai_workers, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def with_workers(controller_url, use, silence=HANG):
    """What `use(workers)` returns."""

    async def run():
        workers = Workers(controller_url, silence)
        await workers.start()
        try:
            return await use(workers)
        finally:
            await workers.close()

    return asyncio.run(run())


async def background():
    """Wait for what the workers' picks set going."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others)


async def pick_and_hold(workers, model):
    """The address of a picked worker, which has one request more from now on."""
    worker = await workers.pick(model)
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
        return {"model_names": ["m"], "extensions": ["messages"]}

    @app.post("/model_details")
    async def model_details():
        return {"context_length": 99}

    return app


def test_a_controller_that_hangs_holds_up_no_request_of_a_known_model(clock):
    app = controller_that_hangs_after(1)

    async def ask(workers):
        known, began, others = await workers.pick("m"), time.monotonic(), []
        # Ten minutes: the worker has to say by itself that it is alive.
        for _ in range(30):
            clock.now += 20
            others.append(await workers.pick("m"))
        return known, others, time.monotonic() - began

    with running(app) as url:
        app.state.url = url
        known, others, seconds = with_workers(url, ask)
    assert known.context_length == 99 and all(worker is known for worker in others)
    assert seconds < 8


def test_a_worker_that_hangs_holds_up_its_own_model_only_and_not_for_long(served, monkeypatch):
    monkeypatch.setattr(openai_workers, "_QUESTION_SECONDS", 2.0)
    app, workers_url, controller_url = served
    app.state.hung.add(("slow", 0))
    for model in ("slow", "good"):
        enter(controller_url, workers_url, model, 0)

    async def ask(workers):
        began = time.monotonic()
        held = asyncio.create_task(workers.pick("slow"))
        while not app.state.asked:
            await asyncio.sleep(0.01)
        await workers.pick("good")
        waiting = not held.done()
        with pytest.raises(ApiError) as refused:
            await held
        return waiting, refused.value.status, time.monotonic() - began

    waiting, status, seconds = with_workers(controller_url, ask, silence=20)
    assert waiting and status == 503 and seconds < 10


def test_requests_wait_together_for_a_worker_that_hangs(served, monkeypatch):
    monkeypatch.setattr(openai_workers, "_QUESTION_SECONDS", 2.0)
    app, workers_url, controller_url = served
    app.state.hung.add(("slow", 0))
    enter(controller_url, workers_url, "slow", 0)

    async def ask(workers):
        began = time.monotonic()
        picks = [workers.pick("slow") for _ in range(20)]
        errors = await asyncio.gather(*picks, return_exceptions=True)
        return errors, time.monotonic() - began

    errors, seconds = with_workers(controller_url, ask, silence=2)
    assert [error.status for error in errors] == [503] * 20 and seconds < 10


def test_the_list_of_models_waits_for_all_that_hang_at_the_same_time(served, monkeypatch):
    monkeypatch.setattr(openai_workers, "_QUESTION_SECONDS", 2.0)
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

    async def ask(workers):
        found = set()
        for step in range(300):
            clock.now += 0.05
            await pick_and_hold(workers, "busy")
            if step % 30 == 7:
                found.add(await pick_and_hold(workers, "quiet"))
        return found

    assert len(with_workers(controller_url, ask)) == 4


def test_many_workers_are_all_used_however_seldom_the_controller_names_each(served, clock):
    _, workers_url, controller_url = served
    for number in range(80):
        enter(controller_url, workers_url, "m", number)

    async def ask(workers):
        for _ in range(250):
            clock.now += 1.0
            await pick_and_hold(workers, "m")
        # A burst: no time to look for more of them.
        return {await pick_and_hold(workers, "m") for _ in range(160)}

    assert len(with_workers(controller_url, ask)) == 80


@pytest.mark.parametrize("fate", ["hangs", "serves another model", "lives"])
def test_a_worker_that_is_not_named_is_asked_before_it_is_forgotten(
    served, clock, monkeypatch, fate
):
    monkeypatch.setattr(openai_workers, "_QUESTION_SECONDS", 1.0)
    app, workers_url, controller_url = served
    enter(controller_url, workers_url, "m", 0)

    async def ask(workers):
        worker = await workers.pick("m")
        # From here on the controller names no worker of the model.
        enter(controller_url, workers_url, "m", 0, served="other")
        if fate == "hangs":
            app.state.hung.add(("m", 0))
        if fate == "serves another model":
            app.state.renamed["m"] = "other"
        for _ in range(10):
            clock.now += 20.0
            assert await workers.pick("m") is worker
            await background()

    if fate == "lives":
        with_workers(controller_url, ask)
    else:
        with pytest.raises(ApiError, match="'m' does not exist here; served: other"):
            with_workers(controller_url, ask)


def test_names_that_nobody_serves_leave_nothing_behind(served):
    _, workers_url, controller_url = served
    enter(controller_url, workers_url, "m", 0)

    async def ask(workers):
        await workers.pick("m")
        await background()
        before = {name: len(held) for name, held in vars(workers).items() if hasattr(held, "keys")}
        for number in range(5):
            with pytest.raises(ApiError):
                await workers.pick(f"no model {number}")
        await background()
        return before, {name: len(vars(workers)[name]) for name in before}

    before, after = with_workers(controller_url, ask)
    assert before == after
