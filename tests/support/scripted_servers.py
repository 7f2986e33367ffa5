"""Servers in a thread that speak the worker protocol or OpenAI's, and fail on demand."""

import asyncio
import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from aiohttp import web

Answer = Callable[[dict[str, Any]], Any]
"""Takes the request; returns the reply as a dict, a web.Response, seconds to hang, or the pieces of
a stream, where None drops the connection."""


class Server(ABC):
    """An aiohttp application on a free port of 127.0.0.1, run by a thread of its own.

    `requests` holds the bodies that `answer` was asked for, in the order in which they came.
    """

    def __init__(self, answer: Answer):
        self.answer = answer
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @abstractmethod
    def routes(self) -> list[web.RouteDef]:
        """The addresses that a kind of server answers."""

    def __enter__(self):
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(RuntimeError):
            asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        application = web.Application()
        application.add_routes(self.routes())
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"

    async def _stop(self) -> None:
        await self._runner.cleanup()
        hanging = asyncio.all_tasks() - {asyncio.current_task()}
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        reply = self.answer(body)
        if isinstance(reply, int | float):
            await asyncio.sleep(reply)
            return web.Response(status=504)
        if isinstance(reply, list):
            stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await stream.prepare(request)
            for piece in reply:
                if piece is None:
                    request.transport.close()
                    break
                await stream.write(piece)
            return stream
        return reply if isinstance(reply, web.Response) else web.json_response(reply)


class Wire(Server):
    """A controller and a worker of the models `served`."""

    def __init__(self, answer: Answer, served: tuple[str, ...] = ("student",)):
        super().__init__(answer)
        self.served = list(served)
        self.worker_url: str | None = None
        self.limit = 256

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/list_models", self._models),
            web.post("/get_worker_address", self._address),
            web.post("/worker_get_status", self._status),
            web.post("/worker_generate", self._generate),
        ]

    async def _models(self, request: web.Request) -> web.Response:
        self.paths.append(request.path)
        return web.json_response({"models": self.served})

    async def _status(self, request: web.Request) -> web.Response:
        self.paths.append(request.path)
        status = {"model_names": self.served, "speed": 1, "queue_length": 0}
        return web.json_response({**status, "limit": self.limit, "extensions": ["messages"]})

    async def _address(self, request: web.Request) -> web.Response:
        self.paths.append(request.path)
        known = (await request.json())["model"] in self.served
        return web.json_response({"address": (self.worker_url or self.url) if known else ""})


class OpenAI(Server):
    """An OpenAI-compatible server of the models `served`; with a `context` as vLLM tells it."""

    def __init__(
        self, answer: Answer, served: tuple[str, ...] = ("teacher",), context: int | None = None
    ):
        super().__init__(answer)
        self.served = served
        self.card = {"object": "model"} | ({"max_model_len": context} if context else {})

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/models", self._models),
            web.get("/v1/models/{name}", self._model),
            web.post("/v1/chat/completions", self._generate),
        ]

    async def _models(self, request: web.Request) -> web.Response:
        data = [{"id": name, **self.card} for name in self.served]
        return web.json_response({"object": "list", "data": data})

    async def _model(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self.served:
            return web.json_response({"error": {"message": f"no model {name}"}}, status=404)
        return web.json_response({"id": name, "object": "model"})


def wire_reply(*texts: str, reason: str = "stop") -> dict[str, Any]:
    """A worker's reply with these texts; every text counts 3 tokens."""
    several = len(texts) > 1
    usage = {"prompt_tokens": 7, "completion_tokens": 3 * len(texts)}
    return {
        "text": list(texts) if several else texts[0],
        "error_code": 0,
        "usage": usage | {"total_tokens": 7 + 3 * len(texts)},
        "finish_reason": [reason] * len(texts) if several else reason,
        "completion_tokens": [3] * len(texts),
    }


def chat_reply(*texts: str | None, reason: str = "stop") -> dict[str, Any]:
    """A chat completion with these texts as choices; every text counts 3 tokens."""
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "teacher",
        "choices": [
            {"index": i, "finish_reason": reason, "message": {"role": "assistant", "content": text}}
            for i, text in enumerate(texts)
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3 * len(texts), "total_tokens": 0},
    }
