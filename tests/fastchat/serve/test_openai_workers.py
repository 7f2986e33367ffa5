"""How the OpenAI server finds workers while their controller does not answer.

python -m pytest tests/fastchat/serve/test_openai_workers.py
"""

import asyncio

from fastapi import FastAPI

from fastchat.serve import openai_workers
from fastchat.serve.openai_workers import Workers
from tests.fastchat.serve.servers import running


def controller_that_hangs_after(answers):
    """Controller and worker in one, which gives the worker's address so many times."""
    app = FastAPI()
    app.state.asked = 0

    @app.post("/get_worker_address")
    async def get_worker_address():
        app.state.asked += 1
        if app.state.asked > answers:
            await asyncio.sleep(60)
        return {"address": app.state.url}

    @app.post("/worker_get_status")
    async def worker_get_status():
        return {"model_names": ["m"], "extensions": ["messages"]}

    @app.post("/model_details")
    async def model_details():
        return {"context_length": 99}

    return app


def test_a_controller_that_hangs_holds_up_one_request_and_fails_none(monkeypatch):
    monkeypatch.setattr(openai_workers, "_LOOK_UP_SECONDS", 0.0)
    monkeypatch.setattr(openai_workers, "_QUESTION_SECONDS", 5.0)
    app = controller_that_hangs_after(1)

    async def ask(url):
        workers = Workers(url, 60)
        await workers.start()
        known = await workers.pick("m")
        held = asyncio.create_task(workers.pick("m"))
        while app.state.asked < 2:
            await asyncio.sleep(0.01)
        others = [await workers.pick("m") for _ in range(20)]
        waiting = not held.done()
        late = await held
        await workers.close()
        return known, others, waiting, late

    with running(app) as url:
        app.state.url = url
        known, others, waiting, late = asyncio.run(ask(url))
    assert waiting and all(worker is known for worker in (*others, late))
    assert known.context_length == 99
