"""What OpenAI-compatible servers send: answers, counts and errors, in the many forms they have."""

import contextlib
import json
import math
import re
from dataclasses import dataclass
from typing import Any

from fastchat.client.http import page_in
from rise.policies import keys, streams
from rise.policies.policy import PolicyError, Sample

LENGTH = re.compile(r"length|max_?(\w*_)?tokens?|token_limit|context_window")
"""Ends at the limit of new tokens: length, max_tokens, model_length, MAX_TOKENS, ..."""
FILTERED = re.compile(r"content_?filter")
BLOCKED = re.compile(r'"block_?reason": "(?!block_reason_un)|"filtered": true', re.IGNORECASE)
"""A reply without choices, since the prompt was filtered."""
BROKEN = re.compile(r"error|abort|cancel|fail|load|insufficient_system_resource")
"""Ends of an answer that somebody broke off. Every other one, also none, is a stop."""
ASIDES: tuple[str, ...] = ("reasoning_content", "reasoning", "thinking", "refusal")
ASIDES += ("reasoning_details", "thinking_blocks")
"""Fields beside the answer, of a message and of the parts of its content."""
WORDS: tuple[str, ...] = ("message", "msg", "detail", "error", "errors", "reason", "title", "raw")
WORDS += ("description", "base_resp", "status_msg", "error_msg", "errorMessage", "faultstring")
"""Fields in which a server says what is wrong; others may repeat the prompt."""
REPEATED = {"body", "choices", "content", "ctx", "id", "input", "loc", "messages", "model", "usage"}
"""Fields of what is no list of wrong parameters."""
CONTEXT = re.compile(
    r"(?:max_model_len|n_ctx|(?:context|model|allowed|supported sequence) (?:length|size|window)"
    r"|model token limit|`max_new_tokens` must)\D{0,12}(\d+)"
)
PROMPT = re.compile(
    r"(at least )?(\d+) (?:tokens? )?"
    r"(?:in the messages|in (?:the|your) prompt|input tokens|`inputs` tokens|long\b"
    r"|(?:from the|of text) input)"
)
SUM = re.compile(r"(\d+) \+ \d+ > (\d+)")
"""How servers say how long their context is, and how long the prompt; both in one."""
WAIT = re.compile(
    r"\b(?:again|retry|wait)\b\D{0,12}((?:\d+(?:\.\d+)?\s*(?:ms|milli|[hms])[a-z]*\s*)+)"
)
SECONDS = {"h": 3600, "m": 60, "s": 1, "ms": 0.001, "milli": 0.001}
LARGEST_COUNT = 10**12

REFUSED = (400, 413, 422)
"""Statuses of a request that the server understood and does not take."""
STATUS_KINDS = {
    **dict.fromkeys((401, 403, 407), "unauthorized"),
    **dict.fromkeys((400, 422), "bad_request"),
    **dict.fromkeys((404, 405, 410, 501), "not_found"),
    **dict.fromkeys((409, 423, 424, 425, 460, 499), "server"),
    413: "context_overflow",
    **dict.fromkeys((429, 498, 503, 529), "overloaded"),
    402: "quota",
    408: "timeout",
}
"""Other ones from 500 pass; below, as a redirect that leads nowhere, it is another place."""
CODE_STATUSES = {
    r"authentication|unauthorized|api_?key": 401,
    r"permission|forbidden": 403,
    r"not_?found": 404,
    r"rate_?limit|too_many_requests|resource_exhausted": 429,
    r"overloaded|unavailable": 529,
    r"invalid|bad_?request|validation|unsupported": 400,
}
"""What the code or type of an error inside a reply of status 200 stands for."""
KIND_WORDS = (
    ("overloaded", (400, 403, 500), r"throttl|too many requests|rate.?limit"),
    ("bad_request", (404,), r"(requested|these|support \w+) parameters?\b"),
    (
        "context_overflow",
        (None, *REFUSED, 403, 500),
        r"(?<!`)context[ _](length|size|window|limit)|n_ctx|max_model_len|input length|"
        r"maximum (model|allowed|prompt|input|supported sequence) length|"
        r"(prompt|input) (is )?too long|max(imum)? context|number of input tokens|"
        r"maximum number of tokens allowed|"
        r"too many (input |prompt )?tokens(?! per|: max)|"
        r"`inputs` (tokens \+|must have)|reduce the length|exceeded model token limit|超长|"
        r"tokens too long|token limit exceeded|exceeds? (the )?max (token limit|message tokens)|"
        r"max_seq_len",
    ),
    (
        "content_filter",
        (None, 400, 403, 422, 451),
        r"content[ _-]?(filter|policy|management)|responsibleaipolicy|moderation|flagged|"
        r"inappropriate content|sensitive ?(word|content|info)|new_sensitive|敏感|censor|"
        r"(exists|high) risk|prompt blocked|blocked by (in|out)put|"
        r"safety (system|setting|filter|polic)|violates usage",
    ),
    (
        "quota",
        (None, 400, 401, 402, 403, 412, 429),
        r"insufficient[ _](quota|balance|credit|fund)|(credit|account) balance|payment required|"
        r"(out of|no|any|enough|more) credits|billing[ _](hard_)?(limit|not_active)|top up|"
        r"recharge|current quota(?!.*retry)|all available credits|spending limit|usage limits|"
        r"欠费|余额|overdue|arrearage|account .{0,40}suspended|budget[ _](has been|exceeded)|"
        r"models-per-day|daily (free|request)|calls / month|使用上限|每日",
    ),
    (
        "unauthorized",
        (None, 400),
        r"(location|region|country) .{0,20}not supported|organi[sz]ation .{0,20}restricted|"
        r"login fail|authfail|access token|(invalid|incorrect|missing|no|wrong) api[ _-]?key|"
        r"api[ _-]?key (is )?(invalid|not valid|expired|missing|required|incorrect)",
    ),
    (
        "not_found",
        (None, 400, 422, 501),
        r"^(?!.*\b(parameter|argument|field)\b).*?"
        r"((model|deployment)[ _]?not[ _]?(found|exist|available)|"
        r"model .{0,80}(not found|(not|n't) exist|is unknown|decommissioned|been retired)|"
        r"model (identifier|name) is invalid|"
        r"(unknown|no such|invalid) model\b|model unloaded|not a valid model|no endpoints found|"
        r"模型不存在|supported by any provider|api version|url error|http request.* to .*https|"
        r"(unexpected|unknown|no such|invalid) (endpoint|route|path|url)\b|"
        r"not support (chat|completions)|operation does not work)",
    ),
    ("server", (400,), r"model has crashed"),
    ("overloaded", (None,), r"rate.?limit|too many requests|overload|capacity|try again|busy"),
)
"""(kind, statuses, words): how servers say what their status does not."""
REMEDIES = {
    "quota": "fill the account, or wait until it may be used again",
    "not_found": "check the URL, which mostly ends with /v1, and the name of the model",
}
LONGEST_ASKED = 300.0
"""Seconds: who asks to wait longer is not asked again in this call."""


@dataclass(frozen=True)
class Trouble:
    """What a server says is wrong."""

    status: int | None
    """An HTTP status; None where the reply had status 200 and names no other."""
    words: str
    """Its own words, on one line."""
    code: str = ""
    """Its code and type."""

    @property
    def kind(self) -> str:
        """The kind of PolicyError."""
        said = f"{self.code} {self.words}".lower()
        for kind, statuses, words in KIND_WORDS:
            if self.status in statuses and re.search(words, said):
                return kind
        if self.status is None:
            return "server"
        return STATUS_KINDS.get(self.status) or ("server" if self.status >= 500 else "not_found")

    def error(self, where: str, retry_after: float | None = None) -> PolicyError:
        """As a PolicyError: the server's words, and what helps."""
        kind, status = self.kind, self.status or "200 with an error"
        message = f"{where} answered HTTP {status}: {self.words or 'nothing'}"
        if kind == "overloaded" and retry_after is None:
            retry_after = wait_in(self.words.lower())
        if kind == "overloaded" and (retry_after or 0) > LONGEST_ASKED:
            kind, message = "quota", f"{message} (it asks to wait {retry_after:.0f} s)"
        if kind in REMEDIES:
            message += f"; {REMEDIES[kind]}"
        return PolicyError(kind, message, retry_after)


def room_in(said: str, asked: int) -> int | None:
    """The longest answer that is left by a server that finds `asked` new tokens too many.

    None where the prompt by itself is too long, or the server does not say.

    >>> room_in("max_tokens=9000 cannot be greater than max_model_len=8192.", 9000)
    8191
    >>> room_in("maximum context length is 4096 tokens (296 in the messages, 4000 in", 4000)
    3800
    >>> room_in("exceed context limit: 190000 + 20000 > 200000, decrease input length", 20000)
    10000
    >>> room_in("Your request exceeded model token limit: 8192", 8000)
    4000
    """
    context, prompt, both = CONTEXT.search(said), PROMPT.search(said), SUM.search(said)
    if both:
        return int(both[2]) - int(both[1]) if 0 < int(both[2]) - int(both[1]) < asked else None
    if not context:
        return None
    size = int(context[1])
    room = size - (int(prompt[2]) if prompt else 1)
    if prompt and prompt[1] and asked <= size:
        room //= 2  # a server that did not count to the end
    if not prompt and size // 4 <= asked < size:
        room = asked // 2  # the answer may be what does not fit
    return room if 0 < room < asked else None


def wait_in(said: str) -> float | None:
    """Seconds that a server asks to wait, in its words.

    >>> wait_in("please try again in 1m2.5s."), wait_in("retry later")
    (62.5, None)
    """
    asked = WAIT.search(said)
    times = re.findall(r"([\d.]+)\s*(ms|milli|[hms])", asked[1]) if asked else []
    return sum(float(number) * SECONDS[unit] for number, unit in times) if times else None


def parse(content: bytes) -> Any:
    """The JSON of a body, or what its stream tells; its text where it holds neither."""
    text = content.decode("utf-8-sig", "replace")
    for body in (content, text):  # JSON may be UTF-16
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(body)
    return streams.whole(text) or text


def trouble_in(body: Any, status: int | None = None) -> Trouble:
    """What a body says is wrong, which is an error object, a page or a text."""
    if isinstance(body, str):
        page = page_in(body)
        return Trouble(status or (404 if page else None), _one_line(page or body))
    body = body[0] if isinstance(body, list) and body else body
    fields = body if isinstance(body, dict) else {"message": body}
    if isinstance(fields.get("error"), dict):
        fields = fields["error"]
    code = " ".join(str(fields[name]) for name in ("code", "type", "status") if fields.get(name))
    words = _words(fields)
    if isinstance(fields.get("metadata"), dict):
        words += f" {_words(fields['metadata'])}"
    if fields.get("param"):
        words += f" (param: {_words(fields['param'])})"
    if status is None:
        status = _status_in(code)
    return Trouble(status, _one_line(words or code), code)


def _status_in(code: str) -> int | None:
    found = re.search(r"\b[45]\d\d\b", code)
    if found:
        return int(found[0])
    statuses = (number for word, number in CODE_STATUSES.items() if re.search(word, code.lower()))
    return next(statuses, None)


def choices_of(body: Any) -> list[Any]:
    """The choices of a reply; empty where it has none, or an error in their place."""
    choices = body.get("choices") if isinstance(body, dict) else None
    error = body.get("error") if isinstance(choices, list) else None
    is_error = any(error.values()) if isinstance(error, dict) else error
    if not isinstance(choices, list) or is_error:
        return []
    places = [choice.get("index") if isinstance(choice, dict) else None for choice in choices]
    in_order = len({*places}) < len(places) or any(type(place) is not int for place in places)
    return choices if in_order else sorted(choices, key=lambda choice: choice["index"])


def sample_of(choice: Any, where: str) -> Sample | PolicyError:
    """A choice as a sample; a filtered or broken one is an error, never a text.

    A choice without a text is an attempt without an answer: its tokens were used and are paid.
    The error is returned, since the other choices of the request are answers all the same.
    """
    if not isinstance(choice, dict):
        return PolicyError("server", f"{where} sent a choice that is no object")
    reason = re.sub(r"[\W_]+", "_", str(choice.get("finish_reason") or "").lower())
    if choice.get("error"):
        return trouble_in({"error": choice["error"]}).error(where)
    if FILTERED.search(reason):
        return PolicyError("content_filter", f"the answer ended with {reason!r}")
    if BROKEN.search(reason):
        return PolicyError("server", f"{where} broke the answer off: {reason}")
    message = choice.get("message", choice.get("delta"))
    if isinstance(message, list):
        return PolicyError("server", f"{where} sent a message that is a list")
    if not isinstance(message, dict):
        message = {"content": message if message is not None else choice.get("text")}
    said, aside = _texts(message.get("content"))
    if said is None:
        kind = type(message["content"]).__name__
        return PolicyError("server", f"{where} sent an answer of type {kind}")
    beside = (_texts(message.get(name)) for name in ASIDES)
    found = dict.fromkeys(text or more for text, more in beside)
    reasoning = aside or "\n".join(filter(None, found))
    ids = choice.get("token_ids")
    if not (isinstance(ids, list) and all(type(i) is int and 0 <= i < 1 << 31 for i in ids)):
        ids = None
    ending = "length" if LENGTH.search(reason) else "stop"
    return Sample(said, ending, token_ids=ids, reasoning=reasoning or None)


def counts_of(body: Any) -> tuple[int | None, int | None]:
    """Tokens of the prompt and of all answers; None for what the server does not count.

    >>> counts_of({"usage": {"prompt_tokens": "7", "completion_tokens": float("nan")}})
    (7, None)
    """
    usage = body.get("usage") if isinstance(body, dict) else None
    usage = usage if isinstance(usage, dict) else {}

    def count(*names: str) -> int | None:
        return next((n for n in (_count(usage.get(name)) for name in names) if n is not None), None)

    prompt, answers = (
        count("prompt_tokens", "input_tokens"),
        count("completion_tokens", "output_tokens"),
    )
    total = count("total_tokens")
    if answers is None and prompt is not None and total is not None and total >= prompt:
        answers = total - prompt
    return prompt, answers


def _count(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return int(number) if math.isfinite(number) and 0 <= number <= LARGEST_COUNT else None


def _texts(content: Any) -> tuple[str | None, str]:
    """(answer, what stands beside it) of a content: a text, parts, or nothing; None for others."""
    if content is None or isinstance(content, str):
        return content or "", ""
    parts = content if isinstance(content, list) else [content]
    said, aside = "", ""
    for part in parts:
        if isinstance(part, str):
            said += part
        elif part is None:
            continue
        elif not isinstance(part, dict):
            return None, ""
        elif isinstance(part.get("text"), str) and part.get("type") not in ASIDES:
            said += part["text"]
        else:
            fields = [part[name] for name in ("text", *ASIDES) if part.get(name)]
            aside += "".join(_texts(field)[0] or "" for field in fields)
    return said, aside


def _words(value: Any) -> str:
    """The words in an error's field, without what repeats the request."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "; ".join(filter(None, map(_words, value)))
    if isinstance(value, dict):
        place = value.get("loc")
        place = ".".join(map(str, place)) if isinstance(place, list) else ""
        said = " ".join(_words(value[name]) for name in WORDS if value.get(name))
        if not said and not place and not value.keys() & REPEATED:  # each field with its own words
            fields = ((name, _words(field)) for name, field in value.items())
            return "; ".join(f"{name}: {words}" for name, words in fields if words)
        return f"{place}: {said}" if place else said
    return "" if value is None else str(value)


def _one_line(words: str) -> str:
    """At most 500 characters on one line, without keys and what would move a cursor."""
    # The message may repeat the key, which must be gone before a cut leaves a part of it.
    line = " ".join(keys.redact(words).split())
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)[
        :500
    ]
