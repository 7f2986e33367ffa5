"""Examples: token ids as served, the trained span, what is cut and what is dropped.

python -m pytest tests/unit/fastchat/train/data/test_rwr_dataset.py
"""

from itertools import chain

import pytest

from fastchat.conversation import BUILT_IN, ChatTemplate, messages_from_sharegpt
from fastchat.train.data.rows import targets_of
from fastchat.train.data.rwr_dataset import RWRDataset, encode, marked_sample
from tests.support.tiny import tiny_tokenizer
from tests.support.training_data import row, rows, write_rows


@pytest.fixture
def chatml():
    return ChatTemplate(tiny_tokenizer("chatml"))


def only_target(example):
    (target,) = targets_of(example)
    return target


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_context_ids_are_what_a_worker_is_fed_and_the_answer_ends_in_a_stop_token(name):
    template = ChatTemplate(tiny_tokenizer(name))
    for turns in (1, 2, 3):
        example = encode(only_target(row(7, turns)), template, 2048)
        messages = messages_from_sharegpt(row(7, turns)["conversations"])
        ids = list(example.input_ids)
        assert example.cut == 0
        assert ids[: example.action_start] == template.prompt_ids(messages[:-1])
        assert template.tokenizer.decode(ids[example.action_start : -1]) == messages[-1]["content"]
        assert ids[-1] in template.stop_token_ids


def test_the_oldest_attempts_are_cut_first_the_opening_and_the_answer_never(chatml):
    target = only_target(row(5, turns=4))
    whole = encode(target, chatml, 2048)
    shorter = encode(target, chatml, len(whole.input_ids) - 1)
    messages = target.messages[:1] + target.messages[3:]
    assert shorter.cut == 1
    assert list(shorter.input_ids) == list(chain(*chatml.encode(messages)[:2]))
    target = only_target(row(5, turns=3) | {"opening": 3})
    shown = target.messages[:3] + target.messages[-1:]
    length = sum(map(len, chatml.encode(shown)[:2]))
    example = encode(target, chatml, length)
    assert (example.cut, len(example.input_ids)) == (1, length)
    assert encode(target, chatml, length - 1) is None


def test_an_answer_that_does_not_fit_is_dropped_and_counted(chatml, tmp_path):
    content = rows(9)
    content[4]["conversations"][-1]["value"] = "long " * 300
    content.append({"id": "mute", "conversations": [{"from": "human", "value": "q"}]})
    dataset = RWRDataset(write_rows(tmp_path / "f.json", content), chatml, 256)
    report = dataset.report
    assert (report.rows, report.examples, report.too_long, report.without_answer) == (10, 8, 1, 1)
    assert report.dropped == 2
    dataset.check_dropped(0.2)
    with pytest.raises(ValueError, match=r"2 of 10 examples \(20.0%\).*--max_dropped_fraction"):
        dataset.check_dropped(0.1)


def test_the_report_weighs_the_weights_and_data_without_any_is_refused(chatml, tmp_path):
    content = [row(i, reward=0, weight=weight) for i, weight in enumerate((3.0, 1.0, -1.0, 0.0))]
    dataset = RWRDataset(write_rows(tmp_path / "f.json", content), chatml, 256)
    report = dataset.report
    assert report.tokens == sum(dataset.lengths) == sum(len(e.input_ids) for e in dataset)
    assert report.action_tokens == sum(len(e.input_ids) - e.action_start for e in dataset)
    assert (report.weight_min, report.weight_max, report.weight_mean) == (-1.0, 3.0, 0.75)
    assert report.effective_samples == pytest.approx(25 / 11)
    content = [row(i, reward=0, weight=0.0) for i in range(3)]
    with pytest.raises(ValueError, match="nothing to train"):
        RWRDataset(write_rows(tmp_path / "f.json", content), chatml, 256)


def test_lazy_and_eager_examples_are_equal(chatml, tmp_path):
    content = rows(6)
    content[2]["conversations"][1] |= {"value": "an answer of more than one weight", "loss": 0.5}
    del content[3]["id"], content[2]["weight"]
    path = write_rows(tmp_path / "f.json", content)
    eager, lazy = (RWRDataset(path, chatml, 64, lazy) for lazy in (False, True))
    assert [lazy[i] for i in range(len(lazy))] == [eager[i] for i in range(len(eager))]
    assert lazy.report == eager.report
    assert lazy.report.history_cut > 0


def test_a_second_bos_in_the_context_is_refused():
    template = ChatTemplate(tiny_tokenizer("chatml"))
    template.tokenizer.bos_token = "<|im_start|>"
    template.source = "{{ bos_token }}" + template.source
    with pytest.raises(ValueError, match="two BOS tokens"):
        encode(only_target(row(1)), template, 256)


def test_the_printed_sample_marks_what_is_trained(chatml):
    example = encode(only_target(row(1, reward=0)), chatml, 256)
    text = marked_sample(example, chatml)
    assert "<|im_start|>assistant\n[TRAINED>>>It is \\boxed{3}.It is" in text
    assert "<|im_end|><<<TRAINED]" in text
    assert "weight 1 " in text


def test_rows_with_the_same_opening_are_one_trajectory(chatml, tmp_path):
    content = [row(1, 1), row(2, 2), row(1, 3), row(1, 2), row(3, 1)]
    dataset = RWRDataset(write_rows(tmp_path / "f.json", content), chatml, 512)
    assert dataset.trajectories == [0, 1, 0, 0, 2]
