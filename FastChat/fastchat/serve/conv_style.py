"""A chat template in the terms of FastChat's `Conversation`, for clients that build prompts.

FastChat's clients know no Jinja: they join messages with fixed texts, in one of a few numbered
styles. The texts are read off the rendered template, and a style is used only if it gives back what
the template renders. Clients that send `messages` need none of this and are always exact.

A dialogue as the text that FastChat's own clients make of it.

A worker describes its template by the fields of FastChat's `Conversation`: a system template, two
role names, one or two separators and the number of a style (those of FastChat 0.2.36). Workers of
stock FastChat take nothing but such a text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastchat.conversation import ChatTemplate, Message

_SYSTEM, _USER, _ASSISTANT, _USER_AGAIN = "@sys@", "@ask@", "@answer@", "@again@"


def conv_fields(template: ChatTemplate, name: str) -> dict[str, Any]:
    """The JSON of `/worker_get_conv_template`: every field of FastChat 0.2.36's `Conversation`.

    A template whose head differs with and without a system message keeps the one with it; a style
    that no numbered style expresses is approximated by the nearest one.
    """
    pieces = _Pieces(template)
    styles = [style for style in (pieces.plain(), pieces.bracketed()) if style is not None]
    exact = [style for style in styles if all(_matches(style, case) for case in pieces.cases)]
    partly = [style for style in styles if any(_matches(style, case) for case in pieces.cases)]
    chosen = next(iter([*exact, *partly, *styles]))
    return {
        "name": name,
        "messages": [],
        "offset": 0,
        "stop_str": None,
        "stop_token_ids": sorted(template.stop_token_ids),
        **chosen,
    }


class _Pieces:
    """The fixed texts between the messages of a rendered dialogue."""

    def __init__(self, template: ChatTemplate):
        self._bos = template.tokenizer.bos_token or ""
        dialogue = [
            {"role": "user", "content": _USER},
            {"role": "assistant", "content": _ASSISTANT},
            {"role": "user", "content": _USER_AGAIN},
        ]
        with_system = [{"role": "system", "content": _SYSTEM}, *dialogue]
        self.cases = [(d, self._render(template, d)) for d in (with_system, dialogue)]
        self.head, rest = self.cases[1][1].split(_USER, 1)
        self.after_user, rest = rest.split(_ASSISTANT, 1)
        self.after_answer, self.tail = rest.split(_USER_AGAIN, 1)
        before, _, after = self.cases[0][1].split(_USER, 1)[0].partition(_SYSTEM)
        self.system_head = (before, after)

    def plain(self) -> dict[str, Any]:
        """The system text, then role, message and separator for every message."""
        role = _common_end(self.head, self.after_answer)
        before, after = self.system_head
        wrapped = before + "{system_message}" + after.removesuffix(role)
        # Without a system message some templates write a default one; it then stands for it.
        default = self.head.removesuffix(role).removeprefix(before)
        return {
            "system_template": wrapped,
            "system_message": default.removesuffix(after.removesuffix(role)),
            "roles": [role, ""],
            "sep_style": NO_COLON_TWO,
            "sep": self.tail,
            "sep2": self.after_answer.removesuffix(role),
        }

    def bracketed(self) -> dict[str, Any] | None:
        """Llama 2's way: the system message stands inside of the first user message."""
        if self.head != "[INST] " or self.tail != " [/INST]":
            return None
        before, after = self.system_head
        return {
            "system_template": before + "{system_message}" + after,
            "system_message": "",
            "roles": ["[INST]", "[/INST]"],
            "sep_style": LLAMA2,
            "sep": " ",
            "sep2": self.after_answer.removesuffix("[INST] "),
        }

    def _render(self, template: ChatTemplate, dialogue: list[Message]) -> str:
        # The worker adds the BOS token when it encodes a prompt, once.
        return template.render_prompt(dialogue).removeprefix(self._bos)


def _matches(style: dict[str, Any], case: tuple[list[Message], str]) -> bool:
    dialogue, expected = case
    return render({"messages": [], **style}, dialogue) == expected


def _common_end(one: str, other: str) -> str:
    size = 0
    while size < min(len(one), len(other)) and one[-1 - size] == other[-1 - size]:
        size += 1
    return one[len(one) - size :]


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
