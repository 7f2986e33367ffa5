"""Messages -> token ids: what is trained is what was sampled, whatever a template makes of it.

python -m pytest tests/unit/fastchat/test_conversation.py
"""

import random

import pytest

from fastchat.conversation import (
    BUILT_IN,
    Answer,
    ChatTemplate,
    messages_from_sharegpt,
    pack_ids,
    unpack_ids,
)
from tests.support.thinking import FAMILIES, tokenizer_of
from tests.support.tiny import tiny_tokenizer

QUESTION = {"role": "user", "content": "What is 2 + 2?"}
WRONG = {"role": "assistant", "content": "It is \\boxed{5}."}
RETRY = {"role": "user", "content": "The answer is incorrect. Please try again. What is 2 + 2?"}
RIGHT = {"role": "assistant", "content": "It is \\boxed{4}."}
SYSTEM = {"role": "system", "content": "Answer briefly."}
EPISODE = [QUESTION, WRONG, RETRY, RIGHT]
PIECES = ["<think>", "</think>", "\n", "\n\n", " ", "  "]
PIECES += ["It is", "\\boxed{4}", "é", ".", "<|im_end|>"]


@pytest.fixture(params=sorted(FAMILIES))
def template(request):
    return ChatTemplate(tokenizer_of(request.param))


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


def texts(count=100):
    """Answers with thoughts in every order, blanks on every side, and none at all."""
    draw = random.Random(0)
    return ["", *("".join(draw.choices(PIECES, k=draw.randint(1, 7))) for _ in range(count))]


def dialogue(text, first="<think>5?</think>\n\nIt is 5."):
    first = {"role": "assistant", "content": first}
    return [QUESTION, first, RETRY, {"role": "assistant", "content": text}]


def spelled(template, ids):
    return template.tokenizer.decode(ids, skip_special_tokens=True)


def test_recorded_tokens_are_trained_as_they_are(template):
    draw = random.Random(1)
    for text in texts():
        # As a model may write it: in single characters, not in the longest pieces.
        parts = [text] if draw.random() < 0.5 else list(text)
        ids = [i for part in parts for i in template._encode(part, plain=True)]
        for stopped in (True, False):
            sampled = ids + [template.turn_end_id] * stopped
            answer = Answer(sampled, template.fingerprint, is_cut=not stopped)
            example = template.encode(dialogue(text), answer)
            assert (example.action, example.source) == (sampled, "recorded")
            assert example.prompt == template.prompt_ids(dialogue(text)[:-1])
            assert spelled(template, example.action) == text


def test_a_text_is_tokenized_as_the_continuation_of_the_prompt(template):
    opens = template.render_prompt([QUESTION]).endswith("<think>\n")
    for text in texts():
        for is_cut in (False, True):
            prompt, action, *_ = template.encode(dialogue(text), Answer(is_cut=is_cut))
            assert prompt == template.prompt_ids(dialogue(text)[:-1])
            assert (action[-1:] == [template.turn_end_id]) is (not is_cut)
            closed = opens and not is_cut and "</think>" not in text
            assert spelled(template, action) == "\n</think>\n\n" * closed + text


@pytest.mark.parametrize(
    ("opening", "end"),
    [("<think>\n", "\n</think>"), ("<seed:think>", "</seed:think>"), ("[THINK]", "[/THINK]")],
)
def test_the_one_rule_for_an_answer_without_the_thought_that_the_prompt_opens(opening, end):
    tokenizer = tokenizer_of("r1")
    tokenizer.chat_template = tokenizer.chat_template.replace("<think>\n", opening)
    template = ChatTemplate(tokenizer)
    for text, closed in (("It is 4.", True), (f"Well.{end}It is 4.", False)):
        example = template.encode([QUESTION, {"role": "assistant", "content": text}])
        assert example.closed_thought is closed
        whole = template.tokenizer.decode(example.prompt + example.action)
        said = f"{end}\n\n{text}" if closed else text
        assert whole.endswith(f"<|Assistant|>{opening}{said}</s>")


def test_tokens_of_another_vocabulary_are_not_trained_nor_those_of_another_text():
    template, other = (ChatTemplate(tokenizer_of(name)) for name in ("qwen3", "r1"))
    assert template.fingerprint == ChatTemplate(tokenizer_of("qwen3.5")).fingerprint
    ids = [*template._encode("It is 4."), template.turn_end_id]
    unknown = [*ids[:-1], len(template.tokenizer)]
    for whose, ids_, text, source in (
        (template.fingerprint, ids, "It is 4.", "recorded"),
        (other.fingerprint, ids, "It is 4.", "other_tokenizer"),
        (template.fingerprint, ids, "It is 5.", "edited"),
        (None, ids, "It is 4.", "recorded"),
        (None, ids, "It is 5.", "edited"),
        (None, unknown, "It is 4.", "other_tokenizer"),
        (None, [*template._encode("<|im_start|>4."), ids[-1]], "<|im_start|>4.", "recorded"),
    ):
        example = template.encode(dialogue(text), Answer(ids_, whose))
        assert example.source == source
        assert spelled(template, example.action) in (text, text.removeprefix("<|im_start|>"))


def test_an_end_that_a_server_left_out_is_added_once():
    template = ChatTemplate(tokenizer_of("qwen3"))
    ids = template._encode("It is 4.")
    example = template.encode(dialogue("It is 4."), Answer(ids, template.fingerprint))
    assert example.action == [*ids, template.turn_end_id]


def test_a_sentencepiece_answer_keeps_its_first_word():
    """Llama 2 writes "▁It" after [/INST], though no blank is in its text."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE(unk_token="<unk>"))
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=150, special_tokens=special, show_progress=False)
    raw.train_from_iterator(["It is [/INST] [INST] What 2 + 2?"], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    template = ChatTemplate(tokenizer, "llama-2")
    for text in ("It is", " It is", "It  is "):
        action = template.encode([QUESTION, {"role": "assistant", "content": text}]).action
        assert tokenizer.decode(action[:-1]) == text
        assert tokenizer.convert_ids_to_tokens(action[:1])[0].startswith("▁")


def test_the_date_is_the_one_that_is_given_not_todays():
    template = ChatTemplate(tokenizer_of("llama-3.2"))
    assert "Today Date: 26 Jul 2024" in template.render_prompt([QUESTION])
    assert "Today Date: 02 Jan 2026" in template.render_prompt([QUESTION], "2026-01-02")
    messages = [QUESTION, {"role": "assistant", "content": "4"}]
    prompt = template.encode(messages, Answer(date="2026-01-02")).prompt
    assert prompt == template.prompt_ids([QUESTION], "2026-01-02")
    template.install(template.tokenizer)
    assert template.tokenizer.chat_template == FAMILIES["llama-3.2"][2]


def test_every_form_of_a_date_and_the_edges_of_the_template_are_kept():
    tokenizer = tiny_tokenizer("chatml")
    tokenizer.chat_template = (
        "\n{% set today = strftime_now(format='%A, %-d %B %y (%%)') %}{{ today }}"
        "{% macro day() %}{{ strftime_now('%Y-%m-%d') }}{% endmacro %} {{ day() }}"
        "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    )
    text = ChatTemplate(tokenizer).render_prompt([QUESTION], "2026-01-02")
    assert text == "\nFriday, 2 January 26 (%) 2026-01-02What is 2 + 2?<|im_end|>"


def test_ids_are_packed_without_loss():
    draw = random.Random(2)
    ids = [draw.randrange(200_000) for _ in range(500)] + [0, 127, 128, 2**31 - 1]
    assert unpack_ids(pack_ids(ids)) == ids and unpack_ids("") == []
    assert len(pack_ids(ids)) < 4.1 * len(ids)
    for wrong in ("no base64", "gA==", pack_ids([2**31]), 7):
        with pytest.raises(ValueError, match="token_ids"):
            unpack_ids(wrong)
