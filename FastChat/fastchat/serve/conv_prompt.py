"""A dialogue as the text that FastChat's own clients make of it.

A worker describes its template by the fields of FastChat's `Conversation`: a system template, two
role names, one or two separators and the number of a style (those of FastChat 0.2.36).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastchat.conversation import Message

NO_COLON_TWO = 5
LLAMA2 = 7


@dataclass(frozen=True)
class _Style:
    """How the texts are joined; `s` stands for the first separator, `t` for the second."""

    head: str
    """After the system text."""
    colon: str
    """Between a role and its text."""
    answer: str
    """After the role whose text is to come."""
    ends: tuple[str, str]
    """After a user's text and after an answer."""
    bare: bool = False
    """Nothing follows an empty system text."""


_STYLES = {
    1: _Style("s", ": ", ":", ("s", "s")),
    2: _Style("s", ": ", ":", ("s", "t")),
    3: _Style("s", ": ", ": ", ("s", "s")),
    4: _Style("", "", "", ("s", "s")),
    NO_COLON_TWO: _Style("", "", "", ("s", "t")),
    6: _Style("s", "\n", "\n", ("s", "s"), bare=True),
    9: _Style("s\n", "\n", "\n", ("s\n", "s\n"), bare=True),
}


def render(conv: dict[str, Any], messages: Sequence[Message]) -> str:
    """The prompt for the answer to `messages`, the template's own examples in front.

    Args:
        conv: the fields of `/worker_get_conv_template`.
        messages: the system's first, if there is one; then user and assistant in turn.

    Raises:
        ValueError: there is nothing but a system message, or the style cannot be written here.
    """
    given = [message["content"] for message in messages if message["role"] == "system"]
    system = "\n\n".join(given) or conv["system_message"]
    head = conv["system_template"].replace("{system_message}", system)
    texts = [text for _, text in conv["messages"]]
    texts += [message["content"] for message in messages if message["role"] != "system"]
    if not texts:
        raise ValueError("messages: there is none to answer")
    if conv["sep_style"] == LLAMA2:
        return _llama2(conv, head if system else "[INST] ", texts)
    style = _STYLES.get(conv["sep_style"])
    if style is None:
        raise ValueError(
            f"the worker's conversation template {conv['name']!r} has the style "
            f"{conv['sep_style']}, which cannot be written here; serve the model with a worker of "
            "this repository, or start the stock one with another --conv-template"
        )
    separators = {"s": conv["sep"] or "", "t": conv["sep2"] or ""}

    def fill(pattern: str) -> str:
        return "".join(separators.get(letter, letter) for letter in pattern)

    parts = [head, "" if style.bare and not head else fill(style.head)]
    for i, text in enumerate(texts):
        parts += [conv["roles"][i % 2], style.colon, text, fill(style.ends[i % 2])]
    return "".join(parts) + conv["roles"][len(texts) % 2] + style.answer


def _llama2(conv: dict[str, Any], head: str, texts: list[str]) -> str:
    """Llama 2's style: the system text stands inside of the first user message."""
    ends = (conv["sep"], conv["sep2"])
    text = head + texts[0] + " "
    for i, later in enumerate(texts[1:], start=1):
        text += conv["roles"][i % 2] + " " + later + ends[i % 2]
    return text + conv["roles"][len(texts) % 2]
