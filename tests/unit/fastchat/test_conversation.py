"""Messages -> token ids: what is served is what is trained.

python -m pytest tests/unit/fastchat/test_conversation.py
"""

import pytest

from fastchat.conversation import BUILT_IN, ChatTemplate, messages_from_sharegpt
from tests.support.tiny import tiny_tokenizer

QUESTION = {"role": "user", "content": "What is 2 + 2?"}
WRONG = {"role": "assistant", "content": "It is \\boxed{5}."}
RETRY = {"role": "user", "content": "The answer is incorrect. Please try again. What is 2 + 2?"}
RIGHT = {"role": "assistant", "content": "It is \\boxed{4}."}
SYSTEM = {"role": "system", "content": "Answer briefly."}
EPISODE = [QUESTION, WRONG, RETRY, RIGHT]


@pytest.fixture(params=sorted(BUILT_IN))
def template(request):
    return ChatTemplate(tiny_tokenizer(request.param))


def test_bos_is_written_once(template):
    bos = template.tokenizer.bos_token_id
    ids = template.prompt_ids([QUESTION])
    assert bos is None or (ids[0] == bos and ids[1] != bos)


@pytest.mark.parametrize("name", ["chatml", "llama-3", "zephyr"])
def test_where_the_template_keeps_answers_the_next_prompt_begins_with_the_example(name):
    template = ChatTemplate(tiny_tokenizer(name))
    context, action, *_ = template.encode(EPISODE[:2])
    next_prompt = template.prompt_ids(EPISODE[:3])
    assert next_prompt[: len(context) + len(action)] == context + action


def test_llama_3_stops_at_the_end_of_the_turn_not_only_of_the_text():
    template = ChatTemplate(tiny_tokenizer("llama-3"))
    eot = template.tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert template.turn_end_id == eot
    assert template.stop_token_ids == {eot, template.tokenizer.eos_token_id}


def test_llama_2_prompt_has_its_published_form():
    template = ChatTemplate(tiny_tokenizer("llama-2"))
    assert template.render_prompt([SYSTEM, QUESTION]) == (
        "<s>[INST] <<SYS>>\nAnswer briefly.\n<</SYS>>\n\nWhat is 2 + 2? [/INST]"
    )


def test_a_template_without_system_role_gets_it_in_the_first_user_message():
    tokenizer = tiny_tokenizer("zephyr", installed=False)
    tokenizer.chat_template = (
        "{%- for m in messages -%}"
        "{%- if m['role'] == 'system' -%}{{ raise_exception('no system role') }}{%- endif -%}"
        "{{ '[' + m['role'] + ']' + m['content'] + eos_token }}{%- endfor -%}"
    )
    prompt = ChatTemplate(tokenizer).render_prompt([SYSTEM, QUESTION])
    assert prompt == "[user]Answer briefly.\n\nWhat is 2 + 2?</s>"


def test_a_template_that_ends_no_turn_gets_the_eos_token():
    tokenizer = tiny_tokenizer("zephyr", installed=False)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}\n{% endfor %}"
    )
    action = ChatTemplate(tokenizer).encode(EPISODE).action
    assert action[-1] == tokenizer.eos_token_id


def test_the_template_can_come_from_a_file_and_is_written_into_the_tokenizer(tmp_path):
    path = tmp_path / "own.jinja"
    path.write_text(BUILT_IN["zephyr"])
    tokenizer = tiny_tokenizer("zephyr", installed=False)
    template = ChatTemplate(tokenizer, str(path))
    template.install(tokenizer)
    assert ChatTemplate(tokenizer).prompt_ids([QUESTION]) == template.prompt_ids([QUESTION])


def test_templates_that_cannot_be_used_are_one_error_with_the_remedy():
    with pytest.raises(ValueError, match="--chat-template .*llama-2, llama-3"):
        ChatTemplate(tiny_tokenizer("zephyr", installed=False))
    with pytest.raises(ValueError, match="unknown chat template 'vicuna'"):
        ChatTemplate(tiny_tokenizer(), "vicuna")
    tokenizer = tiny_tokenizer("llama-2", installed=False)
    tokenizer.chat_template = "{{ bos_token + bos_token }}" + BUILT_IN["zephyr"]
    with pytest.raises(ValueError, match="BOS token twice"):
        ChatTemplate(tokenizer)


def test_a_ready_made_prompt_gets_its_special_tokens_once():
    tokenizer = tiny_tokenizer("llama-2")
    template = ChatTemplate(tokenizer)
    text = template.render_prompt([QUESTION])
    assert template.plain_prompt_ids(text) == template.prompt_ids([QUESTION])


def test_sharegpt_turns_become_messages():
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a", "loss": 1.0}]
    assert messages_from_sharegpt(turns) == [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
    ]
    with pytest.raises(ValueError, match="turn 0 of a conversation"):
        messages_from_sharegpt([{"from": "bot", "value": "x"}])


def test_an_example_must_end_in_an_answer(template):
    with pytest.raises(ValueError, match="must end in an assistant message"):
        template.encode(EPISODE[:3])
