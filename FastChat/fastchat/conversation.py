"""Messages -> token ids and trained spans: the one chat-template code, for serving and training.

A model sees what the worker feeds it: `ChatTemplate.prompt_ids(messages)`. The trainer builds its
examples from the same text (`encode`) and goes on with the tokens that were sampled, so what is
trained is what was sampled, token by token. The template is the tokenizer's own, unless
`--chat-template NAME|FILE` names another one, which then is written into the checkpoint
(`install`).

A message is `{"role": "system" | "user" | "assistant", "content": str}`.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from concurrent import futures
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from jinja2.exceptions import TemplateError

from fastchat.chat_templates import BUILT_IN, DATE, with_day
from fastchat.utils import within

Message = dict[str, str]

_FIRST_SECONDS = 8.0
_TEMPLATE_FAULTS = (ArithmeticError, LookupError, MemoryError, RecursionError, TypeError)
"""What a template may raise beside jinja's own errors."""
_OPENED_THOUGHT = re.compile(
    r"([<\[◁])((?:\w+:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?))([>\]▷])(\s*)\Z", re.IGNORECASE
)
"""The end of a prompt that leaves the model in the middle of a thought."""

_ROLES = {"system": "system", "human": "user", "user": "user", "gpt": "assistant"}
_ROLES |= dict.fromkeys(("assistant", "agent", "chatgpt", "bing", "bard"), "assistant")


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of an answer beside its text."""

    ids: Sequence[int] | None = None
    """The tokens that were sampled, the one that ended it included; None where nobody recorded
    them."""
    tokenizer: str | None = None
    """`ChatTemplate.fingerprint` of the tokenizer whose tokens they are; where nobody said they
    count if they spell the answer."""
    is_cut: bool = False
    """Whether the limit of new tokens ended it: it has no stop token then."""
    date: str | None = None
    """The day that the prompt prints (YYYY-MM-DD), if its template prints one; None is `DATE`."""


class Encoded(NamedTuple):
    """One training example as tokens."""

    prompt: list[int]
    """Equal to `prompt_ids` of the messages before the answer."""
    action: list[int]
    """What came after it; empty for an answer of no tokens that was cut."""
    source: str
    """recorded: the tokens that were sampled; text: none were recorded; other_tokenizer: those
    that were are another tokenizer's; edited: they do not spell the text."""
    closed_thought: bool = False
    """See `ChatTemplate.encode`."""


class ChatTemplate:
    """A tokenizer together with the chat template that serving and training share.

    `template` is a name in `BUILT_IN`, the path of a Jinja file, or None for the tokenizer's own;
    `extra_stop_ids` end an answer too (a generation config's `eos_token_id` list).

    ValueError if there is no template, the name is unknown, the template fails on a plain dialogue
    or writes the BOS token twice, or nothing could end an answer.
    """

    def __init__(
        self, tokenizer: Any, template: str | None = None, extra_stop_ids: Iterable[int] = ()
    ):
        self.tokenizer = tokenizer
        self.name, self.source = _find_template(tokenizer, template)
        try:
            within(_FIRST_SECONDS, self._check_doubled_bos)
        except futures.TimeoutError as error:
            raise ValueError(
                f"the chat template {self.name!r} takes more than {_FIRST_SECONDS:g} s for one "
                f"short message; pass another one with --chat-template ({_choices()})"
            ) from error
        self._system_in_user = not self._accepts_system()
        self.turn_end_id = self._find_turn_end()
        stops = {tokenizer.eos_token_id, self.turn_end_id, *extra_stop_ids} - {None}
        if not stops:
            raise ValueError(
                "the tokenizer has no EOS token and its chat template ends a turn with no special "
                "token, so no answer could ever stop; set `eos_token` in tokenizer_config.json"
            )
        self.stop_token_ids: frozenset[int] = frozenset(stops)

    @cached_property
    def fingerprint(self) -> str:
        """A checksum of the vocabulary: ids mean the same tokens where it is the same."""
        vocabulary = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        return hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest()[:16]

    def render_prompt(self, messages: Sequence[Message], date: str | None = None) -> str:
        """The text that the model continues: the messages and the head of the next answer.

        `date` (YYYY-MM-DD) is what a template prints for today; None is `DATE`.
        """
        return self._render(messages, add_generation_prompt=True, date=date)

    def prompt_ids(self, messages: Sequence[Message], date: str | None = None) -> list[int]:
        """The token ids that a worker feeds to the model for these messages."""
        return self._encode(self.render_prompt(messages, date))

    def encode(self, messages: Sequence[Message], answer: Answer | None = None) -> Encoded:
        """One training example: the ids of the context and of the trained action.

        The action is the raw continuation of the prompt, whatever the template makes of an answer
        once it is history: the ids that were sampled, where they were recorded with this vocabulary
        and spell the text; else the text's own. An answer that was not cut ends in a stop token. A
        text without ids and without an end of a thought, whose prompt opens one, was written by
        somebody who does not think aloud: the thought is closed, empty, before it. ValueError if
        the last message is not the assistant's.
        """
        if not messages or messages[-1]["role"] != "assistant":
            raise ValueError("an example must end in an assistant message; nothing to train on")
        text, answer = messages[-1]["content"], answer or Answer()
        prompt_text = self.render_prompt(messages[:-1], answer.date)
        source, closing = self._source_of(text, answer), ""
        if source == "recorded":
            action = list(answer.ids or ())
        else:
            opened = _OPENED_THOUGHT.search(prompt_text)
            end = f"{opened[1]}/{opened[2]}{opened[3]}" if opened else ""
            if opened and not answer.is_cut and end not in text:
                closing = f"{opened[4]}{end}\n\n"
            action = self._encode(closing) + self._encode(text, plain=True)
        if not answer.is_cut and not (action and action[-1] in self.stop_token_ids):
            action.append(self._end_id())
        return Encoded(self._encode(prompt_text), action, source, bool(closing))

    def plain_prompt_ids(self, text: str) -> list[int]:
        """The ids of a ready-made prompt string, with the tokenizer's special tokens added once."""
        bos = self.tokenizer.bos_token
        has_bos = bool(bos) and text.startswith(bos)
        return list(self.tokenizer(text, add_special_tokens=not has_bos)["input_ids"])

    def install(self, tokenizer: Any) -> None:
        """Write this template into `tokenizer`, so that a saved checkpoint carries it."""
        tokenizer.chat_template = self.source

    def _source_of(self, text: str, answer: Answer) -> str:
        """Which tokens an answer is trained as, see `Encoded.source`."""
        if answer.ids is None:
            return "text"
        unknown = max(answer.ids, default=0) >= len(self.tokenizer)
        if unknown or answer.tokenizer not in (None, self.fingerprint):
            return "other_tokenizer"
        # Servers differ in the blanks that they write, and in whether they show special tokens; a
        # NUL is replaced in a record.
        ids = [*answer.ids]
        ids = ids[:-1] if ids and ids[-1] in self.stop_token_ids else ids
        spelled = (self.tokenizer.decode(ids, skip_special_tokens=skip) for skip in (True, False))
        return "recorded" if _letters(text) in map(_letters, spelled) else "edited"

    def _end_id(self) -> int:
        """The token that ends an answer of which only the text is known."""
        end = self.turn_end_id if self.turn_end_id is not None else self.tokenizer.eos_token_id
        return min(self.stop_token_ids) if end is None else end

    def _render(
        self, messages: Sequence[Message], add_generation_prompt: bool, date: str | None = None
    ) -> str:
        messages = _system_into_user(messages) if self._system_in_user else list(messages)
        try:
            return self._apply(messages, add_generation_prompt, date)
        except TemplateError as error:
            roles = [message["role"] for message in messages]
            raise ValueError(
                f"the chat template {self.name!r} refuses a dialogue with the roles {roles}: "
                f"{error}; pass another one with --chat-template ({_choices()})"
            ) from error

    def _apply(
        self, messages: list[Message], add_generation_prompt: bool, date: str | None = None
    ) -> str:
        source, variables = with_day(self.source, date or DATE)
        try:
            return self.tokenizer.apply_chat_template(
                messages,
                chat_template=source,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
                **variables,
            )
        except _TEMPLATE_FAULTS as error:  # includes, macros without an end, sums of texts
            raise TemplateError(f"{type(error).__name__}: {error}") from error

    def _encode(self, text: str, plain: bool = False) -> list[int]:
        """The ids of a text; `plain`: what looks like a special token in it is none."""
        # The template writes the special tokens, so the tokenizer must not add its own.
        encode = self.tokenizer
        return list(encode(text, add_special_tokens=False, split_special_tokens=plain)["input_ids"])

    def _accepts_system(self) -> bool:
        dialogue = [{"role": "system", "content": "@S@"}, {"role": "user", "content": "@U@"}]
        try:
            return "@S@" in self._apply(dialogue, add_generation_prompt=True)
        except TemplateError:
            return False

    def _find_turn_end(self) -> int | None:
        """The special token that the template writes after an answer, None if it writes none."""
        dialogue = [{"role": "user", "content": "@U@"}, {"role": "assistant", "content": "@A@"}]
        text = self._render(dialogue, add_generation_prompt=False)
        special = set(self.tokenizer.all_special_ids)
        special |= {i for i, t in self.tokenizer.added_tokens_decoder.items() if t.special}
        for token in self._encode(text[text.rindex("@A@") + len("@A@") :]):
            if token in special:
                return token
        return None

    def _check_doubled_bos(self) -> None:
        bos = self.tokenizer.bos_token_id
        self._system_in_user = False
        ids = self._encode(self._render([{"role": "user", "content": "@U@"}], True))
        if bos is not None and ids[:2] == [bos, bos]:
            raise ValueError(
                f"the chat template {self.name!r} writes the BOS token twice; pass a template "
                f"that writes it once with --chat-template ({_choices()})"
            )


def pack_ids(ids: Iterable[int]) -> str:
    """Token ids as a short text: base64 of LEB128 numbers (7 bits a byte, the lowest first).

    >>> pack_ids([5, 128, 151645])
    'BYAB3aAJ'
    """
    packed = bytearray()
    for token in ids:
        while token > 0x7F:
            packed.append(token & 0x7F | 0x80)
            token >>= 7
        packed.append(token)
    return base64.b64encode(packed).decode()


def unpack_ids(text: str) -> list[int]:
    """The token ids that `pack_ids` packed; ValueError if it packed no such text."""
    try:
        packed = base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise ValueError(f"token_ids must be as pack_ids writes them, got {text!r:.60}") from error
    ids, token, shift = [], 0, 0
    for byte in packed:
        token |= (byte & 0x7F) << shift
        shift += 7
        if byte <= 0x7F:
            ids.append(token)
            token = shift = 0
    if shift or max(ids, default=0) >= 1 << 31:
        raise ValueError(f"token_ids hold what is no number of 31 bits: {text!r:.60}")
    return ids


def _letters(text: str) -> str:
    return "".join(text.replace("\0", "\ufffd").split())


def messages_from_sharegpt(conversations: Sequence[dict[str, Any]]) -> list[Message]:
    """`[{"from": "human" | "gpt" | "system", "value": str}]` as messages.

    ValueError if an entry lacks `from` or `value`, or `from` is no known speaker.
    """
    messages = []
    for position, turn in enumerate(conversations):
        role = _ROLES.get(str(turn.get("from")))
        if role is None or not isinstance(turn.get("value"), str):
            raise ValueError(
                f"turn {position} of a conversation must look like "
                f'{{"from": "human" | "gpt" | "system", "value": "text"}}, got {turn!r:.200}'
            )
        messages.append({"role": role, "content": turn["value"]})
    return messages


def _choices() -> str:
    return f"built in: {', '.join(BUILT_IN)}; or the path of a Jinja file"


def _find_template(tokenizer: Any, template: str | None) -> tuple[str, str]:
    if template is None:
        if not tokenizer.chat_template:
            raise ValueError(
                f"the tokenizer of {tokenizer.name_or_path!r} has no chat template; pass one with "
                f"--chat-template ({_choices()})"
            )
        return "tokenizer's own", tokenizer.get_chat_template()
    if template in BUILT_IN:
        return template, BUILT_IN[template]
    if Path(template).is_file():
        return template, Path(template).read_text(encoding="utf-8")
    raise ValueError(f"unknown chat template {template!r} ({_choices()})")


def _system_into_user(messages: Sequence[Message]) -> list[Message]:
    """For templates without a system role: its text goes in front of the first user message."""
    if not messages or messages[0]["role"] != "system":
        return list(messages)
    text, rest = messages[0]["content"], list(messages[1:])
    if rest and rest[0]["role"] == "user":
        text = f"{text}\n\n{rest.pop(0)['content']}"
    return [{"role": "user", "content": text}, *rest]
