"""Replies in the shape of the OpenAI API: whole ones, and the chunks of a stream."""

import json
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fastchat.protocol.openai_api_protocol import ChatRequest, CompletionRequest
from fastchat.protocol.worker_protocol import GenerateReply, Logprobs, Usage
from fastchat.serve.openai.requests import Ask

DONE = b"data: [DONE]\n\n"
"""The last event of a stream that succeeded."""


class Shape:
    """What all replies to one request have in common."""

    def __init__(self, wanted: ChatRequest | CompletionRequest):
        self.chat = isinstance(wanted, ChatRequest)
        self.include_usage = wanted.include_usage
        self._with_ids = wanted.return_token_ids
        self._top = wanted.scored or 0
        self._head = {
            "id": f"{'chatcmpl' if self.chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": wanted.model,
        }

    def whole(self, asks: list[Ask], replies: list[GenerateReply]) -> dict[str, Any]:
        choices = []
        for ask, reply in zip(asks, replies, strict=True):
            for i, (text, reason) in enumerate(zip(reply.texts, reply.reasons, strict=True)):
                content = (
                    {"message": {"role": "assistant", "content": text, "refusal": None}}
                    if self.chat
                    else {"text": text}
                )
                more = {**self._ids(reply, i), **self.logprobs(reply, i)}
                choices.append(_choice(ask.first + i, **content, **more, finish_reason=reason))
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._head, "object": kind, "choices": choices, "usage": self.usage(replies)}

    def roles(self, n: int) -> bytes:
        """The chunks before any text: of a chat, who speaks in each choice."""
        delta = {"delta": {"role": "assistant", "content": ""}} if self.chat else {"text": ""}
        return b"".join(self.chunk([_choice(index, **delta)]) for index in range(n))

    def piece(self, index: int, text: str, **more: Any) -> bytes:
        """A chunk with more text of a choice, and what else is new of it."""
        content = {"delta": {"content": text} if text else {}} if self.chat else {"text": text}
        return self.chunk([_choice(index, **content, **more)])

    def usage(self, replies: list[GenerateReply]) -> dict[str, int]:
        prompt = sum(reply.usage.prompt_tokens for reply in replies)
        completion = sum(reply.usage.completion_tokens for reply in replies)
        return Usage.of(prompt, completion).model_dump()

    def _ids(self, reply: GenerateReply, i: int) -> dict[str, Any]:
        if not self._with_ids or reply.token_ids is None:
            return {}
        return {"token_ids": reply.token_ids[i], "prompt_token_ids": reply.prompt_token_ids}

    def logprobs(self, reply: GenerateReply, i: int) -> dict[str, Any]:
        """Those that a reply or a frame has of its sample i, if it has any."""
        told = reply.told[i] if reply.told else None
        if told is None or not told.tokens:
            return {}
        return {"logprobs": self._chat_logprobs(told) if self.chat else told.model_dump()}

    def _chat_logprobs(self, told: Logprobs) -> dict[str, Any]:
        content = []
        columns = (told.tokens, told.token_logprobs, told.top_logprobs)
        for token, logprob, top in zip(*columns, strict=True):
            likeliest = list((top or {}).items())[: self._top]
            tops = [{**_spelled(other), "logprob": value} for other, value in likeliest]
            content.append({**_spelled(token), "logprob": logprob, "top_logprobs": tops})
        return {"content": content, "refusal": None}

    def chunk(self, choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        body = {**self._head, "object": kind, "choices": choices}
        if self.include_usage:
            body["usage"] = usage
        return event(body)


@dataclass
class Progress:
    """How much of the choices of one ask a stream has sent; a worker's frames are cumulative."""

    ask: Ask
    shape: Shape
    last: GenerateReply | None = None
    """The latest frame."""
    _texts: list[str] = field(init=False)
    _tokens: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._texts = [""] * self.ask.n
        self._tokens = [0] * self.ask.n

    def chunks(self, frame: GenerateReply) -> Iterator[bytes]:
        self.last = frame
        ids = frame.token_ids
        for i, (text, reason) in enumerate(zip(frame.texts, frame.reasons, strict=True)):
            new = text[len(self._texts[i]) :]
            extra = self.shape.logprobs(frame, i)
            if not new and reason is None and not extra:
                continue
            if ids is not None:
                extra["token_ids"] = ids[i][self._tokens[i] :]
                if not self._tokens[i]:
                    extra["prompt_token_ids"] = frame.prompt_token_ids
                self._tokens[i] = len(ids[i])
            self._texts[i] += new
            yield self.shape.piece(self.ask.first + i, new, finish_reason=reason, **extra)


def _choice(index: int, **content: Any) -> dict[str, Any]:
    return {"index": index, "logprobs": None, "finish_reason": None, **content}


def _spelled(token: str) -> dict[str, Any]:
    """A token of the worker's and its bytes."""
    if re.fullmatch(r"bytes:(\\x[0-9a-f]{2})+", token):
        shown = token.removeprefix("bytes:")
        return {"token": shown, "bytes": list(bytes.fromhex(shown.replace("\\x", "")))}
    return {"token": token, "bytes": list(token.encode(errors="replace"))}


def event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"
