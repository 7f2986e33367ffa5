"""Serves the workers of a controller to clients of the OpenAI API.

    python -m fastchat.serve.openai_api_server
    FASTCHAT_API_KEYS=secret python -m fastchat.serve.openai_api_server --host 0.0.0.0 --port 8000

GET /v1/models, POST /v1/chat/completions and /v1/completions, streamed or not; no embeddings. The
controller is asked for the address of a worker, and the request goes straight to it. No torch.
"""

import argparse
import asyncio
import contextlib
import hashlib
import hmac
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from fastchat.client.http import PeerError
from fastchat.client.workers import Cluster
from fastchat.constants import RequestError
from fastchat.protocol.openai_api_protocol import ChatRequest, CompletionRequest
from fastchat.serve.commands import ELSEWHERE, add_address, add_controller, refusals
from fastchat.serve.http import AsciiJSON, Bodies, read_body, reads
from fastchat.serve.openai.answers import Answers
from fastchat.serve.openai.errors import ApiError, from_worker, parse
from fastchat.serve.openai.requests import DEFAULT_MAX_TOKENS, served
from fastchat.utils import Parser, build_logger, listen, positive_int, serve, tell_if_open, url_of

logger = build_logger("openai_api_server")

KEYS_VARIABLE = "FASTCHAT_API_KEYS"
"""Names the environment variable with API keys, separated by commas."""
_PORT = 8000
_WORKER_SECONDS = 600


def create_app(
    controller: str,
    keys: list[str] | None = None,
    silence: float = _WORKER_SECONDS,
    default_max_tokens: int = DEFAULT_MAX_TOKENS,
) -> FastAPI:
    """The server as an ASGI application.

    One of the `keys` must come with every request; without any, none is asked for. A worker may
    send nothing for `silence` seconds.
    """
    cluster = Cluster(controller, silence)
    answers = Answers(cluster, default_max_tokens)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await cluster.close()

    title = "RISE OpenAI-compatible server"
    app = FastAPI(title=title, lifespan=lifespan, default_response_class=AsciiJSON)
    said = lambda status, error: ApiError(status, str(error)).body()  # noqa: E731
    app.add_middleware(Bodies, logger=logger, reply=said)
    answers.metrics.add_route(app)
    _add_error_handlers(app)
    _add_routes(app, cluster, answers, Depends(_key_check(keys or [])))
    return app


def _add_routes(app: FastAPI, cluster: Cluster, answers: Answers, with_key: Any) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models", dependencies=[with_key])
    async def models() -> dict[str, Any]:
        names = await served(cluster)
        cards = await asyncio.gather(*(_card(cluster, name) for name in names))
        return {"object": "list", "data": cards}

    @app.get("/v1/models/{name:path}", dependencies=[with_key])
    async def model(name: str) -> dict[str, Any]:
        if name not in await served(cluster):
            text = f"the model {name!r} does not exist here"
            raise ApiError(404, text, "model_not_found", "model")
        return await _card(cluster, name)

    @app.post("/v1/chat/completions", dependencies=[with_key], **reads(ChatRequest))
    async def chat_completions(request: Request) -> Response:
        return await answers.answer(request, parse(ChatRequest, await read_body(request)))

    @app.post("/v1/completions", dependencies=[with_key], **reads(CompletionRequest))
    async def completions(request: Request) -> Response:
        return await answers.answer(request, parse(CompletionRequest, await read_body(request)))

    @app.post("/v1/embeddings", dependencies=[with_key])
    async def embeddings() -> Response:
        text = "no worker here makes embeddings, only chats and completions; ask another server"
        raise ApiError(404, text, "not_supported")


async def _card(cluster: Cluster, name: str) -> dict[str, Any]:
    """A model as OpenAI describes it, with vLLM's field for the context if a worker says it."""
    card = {"id": name, "object": "model", "created": 0, "owned_by": "fastchat"}
    with contextlib.suppress(PeerError):
        if length := await cluster.context_length(name):
            card["max_model_len"] = length
    return card


def _key_check(keys: list[str]) -> Callable[[Request], Awaitable[None]]:
    """What refuses a request without one of the keys; no time tells how much of a key was right."""
    known = [hashlib.sha256(key.encode()).digest() for key in keys]

    async def check(request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        digest = hashlib.sha256(given.strip().encode()).digest()
        right = [hmac.compare_digest(digest, key) for key in known]
        if known and not (any(right) and scheme.lower() == "bearer"):
            text = "the API key is missing or wrong; send `Authorization: Bearer KEY`"
            raise ApiError(401, text, "invalid_api_key")

    return check


def _add_error_handlers(app: FastAPI) -> None:
    def in_openais_words(request: Request, error: Exception) -> ApiError:
        if isinstance(error, ApiError):
            return error
        if isinstance(error, RequestError):
            return from_worker(error)
        if isinstance(error, HTTPException):
            here = "; here are /v1/models, /v1/chat/completions and /v1/completions"
            said = f"{request.url.path}: {error.detail}{here if error.status_code == 404 else ''}"
            return ApiError(error.status_code, said)
        return ApiError(500, f"the server failed: {type(error).__name__}")

    async def refuse(request: Request, error: Exception) -> Response:
        reply = in_openais_words(request, error)
        return AsciiJSON(reply.body(), status_code=reply.status)

    for kind in (ApiError, RequestError, HTTPException, Exception):
        app.add_exception_handler(kind, refuse)


def split_keys(text: str) -> list[str]:
    return [key.strip() for key in text.split(",") if key.strip()]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(ELSEWHERE, description=(__doc__ or "").splitlines()[0])
    add_address(parser, _PORT)
    add_controller(parser)
    add = parser.add_argument
    add(
        "--api-keys",
        type=split_keys,
        default=[],
        help="keys, separated by commas, one of which every request must bring (none); the "
        f"environment variable {KEYS_VARIABLE} adds keys that no list of processes shows",
    )
    add(
        "--worker-timeout",
        type=positive_int,
        default=_WORKER_SECONDS,
        help=f"seconds that a worker may send nothing before a request fails ({_WORKER_SECONDS})",
    )
    add(
        "--default-max-tokens",
        type=positive_int,
        default=DEFAULT_MAX_TOKENS,
        help="longest answer, in tokens, to a chat that names no length "
        f"({DEFAULT_MAX_TOKENS}, or what the context leaves)",
    )
    return parser.read(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    keys = args.api_keys + split_keys(os.environ.get(KEYS_VARIABLE, ""))
    with refusals(args):
        sock = listen(args.host, args.port)
    logger.info(
        "listening on %s/v1 (controller %s, %s)",
        url_of(args.host, sock),
        args.controller_address,
        f"{len(keys)} API keys" if keys else "no API key is asked for",
    )
    if not keys:
        tell_if_open(args.host, logger, f"ask for a key with {KEYS_VARIABLE}")
    app = create_app(args.controller_address, keys, args.worker_timeout, args.default_max_tokens)
    serve(app, sock)


if __name__ == "__main__":
    main()
