"""Workers without a model, for tests of what stands in front of workers."""

import asyncio
from typing import Any

import requests
from fastapi import FastAPI, Request

from tests.support.scripted_servers import wire_reply

HANG = 60
"""Seconds that a server which hangs takes to answer."""
EVERYWHERE = "0.0.0.0"
"""What the workers listen on: each has an address of its own, 127.0.MODEL.NUMBER."""
_MODELS: list[str] = []


def fake_workers(context_length: int = 99) -> FastAPI:
    """Any number of workers, one under each address of this machine.

    `state.hung` holds (MODEL, PATH) and (MODEL, NUMBER) that are not answered, `state.renamed` the
    models under other names, and `state.asked` gets (MODEL, PATH, body) of every request.
    """
    app = FastAPI()
    app.state.hung, app.state.renamed, app.state.asked = set(), {}, []

    @app.post("/{path}")
    async def answer(path: str, request: Request) -> dict[str, Any]:
        place, last = request.url.hostname.split(".")[2:]
        model, number = _MODELS[int(place)], int(last) - 1
        app.state.asked.append((model, path, await request.json()))
        if {(model, number), (model, path)} & app.state.hung:
            await asyncio.sleep(HANG)
        names = [app.state.renamed.get(model, model)]
        return {
            "worker_get_status": {
                "model_names": names,
                "extensions": ["messages"],
                "context_length": context_length,
            },
            "count_token": {"count": 10, "error_code": 0},
            "worker_generate": wire_reply("ok"),
        }[path]

    return app


def enter(controller: str, workers: str, model: str, number: int, served: str = "") -> None:
    """Register one of the workers at a controller, under its model or another one, for good."""
    status = {"model_names": [served or model], "speed": 1, "queue_length": 0}
    if model not in _MODELS:
        _MODELS.append(model)
    port = workers.rsplit(":", 1)[1]
    name = f"http://127.0.{_MODELS.index(model)}.{number + 1}:{port}"
    body = {"worker_name": name, "worker_status": status, "check_heart_beat": False}
    requests.post(f"{controller}/register_worker", json=body, timeout=10).raise_for_status()
