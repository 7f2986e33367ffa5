"""The chat templates that are built in, in Jinja, and the day that a template prints."""

import datetime
import re
from typing import Any

DATE = "2024-07-26"
"""The day that a template which prints today's date prints, where nobody says another one: the
same dialogue would else differ from one day to the next. It is the default of Llama 3.1."""

_TODAY = (
    "{%- macro strftime_now(format) -%}"
    "{%- set shown = namespace(text=format) -%}"
    "{%- for directive, text in date_parts.items() -%}"
    "{%- set shown.text = shown.text | replace(directive, text) -%}"
    "{%- endfor -%}"
    "{{ shown.text }}"
    "{%- endmacro %}\n"
)
"""In front of a template it takes the place of the function that asks the clock."""

_DIRECTIVE = re.compile(r"%-?[a-zA-Z%]")

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


def with_day(source: str, date: str) -> tuple[str, dict[str, Any]]:
    """A template that prints this day (YYYY-MM-DD) for today, and the variables that it takes."""
    if "strftime_now" not in source:
        return source, {}
    day = datetime.date.fromisoformat(date)
    # "%%" comes last: what it leaves is no directive.
    names = sorted(set(_DIRECTIVE.findall(source)), reverse=True)
    return _TODAY + source, {"date_parts": {name: day.strftime(name) for name in names}}
