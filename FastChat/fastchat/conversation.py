"""Messages -> token ids and trained spans: the one chat-template code, for serving and training.

A model sees what the worker feeds it: `ChatTemplate.prompt_ids(messages)`. The trainer builds its
examples from the same call (`encode_example`), so what is trained is what is served, token by
token. The template is the tokenizer's own, unless `--chat-template NAME|FILE` names another one,
which then is written into the checkpoint (`install`).

A message is `{"role": "system" | "user" | "assistant", "content": str}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateError

Message = dict[str, str]

# Some templates print today's date; the same dialogue would then differ from one day to the next.
_FIXED_VARIABLES = {"date_string": "26 Jul 2024"}

_ROLES = {"system": "system", "human": "user", "user": "user", "gpt": "assistant"}
_ROLES |= {"assistant": "assistant", "agent": "assistant"}

_CHATML = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)

_LLAMA_2 = (
    "{%- set state = namespace(system='') -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}"
    "{%- set state.system = '<<SYS>>\n' + message['content'] | trim + '\n<</SYS>>\n\n' -%}"
    "{%- elif message['role'] == 'user' -%}"
    "{{ bos_token + '[INST] ' + state.system + message['content'] | trim + ' [/INST]' }}"
    "{%- set state.system = '' -%}"
    "{%- else -%}"
    "{{ ' ' + message['content'] | trim + ' ' + eos_token }}"
    "{%- endif -%}"
    "{%- endfor -%}"
)

_LLAMA_3 = (
    "{{- bos_token -}}"
    "{%- for message in messages -%}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{- message['content'] | trim + '<|eot_id|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{%- endif -%}"
)

_MISTRAL = (
    "{{- bos_token -}}"
    "{%- set state = namespace(system='') -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}"
    "{%- set state.system = message['content'] + '\n\n' -%}"
    "{%- elif message['role'] == 'user' -%}"
    "{{ '[INST] ' + state.system + message['content'] + ' [/INST]' }}"
    "{%- set state.system = '' -%}"
    "{%- else -%}"
    "{{ ' ' + message['content'] | trim + eos_token }}"
    "{%- endif -%}"
    "{%- endfor -%}"
)

_ZEPHYR = (
    "{%- if bos_token -%}{{ bos_token }}{%- endif -%}"
    "{%- for message in messages -%}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|assistant|>\n' }}{%- endif -%}"
)

BUILT_IN: dict[str, str] = {
    "llama-2": _LLAMA_2,
    "llama-3": _LLAMA_3,
    "mistral": _MISTRAL,
    "chatml": _CHATML,
    "zephyr": _ZEPHYR,
}
"""Templates for checkpoints without one, by the name that `--chat-template` takes."""


class ChatTemplate:
    """A tokenizer together with the chat template that serving and training share.

    Args:
        tokenizer: a Hugging Face tokenizer.
        template: a name in `BUILT_IN`, the path of a Jinja file, or None for the tokenizer's own.
        extra_stop_ids: more ids that end an answer (a generation config's `eos_token_id` list).

    Raises:
        ValueError: there is no template, the name is unknown, the template fails on a plain
            dialogue or writes the BOS token twice, or nothing could end an answer.
    """

    def __init__(
        self, tokenizer: Any, template: str | None = None, extra_stop_ids: Iterable[int] = ()
    ):
        self.tokenizer = tokenizer
        self.name, self.source = _find_template(tokenizer, template)
        self._check_doubled_bos()
        self._system_in_user = not self._accepts_system()
        self.turn_end_id = self._find_turn_end()
        stops = {tokenizer.eos_token_id, self.turn_end_id, *extra_stop_ids} - {None}
        if not stops:
            raise ValueError(
                "the tokenizer has no EOS token and its chat template ends a turn with no special "
                "token, so no answer could ever stop; set `eos_token` in tokenizer_config.json"
            )
        self.stop_token_ids: frozenset[int] = frozenset(stops)
        self.unusual_completions = 0
        """Examples whose prompt was no prefix of the whole dialogue (thinking templates)."""

    def render_prompt(self, messages: Sequence[Message]) -> str:
        """The text that the model continues: the messages and the head of the next answer."""
        return self._render(messages, add_generation_prompt=True)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The token ids that a worker feeds to the model for these messages."""
        return self._encode(self.render_prompt(messages))

    def completion_ids(self, messages: Sequence[Message]) -> list[int]:
        """The ids of the last (assistant) message, up to and including its stop token."""
        return self.encode_example(messages)[1]

    def encode_example(self, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
        """One training example: the ids of the context and of the trained action.

        Returns:
            `(prompt, action)`: `prompt` equals `prompt_ids(messages[:-1])`; `action` is what the
            model should have generated after it, ending in a stop token.

        Raises:
            ValueError: the last message is not the assistant's.
        """
        if not messages or messages[-1]["role"] != "assistant":
            raise ValueError("an example must end in an assistant message; nothing to train on")
        prompt_text = self.render_prompt(messages[:-1])
        prompt = self._encode(prompt_text)
        full_text = self._render(messages, add_generation_prompt=False)
        if full_text.startswith(prompt_text):
            action = self._continuation(prompt, prompt_text, full_text)
        else:
            # The template renders a finished answer differently from a running one (it drops or
            # opens <think>): the answer itself is then all that follows the prompt.
            self.unusual_completions += 1
            action = self._encode(messages[-1]["content"])
        return prompt, self._stopped(action)

    def plain_prompt_ids(self, text: str) -> list[int]:
        """The ids of a ready-made prompt string, with the tokenizer's special tokens added once."""
        bos = self.tokenizer.bos_token
        has_bos = bool(bos) and text.startswith(bos)
        return list(self.tokenizer(text, add_special_tokens=not has_bos)["input_ids"])

    def install(self, tokenizer: Any) -> None:
        """Write this template into `tokenizer`, so that a saved checkpoint carries it."""
        tokenizer.chat_template = self.source

    def _continuation(self, prompt: list[int], prompt_text: str, full_text: str) -> list[int]:
        # Encoding both parts together keeps word pieces as the model would write them (a
        # SentencePiece word after a space); where the seam would merge, they are encoded apart.
        joint = self._encode(full_text)
        if joint[: len(prompt)] == prompt:
            return joint[len(prompt) :]
        return self._encode(full_text[len(prompt_text) :])

    def _stopped(self, action: list[int]) -> list[int]:
        """`action` cut after its first stop token; one is added where it has none."""
        for position, token in enumerate(action):
            if token in self.stop_token_ids:
                return action[: position + 1]
        end = self.turn_end_id if self.turn_end_id is not None else self.tokenizer.eos_token_id
        return [*action, min(self.stop_token_ids) if end is None else end]

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        messages = _system_into_user(messages) if self._system_in_user else list(messages)
        try:
            return self._apply(messages, add_generation_prompt)
        except TemplateError as error:
            roles = [message["role"] for message in messages]
            raise ValueError(
                f"the chat template {self.name!r} refuses a dialogue with the roles {roles}: "
                f"{error}; pass another one with --chat-template ({_choices()})"
            ) from error

    def _apply(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        return self.tokenizer.apply_chat_template(
            list(messages),
            chat_template=self.source,
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
            **_FIXED_VARIABLES,
        )

    def _encode(self, text: str) -> list[int]:
        # The template writes the special tokens, so the tokenizer must not add its own.
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

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


def messages_from_sharegpt(conversations: Sequence[dict[str, Any]]) -> list[Message]:
    """`[{"from": "human" | "gpt" | "system", "value": str}]` as messages.

    Raises:
        ValueError: an entry lacks `from` or `value`, or `from` is no known speaker.
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
    """Name and Jinja source of the template to use."""
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
    system, *rest = messages
    if not rest or rest[0]["role"] != "user":
        return [{"role": "user", "content": system["content"]}, *rest]
    content = f"{system['content']}\n\n{rest[0]['content']}"
    return [{"role": "user", "content": content}, *rest[1:]]
