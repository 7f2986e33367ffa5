"""Keeps the list of model workers and tells clients where a model is served.

    python -m fastchat.serve.controller
    python -m fastchat.serve.controller --host 0.0.0.0 --port 21001 --dispatch-method lottery

Workers register and send heartbeats; clients ask for a worker's address, or let the controller
pass a stream through. One event loop serves everything: no thread per request, no torch.
"""

import argparse
import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse

from fastchat.client.http import PeerError, accepts, frames, open_session, post, was_refused
from fastchat.constants import (
    CONTROLLER_PORT,
    TOKEN_VARIABLE,
    ErrorCode,
    RequestError,
    heart_beat_expiration,
    worker_timeout,
)
from fastchat.protocol.controller_protocol import (
    HeartBeat,
    ModelRequest,
    RegisterRequest,
    WorkerStatus,
)
from fastchat.serve.commands import ELSEWHERE, add_address, refusals
from fastchat.serve.http import frame, new_app, reads, received
from fastchat.serve.prometheus import HUNG_UP, Metrics
from fastchat.serve.worker_registry import DispatchMethod, WorkerRegistry, add_dispatch_method
from fastchat.utils import Parser, build_logger, listen, serve, tell_if_open, url_of

logger = build_logger("controller")

_STATUS_SECONDS = 5.0


class Controller:
    """The registry, and the requests that the controller itself makes to workers."""

    session: aiohttp.ClientSession
    """Of the loop that serves."""

    def __init__(self, dispatch_method: DispatchMethod):
        self.registry = WorkerRegistry(dispatch_method)
        self.streams = 0
        self.metrics = Metrics("controller", tokens=False)
        read, registry = self.metrics.read, self.registry
        read("workers", "Workers that are registered", lambda: len(registry.workers))
        read("queue_length", "Requests the workers hold", lambda: registry.total().queue_length)
        read("streams", "Streams that are passed through", lambda: self.streams)

    async def register(self, request: RegisterRequest) -> None:
        """Enter a worker; one that sends no status is asked for it, RequestError if in vain."""
        status = request.worker_status or await self.ask_status(request.worker_name)
        if status is None:
            said = f"{request.worker_name} does not answer /worker_get_status"
            raise RequestError(ErrorCode.CONTROLLER_WORKER_TIMEOUT, said)
        self.registry.add(request, status)
        logger.info("registered %s: %s", request.worker_name, ", ".join(status.model_names))

    async def ask_status(self, name: str) -> WorkerStatus | None:
        """What a worker says about itself, None if it does not answer."""
        url = f"{name}/worker_get_status"
        try:
            return await post(self.session, url, {}, WorkerStatus, _STATUS_SECONDS)
        except PeerError as error:
            logger.warning("no status: %s", error)
            return None

    async def refresh(self) -> None:
        """Ask every worker for its status; those that do not answer are out."""
        names = list(self.registry.workers)
        statuses = await asyncio.gather(*map(self.ask_status, names))
        for name, status in zip(names, statuses, strict=True):
            info = self.registry.workers.get(name)
            if status is None:
                self.drop(name, "does not answer")
            elif info is not None:
                info.status = status

    async def address(self, model: str) -> str:
        """The URL of a worker that accepts connections, "" if no worker serves the model."""
        while name := self.registry.choose(model):
            if await accepts(name):
                return name
            self.drop(name, "refuses connections")
        return ""

    def drop(self, name: str, why: str) -> None:
        if self.registry.remove(name):
            logger.warning("removed %s: it %s", name, why)

    async def watch(self, expiration: float) -> None:
        """Remove workers that fell silent, for ever."""
        while True:
            await asyncio.sleep(min(1.0, expiration / 4))
            for name in self.registry.remove_silent(expiration):
                logger.warning("removed %s: no heartbeat for %g s", name, expiration)

    async def stream(self, model: str, body: bytes) -> AsyncGenerator[bytes, None]:
        """Pass a worker's stream through, whole frames only; one error frame if it fails.

        A worker that refuses the connection is out and the next one is tried: nothing was sent.
        """
        code: int | str = HUNG_UP
        self.streams += 1
        try:
            while name := self.registry.choose(model):
                try:
                    url = f"{name}/worker_generate_stream"
                    async with contextlib.aclosing(frames(self.session, url, body)) as parts:
                        async for part in parts:
                            yield part
                    code = 0
                    return
                except PeerError as error:
                    if not was_refused(error):
                        said = f"the worker {name} stopped answering ({error})"
                        logger.warning("%s", said)
                        failure = RequestError(ErrorCode.CONTROLLER_WORKER_TIMEOUT, said)
                        break
                    self.drop(name, "refuses connections")
            else:
                served = ", ".join(self.registry.models()) or "-"
                said = f"no worker serves {model!r}; served: {served}"
                failure = RequestError(ErrorCode.CONTROLLER_NO_WORKER, said)
            code = int(failure.code)
            yield frame(failure.reply())
        finally:
            self.streams -= 1
            self.metrics.count_request("/worker_generate_stream", code)


def create_app(dispatch_method: DispatchMethod = "shortest_queue") -> FastAPI:
    controller = Controller(dispatch_method)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        async with open_session(worker_timeout()) as controller.session:
            watch = asyncio.create_task(controller.watch(heart_beat_expiration()))
            yield
            watch.cancel()

    token = os.environ.get(TOKEN_VARIABLE, "")
    app = new_app("RISE controller", lifespan, logger, status=400, token=token)
    controller.metrics.add_route(app)
    _add_worker_routes(app, controller)
    _add_client_routes(app, controller)
    return app


def _add_worker_routes(app: FastAPI, controller: Controller) -> None:
    """What workers call, and what lists them."""
    registry = controller.registry

    @app.post("/register_worker", **reads(RegisterRequest))
    async def register_worker(request: Request) -> None:
        await controller.register(await received(RegisterRequest, request))

    @app.post("/receive_heart_beat", **reads(HeartBeat))
    async def receive_heart_beat(request: Request) -> dict[str, bool]:
        beat = await received(HeartBeat, request)
        return {"exist": registry.heart_beat(beat.worker_name, beat.queue_length)}

    @app.post("/refresh_all_workers")
    async def refresh_all_workers() -> None:
        await controller.refresh()

    @app.post("/list_models")
    async def list_models() -> dict[str, list[str]]:
        return {"models": registry.models()}

    @app.post("/list_language_models")
    async def list_language_models() -> dict[str, list[str]]:
        return {"models": registry.models(multimodal=False)}

    @app.post("/list_multimodal_models")
    async def list_multimodal_models() -> dict[str, list[str]]:
        return {"models": registry.models(multimodal=True)}


def _add_client_routes(app: FastAPI, controller: Controller) -> None:
    """How clients reach a worker; a controller looks like one to a controller above it."""

    @app.post("/get_worker_address", **reads(ModelRequest))
    async def get_worker_address(request: Request) -> dict[str, str]:
        wanted = await received(ModelRequest, request)
        address = await controller.address(wanted.model)
        code = 0 if address else ErrorCode.CONTROLLER_NO_WORKER
        controller.metrics.count_request("/get_worker_address", int(code))
        return {"address": address}

    @app.post("/worker_get_status")
    async def worker_get_status() -> dict[str, Any]:
        return controller.registry.total().model_dump(exclude_unset=True)

    @app.get("/test_connection")
    async def test_connection() -> str:
        return "success"

    @app.post("/worker_generate_stream", **reads(ModelRequest))
    async def worker_generate_stream(request: Request) -> Response:
        try:
            wanted = await received(ModelRequest, request)
        except RequestError as error:
            controller.metrics.count_request("/worker_generate_stream", int(error.code))
            return Response(frame(error.reply()))
        return StreamingResponse(controller.stream(wanted.model, await request.body()))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(ELSEWHERE, description=__doc__.splitlines()[0])
    add_address(parser, CONTROLLER_PORT)
    add_dispatch_method(parser)
    return parser.read(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with refusals(args):
        heart_beat_expiration(), worker_timeout()
        sock = listen(args.host, args.port)
    logger.info("listening on %s (%s)", url_of(args.host, sock), args.dispatch_method)
    if not os.environ.get(TOKEN_VARIABLE):
        tell_if_open(args.host, logger, f"set {TOKEN_VARIABLE} here and where it is asked")
    serve(create_app(args.dispatch_method), sock)


if __name__ == "__main__":
    main()
