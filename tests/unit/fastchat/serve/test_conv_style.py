"""Clients that join messages by FastChat's numbered styles get the model's own template.

python -m pytest tests/unit/fastchat/serve/test_conv_style.py
"""

import pytest
from tokenizers.processors import TemplateProcessing

from fastchat.conversation import BUILT_IN, ChatTemplate
from fastchat.serve.conv_style import conv_fields
from tests.support.tiny import tiny_tokenizer

USER = {"role": "user", "content": "What is 2 + 2?"}
ANSWER = {"role": "assistant", "content": "5"}
AGAIN = {"role": "user", "content": "Try again."}
SYSTEM = {"role": "system", "content": "Be brief."}

WITH_DEFAULT_SYSTEM = (
    "{%- if messages[0]['role'] != 'system' -%}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}"
    "{%- endif -%}" + BUILT_IN["chatml"]
)


def template_of(name):
    """A built-in template with a tokenizer that adds its BOS token by itself, as real ones do."""
    tokenizer = tiny_tokenizer(name)
    if tokenizer.bos_token:
        bos = (tokenizer.bos_token, tokenizer.bos_token_id)
        post = TemplateProcessing(single=[bos[0], "$A"], special_tokens=[bos])
        tokenizer.backend_tokenizer.post_processor = post
    return ChatTemplate(tokenizer)


def stock_prompt(conv, dialogue):
    """What fschat 0.2.36's Conversation.get_prompt returns for its styles 5 and 7."""
    system = conv["system_message"]
    roles, seps = conv["roles"], [conv["sep"], conv["sep2"]]
    for message in dialogue:
        if message["role"] == "system":
            system = message["content"]
    text = conv["system_template"].format(system_message=system)
    turns = [m["content"] for m in dialogue if m["role"] != "system"] + [None]
    if conv["sep_style"] == 5:
        for i, content in enumerate(turns):
            text += roles[i % 2] + (content + seps[i % 2] if content else "")
        return text
    assert conv["sep_style"] == 7
    text = text if system else "[INST] "
    for i, content in enumerate(turns):
        if not content:
            text += roles[i % 2]
        elif i == 0:
            text += content + " "
        else:
            text += roles[i % 2] + " " + content + seps[i % 2]
    return text


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_dialogues_with_a_system_message_are_exact(name):
    template = template_of(name)
    conv = conv_fields(template, "m")
    for dialogue in ([SYSTEM, USER], [SYSTEM, USER, ANSWER, AGAIN]):
        expected = template.prompt_ids(dialogue)
        assert template.plain_prompt_ids(stock_prompt(conv, dialogue)) == expected
    assert conv["stop_token_ids"] == sorted(template.stop_token_ids)


@pytest.mark.parametrize("name", ["llama-2", "mistral"])
def test_bracket_templates_are_exact_without_a_system_message_too(name):
    template = template_of(name)
    prompt = stock_prompt(conv_fields(template, "m"), [USER, ANSWER, AGAIN])
    assert template.plain_prompt_ids(prompt) == template.prompt_ids([USER, ANSWER, AGAIN])


def test_a_templates_default_system_message_is_the_conversations():
    tokenizer = tiny_tokenizer("chatml")
    tokenizer.chat_template = WITH_DEFAULT_SYSTEM
    template = ChatTemplate(tokenizer)
    conv = conv_fields(template, "m")
    assert conv["system_message"] == "You help."
    for dialogue in ([USER], [USER, ANSWER, AGAIN], [SYSTEM, USER]):
        assert stock_prompt(conv, dialogue) == template.render_prompt(dialogue)
