"""A dialogue as the text that FastChat's own clients make of it.

A worker describes its template by the fields of FastChat's `Conversation`: a system template, two
role names, one or two separators and the number of a style (those of FastChat 0.2.36). Workers of
stock FastChat take nothing but such a text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastchat.conversation import Message

NO_COLON_TWO = 5
LLAMA2 = 7
"""The system text stands inside of the first user message."""
STYLES: dict[int, tuple[str, str, str, str, str]] = {
    1: ("{sep}", ": ", ":", "{sep}", "{sep}"),
    2: ("{sep}", ": ", ":", "{sep}", "{sep2}"),
    3: ("{sep}", ": ", ": ", "{sep}", "{sep}"),
    4: ("", "", "", "{sep}", "{sep}"),
    NO_COLON_TWO: ("", "", "", "{sep}", "{sep2}"),
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


def check(conv: Mapping[str, Any]) -> None:
    """Refuse a template that `render` cannot write.

    Args:
        conv: the fields of `/worker_get_conv_template`.

    Raises:
        ValueError: a field is missing, or the style is none that can be written here.
    """
    missing = [name for name in ("sep_style", "roles", "sep") if conv.get(name) is None]
    if missing:
        raise ValueError(f"the worker's conversation template lacks {', '.join(missing)}")
    if conv["sep_style"] not in {*STYLES, LLAMA2}:
        raise ValueError(
            f"the worker's conversation template {conv.get('name')!r} has the style "
            f"{conv['sep_style']}, which cannot be written here; serve the model with a worker of "
            "this repository, or start the stock one with another --conv-template"
        )


def render(conv: Mapping[str, Any], messages: Sequence[Message], *, examples: bool = True) -> str:
    """The prompt for the answer to `messages`.

    Args:
        conv: the fields of `/worker_get_conv_template`.
        messages: the system's first, if there is one; then user and assistant in turn.
        examples: put the template's own example dialogue in front, as FastChat's clients do.

    Raises:
        ValueError: there is nothing but a system message, or see `check`.
    """
    check(conv)
    given = [message["content"] for message in messages if message["role"] == "system"]
    system = "\n\n".join(given) or conv.get("system_message") or ""
    head = conv.get("system_template", "{system_message}").replace("{system_message}", system)
    texts = [text for _, text in conv.get("messages") or ()] if examples else []
    texts += [message["content"] for message in messages if message["role"] != "system"]
    if not texts:
        raise ValueError("messages: there is none to answer")
    style, roles = conv["sep_style"], conv["roles"]
    separators = {"{sep}": conv["sep"], "{sep2}": conv.get("sep2") or ""}
    if style == LLAMA2:
        return _llama2(roles, list(separators.values()), head if system else "[INST] ", texts)
    after_head, colon, open_end, *ends = (
        part.replace("{sep}", separators["{sep}"]).replace("{sep2}", separators["{sep2}"])
        for part in STYLES[style]
    )
    if not system and style in NO_EMPTY_SYSTEM:
        head = ""
    if not head and style in NO_EMPTY_HEAD:
        after_head = ""
    parts = [head + after_head]
    parts += [roles[i % 2] + colon + text + ends[i % 2] for i, text in enumerate(texts)]
    return "".join(parts) + roles[len(texts) % 2] + open_end


def _llama2(roles: Sequence[str], ends: Sequence[str], head: str, texts: Sequence[str]) -> str:
    later = [f"{roles[i % 2]} {text}{ends[i % 2]}" for i, text in enumerate(texts) if i > 0]
    return f"{head}{texts[0]} {''.join(later)}{roles[len(texts) % 2]}"
