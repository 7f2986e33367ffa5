"""What the OpenAI-compatible server reads.

The fields are those of the OpenAI API, and vLLM's `top_k`, `stop_token_ids`, `repetition_penalty`
and `return_token_ids`. A null stands for the default. A field that would change the answer and that
the workers do not implement is refused by its name unless it holds a neutral value; a field that
changes nothing about the text (`user`, `metadata`, ...) is read over; an unknown one is refused, as
OpenAI does it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fastchat.constants import MAX_MESSAGES, MAX_SAMPLES
from fastchat.protocol.worker_protocol import (
    MAX_STOP_IDS,
    MAX_STOPS,
    Length,
    Penalty,
    RepetitionPenalty,
    Seed,
    Stop,
    Text,
    TokenId,
    TopK,
    TopLogprobs,
)

IGNORED = {
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "request_id",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
}
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "add_special_tokens": (True,),
    "audio": (),
    "best_of": (1,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "ignore_eos": (False,),
    "include_stop_str_in_output": (False,),
    "logit_bias": ({},),
    "min_p": (0,),
    "min_tokens": (0,),
    "modalities": (["text"],),
    "prediction": (),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "skip_special_tokens": (True,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "use_beam_search": (False,),
    "verbosity": ("medium",),
}
"""Values of fields that no worker implements under which they change nothing."""
_INSTEAD = {
    "response_format": 'only {"type": "text"} is answered; ask for JSON in the prompt',
    "tools": "no tools are called here; describe them in the prompt",
}


class StreamOptions(BaseModel):
    """How a stream is sent."""

    include_usage: bool = False
    """Whether one more chunk, without choices, carries the usage."""


class ContentPart(BaseModel):
    """A part of a message; text is the only kind that the workers know."""

    type: Literal["text"]
    text: Text


class OpenAIMessage(BaseModel):
    """One message of a chat; `developer` is OpenAI's newer word for `system`."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[ContentPart]
    name: str | None = None
    """Read over: no chat template writes it."""

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, body: Any) -> Any:
        # The answers of the client library come back with many empty fields.
        if not isinstance(body, dict):
            return body
        return {key: value for key, value in body.items() if value not in (None, [])}

    def plain(self) -> dict[str, str]:
        parts = self.content
        text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class CommonRequest(BaseModel):
    """What a chat and a completion have in common."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    model: Text = Field(max_length=1000)
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, ge=0, le=1)
    top_k: TopK = -1
    """Number of tokens to draw from; -1 and 0 mean all."""
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    repetition_penalty: RepetitionPenalty = 1.0
    n: int = Field(default=1, ge=1, le=MAX_SAMPLES)
    seed: Seed | None = None
    """Choice i draws from the seed `seed + i`."""
    stop: list[Stop] = Field(default_factory=list, max_length=MAX_STOPS)
    """Texts that end an answer and are not part of it; a single string is allowed."""
    stop_token_ids: list[TokenId] = Field(default_factory=list, max_length=MAX_STOP_IDS)
    stream: bool = False
    stream_options: StreamOptions | None = None
    return_token_ids: bool = False
    """Whether every choice carries its `token_ids` and `prompt_token_ids`. In a stream a
    chunk carries the ids that are new, and the first one of a choice the prompt's. Stock workers
    tell none."""

    @model_validator(mode="before")
    @classmethod
    def _only_what_is_implemented(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        given = {key: value for key, value in body.items() if value is not None}
        refused = sorted(k for k in given if k in NEUTRAL and given[k] not in NEUTRAL[k])
        if refused:
            instead = _INSTEAD.get(refused[0], "not supported here; leave it out")
            raise ValueError(f"{', '.join(refused)}: {instead}")
        given = {key: value for key, value in given.items() if key not in {*IGNORED, *NEUTRAL}}
        if isinstance(given.get("stop"), str):
            given["stop"] = [given["stop"]]
        return given

    @model_validator(mode="after")
    def _consistent(self) -> CommonRequest:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options: only allowed when stream is true")
        return self

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self) -> dict[str, Any]:
        """The fields of a worker's request beside the prompt and the length of the answer."""
        fields = {"model", "temperature", "top_p", "top_k", "n", "seed", "stop", "stop_token_ids"}
        fields |= {"presence_penalty", "frequency_penalty", "repetition_penalty"}
        return {**self.model_dump(include={*fields, "return_token_ids"}), "echo": False}


class ChatRequest(CommonRequest):
    """Body of `/v1/chat/completions`."""

    messages: list[OpenAIMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_tokens: Length | None = None
    max_completion_tokens: Length | None = None
    """OpenAI's newer name of `max_tokens`."""
    logprobs: Annotated[bool, Field(strict=True)] = False
    """Whether the tokens of an answer come with their log-probabilities."""
    top_logprobs: TopLogprobs = 0
    """How many of the likeliest tokens are told at each place."""

    @model_validator(mode="after")
    def _scored(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs: only allowed when logprobs is true")
        return self

    @property
    def longest(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def scored(self) -> int | None:
        """How many likeliest tokens are scored at each place; None: nothing is."""
        return self.top_logprobs if self.logprobs else None


class CompletionRequest(CommonRequest):
    """Body of `/v1/completions`."""

    prompt: Text | list[Text] | list[TokenId] | list[list[TokenId]]
    """One prompt or several, as text or as token ids; the choices of all come in this order."""
    echo: bool = False
    """Whether the prompt is part of the text, and with `logprobs` scored."""
    max_tokens: Annotated[int, Field(ge=0, lt=2**31)] = 16
    """Longest answer; 0 scores a prompt and needs `echo` and `logprobs`."""
    logprobs: TopLogprobs | None = None
    """How many of the likeliest tokens are told at each place, beside the one there."""

    @model_validator(mode="before")
    @classmethod
    def _unscored(cls, body: Any) -> Any:
        if isinstance(body, dict) and body.get("logprobs") is False:
            return {**body, "logprobs": None}
        return body

    @model_validator(mode="after")
    def _few_choices(self) -> CompletionRequest:
        if len(self.prompts()) * self.n > MAX_SAMPLES:
            raise ValueError(f"n: more than {MAX_SAMPLES} choices of all prompts together")
        if not self.max_tokens and (not self.echo or self.logprobs is None):
            raise ValueError("max_tokens: 0 scores a prompt and needs echo and logprobs")
        return self

    @property
    def longest(self) -> int:
        return self.max_tokens

    @property
    def scored(self) -> int | None:
        """How many likeliest tokens are scored at each place; None: nothing is."""
        return self.logprobs

    def prompts(self) -> list[dict[str, Any]]:
        several = isinstance(self.prompt, list) and not _are_ids(self.prompt)
        return [
            {"prompt": one} if isinstance(one, str) else {"prompt_token_ids": one}
            for one in (self.prompt if several else [self.prompt])
        ]


def _are_ids(prompt: list[Any]) -> bool:
    return bool(prompt) and isinstance(prompt[0], int)
