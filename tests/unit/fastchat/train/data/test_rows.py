"""Rows of a fine-tuning file: which answers are trained with which weight, what is refused.

python -m pytest tests/unit/fastchat/train/data/test_rows.py
"""

import pytest

from fastchat.train.data.rows import Notes, read_targets, targets_of
from tests.support.training_data import row, rows, write_rows

QUESTION = {"from": "human", "value": "q"}


def conversation(*losses):
    """A dialogue with one gpt turn per loss; None leaves the field out."""
    turns = []
    for loss in losses:
        turns.append({"from": "human", "value": "q"})
        turns.append({"from": "gpt", "value": "a"} | ({} if loss is None else {"loss": loss}))
    return {"id": "x", "conversations": turns}


def test_weighted_answers_are_trained_each_in_the_context_of_all_before():
    (target,) = targets_of(row(4, turns=3, reward=1))
    assert [m["role"] for m in target.messages] == ["user", "assistant"] * 3
    assert target.weight == pytest.approx(12.1825, abs=1e-4)
    assert (target.reward, target.opening, target.row) == (1, 1, "0-4-3")
    targets = targets_of(conversation(2.0, 0, -0.5))
    assert [(len(t.messages), t.weight) for t in targets] == [(2, 2.0), (6, -0.5)]
    assert [(len(t.messages), t.weight) for t in targets_of(conversation(0, 0))] == [(4, 0.0)]
    assert targets_of({"conversations": [{"from": "human", "value": "q"}]}) == []


def test_rows_without_loss_are_plain_supervised_data():
    plain = conversation(None, None)
    assert [t.weight for t in targets_of(plain)] == [1.0, 1.0]
    nulls = [turn | {"loss": None} for turn in plain["conversations"]]
    found = targets_of({"id": None, "conversations": nulls}, position=3)
    assert [(t.row, t.weight) for t in found] == [("row 3", 1.0)] * 2
    nulls[-1]["loss"] = 2.0
    assert [t.weight for t in targets_of({"conversations": nulls})] == [2.0]


def test_the_opening_is_the_first_question_unless_the_row_says_more():
    example = conversation(0, 0, 1.0)
    assert targets_of(example)[0].opening == 1
    assert targets_of(example | {"opening": 3})[0].opening == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conversations": "text"}, "a row must be"),
        ({"conversations": ["text"]}, "a turn must be an object"),
        ({"conversations": [{"from": "robot", "value": "a"}]}, "turn 0"),
        ({"conversations": [{"from": "human", "value": "q", "loss": 2}]}, "is no gpt turn"),
        (
            {"conversations": [QUESTION, {"from": "gpt", "value": "a", "loss": float("nan")}]},
            "finite",
        ),
        ({"conversations": [QUESTION, {"from": "gpt", "value": "a", "loss": "1"}]}, "finite"),
        ({"weight": 3.0}, "weight 3.0 is not the loss 1.0"),
        ({"reward": "good"}, "reward must be a finite number"),
        ({"reward": 10**400}, "reward must be a finite number"),
        ({"conversations": [QUESTION, {"from": "gpt", "value": "a", "loss": ""}]}, "finite"),
        ({"conversations": [QUESTION, {"from": "gpt", "value": "a", "loss": 1e39}]}, "of 32 bits"),
        (
            {"conversations": [QUESTION | {"loss": 0}, {"from": "gpt", "value": "a"}]},
            "no answer has a loss, but other turns have",
        ),
        ({"conversations": [{"from": "gpt", "value": None}]}, "turn 0"),
    ],
)
def test_a_malformed_row_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        targets_of(row(0, reward=0) | change)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"prompt": [], "chosen": [], "rejected": []}, "preference pairs .*DPOTrainer"),
        ({"question": "q", "answer": "5"}, "a problem and no attempt at it: workflow_gen.py"),
        ({"problem": "q", "solution": "5"}, "a problem and no attempt at it: workflow_gen.py"),
        ({"0": {"turn_history": {}}}, "the log of a run, not yet .*workflow_convert.py"),
        ({"task_id": 0, "turn_history": {}}, "the log of a run"),
        ({"messages": [], "opening": 1}, "other trainers .*use --format fastchat"),
        ({"messages": []}, '"conversations": .* rename messages to .*role to from'),
        ({"instruction": "q", "output": "a"}, "got .*instruction.* write what is asked as a human"),
        ({}, "a row must be .* got {}"),
        ([QUESTION], "a row must be"),
    ],
)
def test_rows_of_other_kinds_are_told_what_to_do(other, message):
    with pytest.raises(ValueError, match=message):
        targets_of(other)


def test_the_message_names_the_row(tmp_path):
    content = rows(3)
    content[2]["conversations"][0]["from"] = "nobody"
    with pytest.raises(ValueError, match=r"finetune.json, row 2: turn 0"):
        list(read_targets(write_rows(tmp_path / "finetune.json", content)))


def test_published_rows_train_every_answer_or_the_last():
    example = conversation(None, None)
    assert [len(t.messages) for t in targets_of(example, loss_on="all")] == [2, 4]
    assert [len(t.messages) for t in targets_of(example, loss_on="last")] == [4]
    ours = row(4, turns=3)
    assert targets_of(ours, loss_on="last") == targets_of(ours)


def test_a_leading_gpt_turn_is_left_out_and_unknown_fields_are_named_once():
    notes = Notes()
    answer = {"from": "gpt", "value": "hello", "markdown": None, "text": None}
    turns = [{"from": "system", "value": "s"}, answer, *conversation(None)["conversations"], answer]
    for _ in range(2):
        first, second = targets_of({"conversations": turns, "lang": "en"}, notes=notes)
    assert [m["content"] for m in second.messages] == ["s", "q", "a", "hello"]
    assert (len(first.messages), first.opening) == (3, 2)
    assert "(lang, markdown, text)" in str(notes) and "2 gpt turns before" in str(notes)
    assert targets_of({"conversations": [answer]}) == [] and str(Notes()) == ""


def test_half_an_emoji_is_replaced():
    (target,) = targets_of(
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "\ud83d!"}]}
    )
    assert target.messages[-1]["content"] == "\ufffd!"
