"""HTTP to an OpenAI-compatible server behind a worker, and what that server can do."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from pydantic import BaseModel

from fastchat.client.http import M, open_session, pieces, read
from fastchat.constants import ErrorCode, RequestError
from fastchat.protocol.worker_protocol import AnyText, Count, Length, Logprobs, TokenId, Usage

_STATUS_CODES = {
    400: ErrorCode.VALIDATION_TYPE_ERROR,
    401: ErrorCode.INCORRECT_AUTH_KEY,
    403: ErrorCode.NO_PERMISSION,
    404: ErrorCode.INVALID_MODEL,
    422: ErrorCode.VALIDATION_TYPE_ERROR,
    429: ErrorCode.RATE_LIMIT,
    503: ErrorCode.ENGINE_OVERLOADED,
}
_SILENCE_SECONDS = 600.0
_SHOWN = 300
"""Characters of a server's reply that an error shows."""


class Choice(BaseModel):
    """One of the answers, or what a chunk of a stream adds to it."""

    index: Count | None = None
    text: AnyText | None = None
    token_ids: list[TokenId] | None = None
    logprobs: Logprobs | None = None
    finish_reason: AnyText | None = None


class Completion(BaseModel):
    """A reply to `/completions`, or a chunk of one."""

    choices: list[Choice] = []
    usage: Usage | None = None
    error: Any = None


class Card(BaseModel):
    """A model that a server lists."""

    id: AnyText
    max_model_len: Length | None = None
    """vLLM's."""


class Cards(BaseModel):
    """The reply to `/models`."""

    data: list[Card] | None = None


class UpstreamClient:
    """Requests to one server, whose URL goes up to `/v1`."""

    def __init__(self, base_url: str, key: str = ""):
        self.base_url = base_url
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(self, path: str, kind: type[M], body: dict[str, Any] | None = None) -> M:
        """One JSON answer; without a body it is a GET.

        RequestError if the server refuses the request, fails or sends no answer.
        """
        async with self._reply(path, body) as reply:
            return kind.model_validate(json.loads(await read(reply, _SILENCE_SECONDS)))

    async def events(self, path: str, body: dict[str, Any]) -> AsyncGenerator[Completion, None]:
        """The events of a stream; closing the iterator closes the connection.

        RequestError as `ask`, also in the middle of the stream.
        """
        async with self._reply(path, body) as reply:
            async for lines in pieces(reply, b"\n", _SILENCE_SECONDS):
                for line in lines.split(b"\n"):
                    data = line.removeprefix(b"data:").strip()
                    if data == line.strip() or data == b"[DONE]":
                        continue
                    event = Completion.model_validate(json.loads(data))
                    if event.error:
                        raise RequestError(ErrorCode.INTERNAL_ERROR, _message(event.error))
                    yield event

    @asynccontextmanager
    async def _reply(
        self, path: str, body: dict[str, Any] | None
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        # The session belongs to the running loop, so it is made at the first request.
        if self._session is None:
            self._session = open_session(_SILENCE_SECONDS)
        url = f"{self.base_url}{path}"
        method = "GET" if body is None else "POST"
        try:
            request = self._session.request(method, url, json=body, headers=self._headers)
            async with request as reply:
                if reply.status >= 400:
                    raise _refusal(reply.status, (await read(reply)).decode(errors="replace"))
                yield reply
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            reason = f"the server behind the worker failed: {type(error).__name__} {error}"
            raise RequestError(ErrorCode.CONTROLLER_WORKER_TIMEOUT, reason) from error
        except (ValueError, RecursionError) as error:
            said = " ".join(str(error).split())[:_SHOWN]
            raise broken(f"sent what is no answer: {said}") from error


def broken(said: str) -> RequestError:
    return RequestError(ErrorCode.INTERNAL_ERROR, f"the server behind the worker {said}")


async def explore(client: UpstreamClient, model: str, ids: list[int]) -> tuple[str, int | None]:
    """The server's name for a model, and its `max_model_len`: None where it does not say.

    If it lists one model only, that one is taken. `ids` are a short prompt to try. The client is
    closed at the end, for it belongs to the running loop.

    RequestError if the server does not answer, or the key is wrong; ValueError if it lists several
    models, and not this one, or takes no token ids.
    """
    try:
        cards = (await client.ask("/models", Cards)).data or []
        served = [card.id for card in cards]
        if model not in served and len(served) > 1:
            raise ValueError(
                f"the server serves {', '.join(served)} and not {model}; name one of them with "
                "--upstream-model"
            )
        card = next((c for c in cards if c.id == model), next(iter(cards), Card(id=model)))
        if not await _takes_ids(client, card.id, ids):
            raise ValueError(
                f"{client.base_url} does not answer token ids with the token ids of n samples, as "
                "vLLM does since 0.10.2: a model there is reached without a worker, as "
                f"{card.id}@{client.base_url}"
            )
        # vLLM says it of the base model, and not of its adapters.
        lengths = [card.max_model_len, *(each.max_model_len for each in cards)]
        return card.id, next(filter(None, lengths), None)
    finally:
        await client.close()


async def _takes_ids(client: UpstreamClient, model: str, ids: list[int]) -> bool:
    """Whether /v1/completions takes token ids and gives n samples with their token ids."""
    body = {"model": model, "prompt": ids, "n": 2, "max_tokens": 1, "return_token_ids": True}
    body["temperature"] = 1  # of a checkpoint that is greedy by itself vLLM gives one answer alone
    try:
        reply = await client.ask("/completions", Completion, body)
    except RequestError as error:
        refusals = (ErrorCode.VALIDATION_TYPE_ERROR, ErrorCode.INVALID_MODEL)
        if error.code in (*refusals, ErrorCode.INTERNAL_ERROR):
            return False
        raise
    tokens = [choice.token_ids for choice in reply.choices]
    counted = reply.usage and reply.usage.prompt_tokens
    return len(tokens) == 2 and all(tokens) and counted == len(ids)


def _refusal(status: int, text: str) -> RequestError:
    """The worker's error for an HTTP status; the message is the server's."""
    try:
        message = _message(json.loads(text))
    except (ValueError, RecursionError):
        message = text[:_SHOWN]
    code = _STATUS_CODES.get(status, ErrorCode.INTERNAL_ERROR)
    if status == 400 and ("context length" in message or "context_length_exceeded" in text):
        code = ErrorCode.CONTEXT_OVERFLOW
    return RequestError(code, f"the server behind the worker answered {status}: {message}")


def _message(body: Any) -> str:
    """What is wrong, from the shapes that servers write errors in."""
    if isinstance(body, dict):
        body = body.get("error") or body.get("message") or body.get("detail") or body
    if isinstance(body, dict):
        body = body.get("message") or body
    return str(body)[:_SHOWN]
