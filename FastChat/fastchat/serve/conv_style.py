"""A chat template in the terms of FastChat's `Conversation`, for clients that build prompts.

FastChat's clients know no Jinja: they join messages with fixed texts, in one of a few numbered
styles. The texts are read off the rendered template. Clients that send `messages` need none of this
and are always exact.
"""

from typing import Any

from fastchat.conversation import ChatTemplate, Message

_SYSTEM, _USER, _ASSISTANT, _USER_AGAIN = "@sys@", "@ask@", "@answer@", "@again@"
NO_COLON_TWO = 5
"""The texts stand as they are, with two separators in turn."""
LLAMA2 = 7
"""The system text stands inside of the first user message."""


def conv_fields(template: ChatTemplate, name: str) -> dict[str, Any]:
    """The JSON of `/worker_get_conv_template`: every field of FastChat 0.2.36's `Conversation`.

    A template whose head differs with and without a system message keeps the one with it; a style
    that no numbered style expresses is approximated by the nearest one.
    """
    return {
        "name": name,
        "messages": [],
        "offset": 0,
        "stop_str": None,
        "stop_token_ids": sorted(template.stop_token_ids),
        **_style(template),
    }


def _style(template: ChatTemplate) -> dict[str, Any]:
    """The fixed texts between the messages of a rendered dialogue."""
    dialogue = [
        {"role": "user", "content": _USER},
        {"role": "assistant", "content": _ASSISTANT},
        {"role": "user", "content": _USER_AGAIN},
    ]
    head, rest = _rendered(template, dialogue).split(_USER, 1)
    after_user, rest = rest.split(_ASSISTANT, 1)
    after_answer, tail = rest.split(_USER_AGAIN, 1)
    told = _rendered(template, [{"role": "system", "content": _SYSTEM}, *dialogue])
    before, _, after = told.split(_USER, 1)[0].partition(_SYSTEM)
    bracketed = (head, tail, after_user) == ("[INST] ", " [/INST]", " [/INST] ")
    if bracketed and before.startswith(head) and after_answer.endswith(head):
        return {
            "system_template": before + "{system_message}" + after,
            "system_message": "",
            "roles": ["[INST]", "[/INST]"],
            "sep_style": LLAMA2,
            "sep": " ",
            "sep2": after_answer.removesuffix(head),
        }
    ends = (head[start:] for start in range(len(head) + 1))
    role = next(end for end in ends if after_answer.endswith(end))
    after = after.removesuffix(role)
    return {
        "system_template": before + "{system_message}" + after,
        # Without a system message some templates write a default one; it then stands for it.
        "system_message": head.removesuffix(role).removeprefix(before).removesuffix(after),
        "roles": [role, ""],
        "sep_style": NO_COLON_TWO,
        "sep": tail,
        "sep2": after_answer.removesuffix(role),
    }


def _rendered(template: ChatTemplate, dialogue: list[Message]) -> str:
    # The worker adds the BOS token when it encodes a prompt, once.
    return template.render_prompt(dialogue).removeprefix(template.tokenizer.bos_token or "")
