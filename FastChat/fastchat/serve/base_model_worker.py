"""What every worker shares: the endpoints, the error replies, the registration.

A kind of worker is a subclass of `BaseModelWorker` that says how to generate. Everything that goes
wrong with a request becomes a reply `{"text", "error_code"}` with HTTP status 200, as FastChat's
clients expect it; the worker itself goes on.
"""

import argparse
import asyncio
import contextlib
import logging
import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse

from fastchat.chat_templates import BUILT_IN
from fastchat.constants import (
    CHARACTERS_PER_TOKEN,
    LONG_TEXT,
    WORKER_PORT,
    ErrorCode,
    RequestError,
    heart_beat_interval,
)
from fastchat.conversation import ChatTemplate
from fastchat.model.model_adapter import base_source, load_stop_ids, load_tokenizer, resolve
from fastchat.protocol.worker_protocol import CountRequest, GenerateRequest
from fastchat.serve.commands import add_address, add_controller
from fastchat.serve.conv_style import conv_fields
from fastchat.serve.http import AsciiJSON, frame, new_app, reads, received, unless_dropped
from fastchat.serve.prometheus import HUNG_UP, Metrics
from fastchat.serve.prompts import Prompts
from fastchat.serve.registration import Registration
from fastchat.utils import WILDCARDS, listen, normal_url, positive_int, serve, tell_if_open, url_of

T = TypeVar("T")
EXTENSIONS = ["date", "messages", "n", "prompt_token_ids", "return_token_ids", "seed"]
"""Request fields that a stock FastChat worker does not know."""


class BaseModelWorker(ABC):
    """One served model behind FastChat's worker protocol.

    `limit` requests generate at the same time; more of them wait, first come first served.
    """

    context_length: int
    """The longest prompt plus answer, in tokens."""

    def __init__(
        self,
        model_names: list[str],
        limit: int,
        logger: logging.Logger,
        template: ChatTemplate | None = None,
    ):
        if template is not None:
            self.template, self.prompts = template, Prompts(template, logger)
            self._conv = conv_fields(template, model_names[0])
        self.model_names = model_names
        self.limit = limit
        self.logger = logger
        self.in_flight = 0
        self.served_by = "embedded"
        """The engine: the one here, a vLLM, or the URL of another server."""
        self.metrics = Metrics("worker")
        self.metrics.read("queue_length", "Requests held, running or not", lambda: self.in_flight)
        self._gate = asyncio.Semaphore(limit)
        # Short texts do not wait for long ones.
        self._threads = [ThreadPoolExecutor(1, name) for name in ("short-texts", "long-texts")]

    async def tokenize(self, size: int, work: Callable[..., T], *args: Any) -> T:
        """What `work(*args)` returns, computed beside the event loop from `size` characters.

        RequestError 40303 if they are more than any prompt.
        """
        longest = CHARACTERS_PER_TOKEN * self.context_length
        if size > longest:
            raise RequestError(
                ErrorCode.CONTEXT_OVERFLOW,
                f"the prompt is too long: it has {size} characters, and no more than {longest} are "
                f"tokenized for the context of {self.context_length} tokens; shorten it",
            )
        return await self.beside(size, work, *args)

    async def beside(self, size: int, work: Callable[..., T], *args: Any) -> T:
        """As `tokenize`, of a text that was accepted."""
        thread = self._threads[size > LONG_TEXT]
        return await asyncio.get_running_loop().run_in_executor(thread, work, *args)

    @abstractmethod
    def prepare(self, request: GenerateRequest) -> Any:
        """Check a request against the model before it queues; called beside the event loop.

        RequestError if it cannot be served; 40303 if it is longer than the context.
        """

    @abstractmethod
    async def generate(self, prepared: Any) -> dict[str, Any]:
        """The whole answer; cancelling the call stops the generation."""

    @abstractmethod
    def stream(self, prepared: Any) -> AsyncGenerator[dict[str, Any], None]:
        """The answer as it grows: `text` is cumulative, the last reply has a finish reason."""

    def count_tokens(self, prompt: str) -> int:
        """Tokens of a prompt string, special tokens included; called beside the event loop."""
        return len(self.prompts.template.plain_prompt_ids(prompt))

    def conv_fields(self) -> dict[str, Any]:
        """The fields of FastChat's `Conversation` for clients that build prompts themselves."""
        return self._conv

    async def close(self) -> None:  # noqa: B027 most workers hold nothing open
        """Called when the server stops."""

    def status(self) -> dict[str, Any]:
        """The body of `/worker_get_status`; the last four fields are ours."""
        return {
            "model_names": self.model_names,
            "speed": 1,
            "queue_length": self.in_flight,
            "limit": self.limit,
            "extensions": EXTENSIONS,
            "context_length": self.context_length,
            "served_by": self.served_by,
        }

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncGenerator[None, None]:
        """Wait for a place among the generating requests; the place is given back whatever ends."""
        self.in_flight += 1
        try:
            async with self._gate:
                yield
        finally:
            self.in_flight -= 1

    def failure(self, error: Exception) -> dict[str, Any]:
        if isinstance(error, RequestError):
            return error.reply()
        self.logger.error("a request failed: %s: %s", type(error).__name__, error)
        reason = f"the worker failed: {type(error).__name__}: {error}"
        return RequestError(ErrorCode.INTERNAL_ERROR, reason).reply()


def create_app(worker: BaseModelWorker, registration: Registration | None = None) -> FastAPI:
    """A worker as an ASGI application; without a registration no controller hears of it."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        task = asyncio.create_task(registration.run()) if registration else None
        yield
        if task is not None:
            task.cancel()
        await worker.close()

    app = new_app("RISE model worker", lifespan, worker.logger, status=200)
    worker.metrics.add_route(app)
    _add_generation_routes(app, worker)
    _add_description_routes(app, worker)
    return app


def _add_generation_routes(app: FastAPI, worker: BaseModelWorker) -> None:
    @app.post("/worker_generate", **reads(GenerateRequest))
    async def worker_generate(request: Request) -> Response:
        try:
            reply = await unless_dropped(request, _answer(worker, await _job(worker, request)))
        except Exception as error:
            reply = worker.failure(error)
        code = HUNG_UP if reply is None else reply["error_code"]
        worker.metrics.count_request(request.url.path, code, (reply or {}).get("usage"))
        return AsciiJSON(reply)

    @app.post("/worker_generate_stream", **reads(GenerateRequest))
    async def worker_generate_stream(request: Request) -> Response:
        try:
            job = await _job(worker, request)
        except Exception as error:
            reply = worker.failure(error)
            worker.metrics.count_request(request.url.path, reply["error_code"])
            return Response(frame(reply))
        return StreamingResponse(_frames(worker, job, request.url.path))


async def _job(worker: BaseModelWorker, request: Request) -> Any:
    wanted = await received(GenerateRequest, request)
    return await worker.tokenize(wanted.characters, worker.prepare, wanted)


async def _answer(worker: BaseModelWorker, job: Any) -> dict[str, Any]:
    async with worker.turn():
        return await worker.generate(job)


async def _frames(worker: BaseModelWorker, job: Any, path: str) -> AsyncGenerator[bytes, None]:
    """The stream of an answer; one more frame tells what went wrong."""
    code: int | str = HUNG_UP
    usage: dict[str, Any] | None = None
    try:
        async with worker.turn(), contextlib.aclosing(worker.stream(job)) as replies:
            async for reply in replies:
                yield frame(reply)
        code, usage = 0, reply.get("usage")
    except Exception as error:
        reply = worker.failure(error)
        code = reply["error_code"]
        yield frame(reply)
    finally:
        worker.metrics.count_request(path, code, usage)


def _add_description_routes(app: FastAPI, worker: BaseModelWorker) -> None:
    @app.post("/worker_get_status")
    async def worker_get_status() -> dict[str, Any]:
        return worker.status()

    @app.post("/count_token", **reads(CountRequest))
    async def count_token(request: Request) -> dict[str, int]:
        text = (await received(CountRequest, request)).prompt
        count = await worker.tokenize(len(text), worker.count_tokens, text)
        return {"count": count, "error_code": 0}

    @app.post("/worker_get_conv_template")
    async def worker_get_conv_template() -> dict[str, Any]:
        return {"conv": worker.conv_fields()}

    @app.post("/model_details")
    async def model_details() -> dict[str, int]:
        return {"context_length": worker.context_length}


def add_model_arguments(parser: argparse.ArgumentParser, whose: str) -> None:
    add = parser.add_argument
    add(
        "--model-path",
        required=True,
        help="directory of a checkpoint or of a LoRA adapter, or ORG/NAME on the hub",
    )
    add("--base-model-path", help="base model of an adapter (the one that the adapter names)")
    add(
        "--context-length",
        type=positive_int,
        help=f"longest prompt plus answer in tokens ({whose})",
    )


def add_worker_arguments(parser: argparse.ArgumentParser, counted: str) -> None:
    """The options of every kind of worker; `counted` is what its concurrency counts."""
    add_address(parser, WORKER_PORT)
    add = parser.add_argument
    add(
        "--worker-address",
        type=normal_url,
        help="URL under which controller and clients reach this worker (http://HOST:PORT)",
    )
    add_controller(parser)
    add(
        "--model-names",
        type=lambda text: [name.strip() for name in text.split(",") if name.strip()],
        help="names under which the model is served, separated by commas (the path's last part)",
    )
    add(
        "--limit-worker-concurrency",
        type=positive_int,
        default=64,
        help=f"{counted} that are generated at the same time, the others wait (64)",
    )
    add("--no-register", action="store_true", help="serve without telling a controller")
    add(
        "--conv-template",
        "--chat-template",
        help="chat template for a checkpoint without one, or instead of its own: "
        f"{', '.join(BUILT_IN)}, or a Jinja file",
    )


def template_of(args: argparse.Namespace) -> ChatTemplate:
    tokenizer = load_tokenizer(args.model_path, base=args.base_model_path)
    stop_ids = load_stop_ids(base_source(args.model_path, args.base_model_path))
    return ChatTemplate(tokenizer, args.conv_template, stop_ids)


def names_of(args: argparse.Namespace) -> list[str]:
    return args.model_names or [Path(resolve(args.model_path)).absolute().name]


def longest_of(args: argparse.Namespace, most: int, whose: str) -> int:
    """`--context-length`, or the most that `whose` has; ValueError if it is longer."""
    if args.context_length and args.context_length > most:
        raise ValueError(
            f"--context-length {args.context_length} is longer than the {whose}'s {most}; leave it "
            "out or lower it"
        )
    return args.context_length or most


def advertised_url(args: argparse.Namespace, own_url: str) -> str | None:
    """The URL to register under, None with `--no-register`.

    ValueError if the worker listens on all addresses and nobody said how to reach it.
    """
    if args.no_register:
        return None
    if args.worker_address is None and args.host in WILDCARDS:
        raise ValueError(
            f"--host {args.host} listens on every address of this machine; say with "
            "--worker-address http://NAME:PORT under which one the controller hands it out"
        )
    return args.worker_address or own_url


def take_port(args: argparse.Namespace) -> socket.socket:
    """The socket of a worker; ValueError for what is wrong, before a model is loaded."""
    sock = listen(args.host, args.port)
    advertised_url(args, url_of(args.host, sock)), heart_beat_interval()
    return sock


def run(worker: BaseModelWorker, args: argparse.Namespace, sock: socket.socket, how: str) -> None:
    """Serve until a signal ends it, known to the controller if it is to be."""
    own_url, logger = url_of(args.host, sock), worker.logger
    url, interval = advertised_url(args, own_url), heart_beat_interval()
    registration = None
    if url is not None:
        registration = Registration(args.controller_address, url, worker.status, interval, logger)
    tell_if_open(args.host, logger, "keep its port from strangers")
    logger.info(
        "serving %s on %s (%s, template: %s, context %d)",
        ", ".join(worker.model_names),
        own_url,
        how,
        worker.template.name,
        worker.context_length,
    )
    serve(create_app(worker, registration), sock)
