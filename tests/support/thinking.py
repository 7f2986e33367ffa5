"""Tiny tokenizers with chat templates that decide as published ones do about an answer.

Those that are not built in are written here; of the originals they have the conditions that matter:
what the generation prompt opens, what becomes of an answer in the history, who asks for the date.
"""

from typing import Any

from fastchat.conversation import BUILT_IN
from tests.support.tiny import tiny_tokenizer

_SPLIT = (
    "{%- set text = m.content -%}{%- set thought = '' -%}"
    "{%- if m.role == 'assistant' and '</think>' in text -%}"
    "{%- set thought = text.split('</think>')[0].split('<think>')[-1].strip('\n') -%}"
    "{%- set text = text.split('</think>')[-1].lstrip('\n') -%}{%- endif -%}"
)


def _qwen(opening: str) -> str:
    """A last answer always gets a block for its thought, one in the history loses it."""
    return (
        "{%- for m in messages -%}" + _SPLIT + "{{ '<|im_start|>' + m.role + '\n' }}"
        "{%- if m.role == 'assistant' and loop.last -%}"
        "{{ '<think>\n' + thought + '\n</think>\n\n' }}{%- endif -%}"
        "{{ text + '<|im_end|>\n' }}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n" + opening + "' }}"
        "{%- endif -%}"
    )


_R1 = (
    "{{ bos_token }}{%- for m in messages -%}" + _SPLIT + "{%- if m.role == 'assistant' -%}"
    "{{ '<|Assistant|>' + text + eos_token }}"
    "{%- else -%}{{ '<|User|>' + text }}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|Assistant|><think>\n' }}{%- endif -%}"
)
_GEMMA = (
    "{{ bos_token }}{%- for m in messages -%}"
    "{%- if m.role == 'system' -%}{{ raise_exception('no system role') }}{%- endif -%}"
    "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n'"
    " + m.content | trim + '<end_of_turn>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"
)
_LLAMA_3_2 = (
    "{%- if not date_string is defined -%}{%- if strftime_now is defined -%}"
    "{%- set date_string = strftime_now('%d %b %Y') -%}"
    "{%- else -%}{%- set date_string = '26 Jul 2024' -%}{%- endif -%}{%- endif -%}"
    "{{ bos_token + '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + date_string"
    " + '<|eot_id|>' }}{%- for m in messages -%}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim"
    " + '<|eot_id|>' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif -%}"
)

FAMILIES: dict[str, tuple[str, list[str], str | None]] = {
    **{name: (name, [], None) for name in BUILT_IN},
    "qwen3": ("chatml", [], _qwen("")),
    "qwen3-no-thinking": ("chatml", [], _qwen(r"<think>\n\n</think>\n\n")),
    "qwen3.5": ("chatml", [], _qwen(r"<think>\n")),
    "r1": ("zephyr", ["<|User|>", "<|Assistant|>"], _R1),
    "gemma": ("zephyr", ["<start_of_turn>", "<end_of_turn>"], _GEMMA),
    "llama-3.2": ("llama-3", [], _LLAMA_3_2),
}
"""Whose special tokens, more special tokens, and the template: None for that of the first."""


def tokenizer_of(family: str) -> Any:
    """A tiny tokenizer of such a family; <think> and </think> are one token each, as in Qwen."""
    from tokenizers import AddedToken

    base, special, template = FAMILIES[family]
    tokenizer = tiny_tokenizer(base)
    tokenizer.add_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.add_tokens([AddedToken(f"<{end}think>", special=False) for end in ("", "/")])
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer
