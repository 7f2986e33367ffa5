"""What the OpenAI-compatible server reads.

The fields are those of the OpenAI API, and vLLM's `top_k`, `stop_token_ids`, `repetition_penalty`
and `return_token_ids`. A field that changes nothing about the text (`user`, ...) is read over; an
unknown one is refused, as OpenAI does it.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fastchat.constants import MAX_MESSAGES, MAX_SAMPLES
from fastchat.protocol.worker_protocol import Length, Sampling, Text, TokenId, TopLogprobs

IGNORED = """
metadata parallel_tool_calls prompt_cache_key prompt_cache_retention request_id safety_identifier
service_tier store user
""".split()
NO_TOOLS = "no tools are called here; describe them in the prompt"


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
        body = {key: value for key, value in body.items() if value not in (None, [])}
        if body.get("role") in ("tool", "function") or "tool_calls" in body:
            raise ValueError(NO_TOOLS)
        return body

    def plain(self) -> dict[str, str]:
        parts = self.content
        text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class CommonRequest(Sampling):
    """What a chat and a completion have in common."""

    model_config = ConfigDict(extra="forbid")
    neutral: ClassVar[dict[str, tuple[Any, ...] | None]] = {
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
        **dict.fromkeys(IGNORED),
    }
    instead: ClassVar[dict[str, str]] = {
        "response_format": 'only {"type": "text"} is answered; ask for JSON in the prompt',
        "tools": NO_TOOLS,
    }

    model: Text = Field(max_length=1000)
    stream: bool = False
    stream_options: StreamOptions | None = None

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
        fields = {"model", *Sampling.model_fields}
        return {**self.model_dump(include=fields), "echo": False}


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

    @model_validator(mode="after")
    def _few_choices(self) -> CompletionRequest:
        if not self.prompts():
            raise ValueError("prompt: give at least one")
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
        single = isinstance(self.prompt, str) or (self.prompt and isinstance(self.prompt[0], int))
        return [
            {"prompt": one} if isinstance(one, str) else {"prompt_token_ids": one}
            for one in ([self.prompt] if single else self.prompt)
        ]
