"""A chat template in the terms of FastChat's `Conversation`, for clients that build prompts.

FastChat's clients know no Jinja: they join messages with fixed texts, in one of a few numbered
styles. The texts are read off the rendered template, and a style is used only if it gives back what
the template renders. Clients that send `messages` need none of this and are always exact.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    return _render(style, dialogue) == expected


def _common_end(one: str, other: str) -> str:
    size = 0
    while size < min(len(one), len(other)) and one[-1 - size] == other[-1 - size]:
        size += 1
    return one[len(one) - size :]


NO_COLON_TWO = 5
"""The texts stand as they are, with two separators in turn."""
LLAMA2 = 7
"""The system text stands inside of the first user message."""


def _render(style: dict[str, Any], messages: Sequence[Message]) -> str:
    """The text that FastChat's own clients make of a dialogue, up to where the answer begins."""
    given = [message["content"] for message in messages if message["role"] == "system"]
    system = "\n\n".join(given) or style["system_message"]
    text = style["system_template"].replace("{system_message}", system)
    roles, ends = style["roles"], (style["sep"], style["sep2"])
    texts = [message["content"] for message in messages if message["role"] != "system"]
    if style["sep_style"] == LLAMA2:
        text = (text if system else "[INST] ") + texts.pop(0) + " "
        later = [f"{roles[~i % 2]} {each}{ends[~i % 2]}" for i, each in enumerate(texts)]
        return text + "".join(later) + roles[~len(texts) % 2]
    text += "".join(roles[i % 2] + each + ends[i % 2] for i, each in enumerate(texts))
    return text + roles[len(texts) % 2]
