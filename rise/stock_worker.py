r"""Prompts for workers of stock FastChat, which know neither messages nor several samples.

Such a worker describes its template by the fields of FastChat's `Conversation`: a system template,
two role names, one or two separators and a numbered style. Here a dialogue becomes the text that
FastChat's own clients would send; `rise.worker_policy` asks for one sample at a time with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rise.episode import Message

IN_FLIGHT = 5
"""Requests that a stock worker generates at the same time unless told otherwise; more would wait
there, and the time they wait counts."""

STYLES: dict[int, tuple[str, str, str, str, str]] = {
    1: ("{sep}", ": ", ":", "{sep}", "{sep}"),
    2: ("{sep}", ": ", ":", "{sep}", "{sep2}"),
    3: ("{sep}", ": ", ": ", "{sep}", "{sep}"),
    4: ("", "", "", "{sep}", "{sep}"),
    5: ("", "", "", "{sep}", "{sep2}"),
    6: ("{sep}", "\n", "\n", "{sep}", "{sep}"),
    9: ("{sep}\n", "\n", "\n", "{sep}\n", "{sep}\n"),
    11: ("", ":\n", ":\n", "{sep}", "{sep2}\n\n"),
    13: ("", ": <s>", ": <s>", "</s>", "</s>"),
    14: ("{sep}", ":\n", ":\n", "{sep}", "{sep}"),
    15: ("{sep}", ": ", ":", "{sep}", "{sep}"),
    16: ("", "\n", "", "", ""),
    17: ("", ": ", ":", "{sep}", "{sep2}"),
}
"""What stands after the system text, between a role and its message, after the role of the answer
to come, after a user's message and after an answer."""
NO_EMPTY_HEAD = {6, 9, 15}
"""Styles that write no separator after an empty head."""
NO_EMPTY_SYSTEM = {15, 16}
"""Styles whose head is empty where there is no system message."""
LLAMA2 = 7
"""The system text stands inside of the first user message."""


@dataclass(frozen=True)
class StockTemplate:
    """A stock worker's template, as `/worker_get_conv_template` gives it.

    The example dialogue that some templates bring is left out: the environment brings its own.
    """

    sep_style: int
    roles: Sequence[str]
    sep: str
    sep2: str = ""
    system_template: str = "{system_message}"
    system_message: str = ""
    stop_str: str | list[str] | None = None
    stop_token_ids: list[int] = field(default_factory=list)

    @classmethod
    def from_reply(cls, conv: Mapping[str, Any]) -> StockTemplate:
        """Read the field `conv` of the reply.

        Raises:
            ValueError: a field is missing, or the style is none that can be written here.
        """
        names = cls.__dataclass_fields__
        given = {name: conv[name] for name in names if conv.get(name) is not None}
        try:
            template = cls(**given)
        except TypeError as error:
            raise ValueError(f"the worker's template lacks a field: {error}") from error
        if template.sep_style not in {*STYLES, LLAMA2}:
            raise ValueError(
                f"the stock worker's template {conv.get('name')!r} has the style "
                f"{template.sep_style}, which is not supported; start it with another "
                "--conv-template, or serve the model with our worker"
            )
        return template

    def prompt(self, messages: Sequence[Message]) -> str:
        """The text of a dialogue, up to where the answer begins."""
        system = self.system_message
        if messages[0]["role"] == "system":
            system = messages[0]["content"]
            messages = messages[1:]
        head = self.system_template.replace("{system_message}", system)
        texts = [message["content"] for message in messages]
        if self.sep_style == LLAMA2:
            return self._llama2(head if system else "[INST] ", texts)
        after_system, colon, open_end, *ends = (
            part.replace("{sep}", self.sep).replace("{sep2}", self.sep2)
            for part in STYLES[self.sep_style]
        )
        if not system and self.sep_style in NO_EMPTY_SYSTEM:
            head = ""
        if not head and self.sep_style in NO_EMPTY_HEAD:
            after_system = ""
        parts = [head + after_system]
        for i, text in enumerate(texts):
            parts.append(self.roles[i % 2] + colon + text + ends[i % 2])
        return "".join(parts) + self.roles[len(texts) % 2] + open_end

    def _llama2(self, head: str, texts: Sequence[str]) -> str:
        ends = (self.sep, self.sep2)
        later = [
            f"{self.roles[i % 2]} {text}{ends[i % 2]}" for i, text in enumerate(texts) if i > 0
        ]
        return f"{head}{texts[0]} {''.join(later)}{self.roles[len(texts) % 2]}"

    def request(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Our request for n samples as the request that a stock worker takes n times.

        It has no seed: a stock worker has one for all requests, or none.
        """
        kept = ("model", "temperature", "top_p", "max_new_tokens", "echo")
        return {name: request[name] for name in kept} | {
            "prompt": self.prompt(request["messages"]),
            "stop": self.stop_str,
            "stop_token_ids": list(self.stop_token_ids),
        }
