"""What a worker reads and answers.

The fields and their defaults are FastChat's; `messages`, `prompt_token_ids`, `date`, `n`, `seed`
and `return_token_ids` are ours.
"""

from __future__ import annotations

import datetime
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from fastchat.constants import MAX_MESSAGES, MAX_SAMPLES, ErrorCode, FinishReason, RequestError

M = TypeVar("M", bound=BaseModel)


def _encodable(text: str) -> str:
    """JSON may escape half a character; no tokenizer takes it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the text is no valid Unicode: {error.reason}") from error
    return text


def _day(text: str) -> str:
    return datetime.date.fromisoformat(text).isoformat()


Text = Annotated[str, AfterValidator(_encodable)]
Stop = Annotated[Text, Field(max_length=1000)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Length = Annotated[int, Field(ge=1, lt=2**31)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
TopLogprobs = Annotated[int, Field(ge=0, le=20, strict=True)]
Logprob = Annotated[float, Field(allow_inf_nan=False)]


class ChatMessage(BaseModel):
    """One turn of a dialogue."""

    role: Literal["system", "user", "assistant"]
    content: Text


class Sampling(BaseModel):
    """What every request says of the draw of its answers. A null stands for the default.

    A field that would change the answer and that no worker implements is refused by its name,
    unless it holds a neutral value.
    """

    model_config = ConfigDict(allow_inf_nan=False)
    neutral: ClassVar[dict[str, tuple[Any, ...] | None]] = {}
    """Values of fields that no worker implements under which they change nothing; None: any."""
    instead: ClassVar[dict[str, str]] = {}
    """What to do in place of such a field."""

    temperature: float = Field(default=1.0, ge=0)
    """Below 1e-5: greedy."""
    top_p: float = Field(default=1.0, ge=0, le=1)
    """Probability mass to keep; below 1e-8: greedy."""
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] = -1
    """Number of tokens to keep; -1 and 0 keep all."""
    presence_penalty: Penalty = 0.0
    """Taken from the logit of every token of the answer so far."""
    frequency_penalty: Penalty = 0.0
    """Taken as often as the answer has the token."""
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] = 1.0
    """Divides the positive logits of the tokens of prompt and answer, multiplies the others."""
    stop: list[Stop] = Field(default_factory=list, max_length=64)
    """Texts that end an answer and are not part of it; a single string is allowed."""
    stop_token_ids: list[TokenId] = Field(default_factory=list, max_length=1024)
    n: int = Field(default=1, ge=1, le=MAX_SAMPLES)
    """Number of answers."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    """Sample i draws from the seed `seed + i`; None draws afresh."""
    return_token_ids: bool = False
    """Whether token ids of prompt and answers come with the reply."""

    @model_validator(mode="before")
    @classmethod
    def _given(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        given = {key: value for key, value in body.items() if value is not None}
        found = sorted(given.keys() & cls.neutral.keys())
        known = {name: cls.neutral[name] for name in found}
        refused = [
            k for k, values in known.items() if values is not None and given[k] not in values
        ]
        if refused:
            instead = cls.instead.get(refused[0], "not supported here; leave it out")
            raise ValueError(f"{', '.join(refused)}: {instead}")
        for name in found:
            del given[name]
        if isinstance(given.get("stop"), str):
            given["stop"] = [given["stop"]]
        if given.get("logprobs") is False:
            del given["logprobs"]
        return given


class GenerateRequest(Sampling):
    """Body of `/worker_generate` and `/worker_generate_stream`.

    With n > 1 `text` and `finish_reason` of the reply are lists.
    """

    neutral: ClassVar[dict[str, tuple[Any, ...] | None]] = {
        "use_beam_search": (False,),
        "best_of": (1,),
        "images": ([],),
    }

    prompt: Text | None = None
    """A finished prompt string; special tokens are added once."""
    messages: list[ChatMessage] | None = Field(default=None, min_length=1, max_length=MAX_MESSAGES)
    date: Annotated[str, AfterValidator(_day)] | None = None
    """The day (YYYY-MM-DD) for templates that print one; None is `fastchat.chat_templates.DATE`."""
    prompt_token_ids: list[TokenId] | None = Field(default=None, min_length=1)
    max_new_tokens: Annotated[int, Field(ge=0, lt=2**31)] = 256
    """0 scores a prompt: it needs `echo` and `logprobs`."""
    logprobs: TopLogprobs | None = None
    """How many likeliest tokens are told at each place beside the one there; with `echo` the places
    of the prompt count too. None: no log-probabilities."""
    echo: bool = True

    @model_validator(mode="after")
    def _one_prompt(self) -> GenerateRequest:
        given = (self.prompt, self.messages, self.prompt_token_ids)
        if sum(value is not None for value in given) != 1:
            raise ValueError("give exactly one of prompt, messages and prompt_token_ids")
        if not self.max_new_tokens and not self.scores_prompt:
            raise ValueError("max_new_tokens: 0 scores a prompt and needs echo and logprobs")
        self.stop = [text for text in self.stop if text]
        return self

    @property
    def scores_prompt(self) -> bool:
        """Whether the log-probabilities of the prompt are wanted."""
        return self.echo and self.logprobs is not None

    @property
    def characters(self) -> int:
        return len(self.prompt or "") + sum(len(each.content) for each in self.messages or ())


def _is_text(value: Any) -> str:
    """A JSON text as it is; pydantic's own check knows no half characters."""
    if not isinstance(value, str):
        raise ValueError(f"a text is needed, not {type(value).__name__}")
    return value


AnyText = Annotated[str, PlainValidator(_is_text), WithJsonSchema({"type": "string"})]


class Usage(BaseModel):
    """Tokens of one reply. A stop token counts: the model generated it."""

    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    total_tokens: Count = 0

    @classmethod
    def of(cls, prompt: int, completion: int) -> Usage:
        total = prompt + completion
        return cls(prompt_tokens=prompt, completion_tokens=completion, total_tokens=total)


class Logprobs(BaseModel):
    """Log-probabilities of successive tokens, one entry per token in every list.

    They are those of the model's own distribution: at temperature 1, before penalties and top_p.
    """

    tokens: list[AnyText] = []
    """A token that is no text by itself is `bytes:` and its bytes, as in `bytes:\\xe2\\x80`."""
    token_logprobs: list[Logprob | None] = []
    """None for the first token of a prompt, which has nothing before it."""
    top_logprobs: list[dict[AnyText, Logprob] | None] = []
    """The likeliest tokens, the likeliest first, and the token itself."""
    text_offset: list[int] = []
    """Where each token begins in `text`, in characters."""

    @model_validator(mode="after")
    def _same_length(self) -> Logprobs:
        others = (self.token_logprobs, self.top_logprobs, self.text_offset)
        if any(len(other) != len(self.tokens) for other in others):
            raise ValueError("its lists differ in length")
        return self


class GenerateReply(BaseModel):
    """A successful answer; the lists have one entry per sample and appear with n > 1."""

    text: AnyText | list[AnyText]
    error_code: Literal[0] = 0
    usage: Usage = Field(default_factory=Usage)
    finish_reason: FinishReason | list[FinishReason | None] | None = None
    """stop, length or abort; None in the frames of a stream before the last one."""
    completion_tokens: list[Count] = []
    """Generated tokens of each sample; where a worker reports the sum only, it is split evenly."""
    prompt_token_ids: list[TokenId] | None = None
    token_ids: list[list[TokenId]] | None = None
    """Of each sample all that was generated, the token that ended it included."""
    tokenizer: str | None = None
    """`ChatTemplate.fingerprint`: whose tokens they are."""
    logprobs: Logprobs | list[Logprobs] | None = None
    """A list with n > 1. In a stream, of the tokens that are new in a frame."""

    @model_validator(mode="after")
    def _share_out(self) -> GenerateReply:
        total, n = self.usage.completion_tokens, len(self.texts)
        if not self.completion_tokens:
            self.completion_tokens = [total // n + (i < total % n) for i in range(n)]
        return self

    @property
    def told(self) -> list[Logprobs] | None:
        return [self.logprobs] if isinstance(self.logprobs, Logprobs) else self.logprobs

    @property
    def texts(self) -> list[str]:
        return self.text if isinstance(self.text, list) else [self.text]

    @property
    def reasons(self) -> list[FinishReason | None]:
        if isinstance(self.finish_reason, list):
            return self.finish_reason
        return [self.finish_reason] * len(self.texts)


class CountRequest(BaseModel):
    """Body of `/count_token`."""

    prompt: Text


class CountReply(BaseModel):
    """The reply to `/count_token`."""

    count: Count


def _told(errors: list[Any]) -> dict[str, Any]:
    """The first error, without pydantic's names for the forms that a field may have.

    Of several forms the one is told that the value followed the furthest.
    """
    loc = errors[0]["loc"]
    form = next((i for i, part in enumerate(loc) if "[" in str(part)), None)
    if form is None or errors[0]["type"] == "extra_forbidden":
        return errors[0]
    first = max((e for e in errors if e["loc"][:form] == loc[:form]), key=lambda e: len(e["loc"]))
    return {**first, "loc": [part for part in first["loc"] if "[" not in str(part)]}


def parse(kind: type[M], body: Any) -> M:
    """A JSON body as what it should be; RequestError with the first field that is wrong."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        first = _told(error.errors())
        place = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = "unknown field; leave it out"
        ranged = first["type"].startswith(("greater_than", "less_than", "finite"))
        code = ErrorCode.PARAM_OUT_OF_RANGE if ranged else ErrorCode.VALIDATION_TYPE_ERROR
        raise RequestError(code, f"{place}: {message}" if place else message) from error


def wire_reply(
    texts: list[str],
    reasons: list[FinishReason | None],
    prompt: int,
    counts: list[int],
    ids: tuple[list[int], list[list[int]], str] | None,
    logprobs: list[Logprobs] | None = None,
) -> dict[str, Any]:
    """The samples of an answer as a frame; lists only where there are several.

    `reasons` are None for those that go on; `ids` are the tokens of the prompt and of the samples,
    if they were asked for, and whose they are; `logprobs` are told where they were asked for.
    """
    several = len(texts) > 1
    prompt_ids, token_ids, tokenizer = ids or (None, None, None)
    reply = GenerateReply(
        text=texts if several else texts[0],
        usage=Usage.of(prompt, sum(counts)),
        finish_reason=reasons if several else reasons[0],
        completion_tokens=counts,
        prompt_token_ids=prompt_ids,
        token_ids=token_ids,
        tokenizer=tokenizer,
        logprobs=logprobs if several or logprobs is None else logprobs[0],
    )
    wire = reply.model_dump(exclude_none=True)
    # FastChat's clients look for the key in every frame of a stream.
    wire.setdefault("finish_reason", None)
    return wire
