"""What the web pages ask the controller and the workers for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from pydantic import ValidationError

from fastchat.client.http import PeerError
from fastchat.client.workers import Cluster
from fastchat.constants import RequestError
from fastchat.conversation import Message
from fastchat.protocol.openai_api_protocol import ChatRequest
from fastchat.serve.openai.errors import ApiError, from_worker
from fastchat.serve.openai.requests import asks_of, held

_SILENCE = 600.0
"""Seconds that a worker may send nothing."""


class WebChatError(Exception):
    """There is no answer; the message says why, in words for the page."""


class WebChat:
    """Answers of the models that a controller serves, as they grow.

    Args:
        controller: its URL.
    """

    def __init__(self, controller: str):
        self._cluster = Cluster(controller, _SILENCE)

    async def models(self) -> list[str]:
        """The names that the controller serves; none where it does not answer."""
        try:
            return await self._cluster.models()
        except PeerError:
            return []

    async def reply(
        self, model: str, messages: Sequence[Message], **sampling: Any
    ) -> AsyncGenerator[str, None]:
        """The answer to a dialogue: its text so far, again and again.

        Args:
            model: a name that the controller serves.
            messages: the dialogue, ending with a user's message.
            sampling: `temperature`, `top_p`, `max_tokens`, `seed` as in the OpenAI API.

        WebChatError if there is no answer.
        """
        try:
            asked = {"model": model, "messages": list(messages), "stream": True, **sampling}
            wanted = ChatRequest.model_validate(asked)
            async with held(self._cluster, model) as worker:
                (ask,) = await asks_of(self._cluster, worker, wanted)
                frames = self._cluster.stream(worker, ask.body)
                async with contextlib.aclosing(frames):
                    async for frame in frames:
                        yield frame.texts[0]
        except RequestError as error:
            raise WebChatError(str(from_worker(error))) from error
        except (ApiError, ValidationError) as error:
            raise WebChatError(str(error)) from error

    async def replies(
        self, asked: Sequence[tuple[str, Sequence[Message]]], **sampling: Any
    ) -> AsyncGenerator[list[str], None]:
        """The answers of several models at the same time: all texts so far, again and again.

        Args:
            asked: (model, dialogue) for each of them.
            sampling: as for `reply`.

        WebChatError if one of them gives no answer.
        """
        texts = ["" for _ in asked]
        news: asyncio.Queue[tuple[int, str | None]] = asyncio.Queue()

        async def follow(index: int, model: str, messages: Sequence[Message]) -> None:
            try:
                async for text in self.reply(model, messages, **sampling):
                    await news.put((index, text))
            finally:
                await news.put((index, None))

        tasks = [asyncio.create_task(follow(i, *pair)) for i, pair in enumerate(asked)]
        try:
            running = len(tasks)
            while running:
                index, text = await news.get()
                if text is None:
                    running -= 1
                else:
                    texts[index] = text
                    yield list(texts)
            for task in tasks:
                await task
        finally:
            for task in tasks:
                task.cancel()
