"""workflow_convert.py: logs of the published code, rows for other trainers, counted tokens.

python -m pytest tests/unit/test_convert_forms.py
"""

import json
from pathlib import Path

import pytest

from fastchat.conversation import ChatTemplate
from fastchat.train.rows import read_targets
from rise.episodes.shorthand import sketch
from tests.support.conversion import convert, read, write_run
from tests.support.tiny import tiny_tokenizer


@pytest.fixture
def log(tmp_path):
    """Two turns: repaired, right at once, never right, nothing said at turn 1."""
    return write_run(tmp_path / "run", sketch("w7 r5", "r5", "w7 w7", "- w8"))


@pytest.fixture
def output(tmp_path):
    return tmp_path / "data" / "finetune.json"


def test_messages_for_other_trainers(log, output, capsys):
    convert("--filepath", log, "--output", output, "--format", "messages")
    lines = output.read_text().splitlines()
    assert len(lines) == 7
    assert json.loads(lines[0]) == {
        "id": "0-0-1",
        "messages": [
            {"role": "user", "content": "question 0"},
            {"role": "assistant", "content": "the answer is 7"},
        ],
        "reward": 0,
        "weight": 1.0,
        "task_id": 0,
        "turn": 1,
        "opening": 1,
    }
    assert "train_mem.py" not in capsys.readouterr().out


def test_a_published_log_without_dialogues_gets_its_prompt_from_the_style(tmp_path, output):
    history = {
        "best_actions": ["7", "5"],
        "best_observations": ["no", "yes"],
        "best_rewards": [0.0, 1.0],
        "actions": {"0": ["7"], "1": ["5"]},
        "observations": {"0": ["no"], "1": ["yes"]},
        "rewards": {"0": [0.0], "1": [1.0]},
    }
    record = {"task_id": 0, "query": "How many?", "answer": "5", "max_reward": 1.0}
    path = tmp_path / "2_turns.json"
    path.write_text(json.dumps({"0": record | {"turn_history": history}}))
    assert convert("--filepath", path, "--output", output, "--prompt_style", "bare") == 0
    values = [turn["value"] for turn in read(output)[1]["conversations"]]
    assert values == ["How many?", "7", "no", "5"]
    assert convert("--filepath", path, "--output", output, "--overwrite") == 0
    values = [turn["value"] for turn in read(output)[1]["conversations"]]
    assert values[-3:] == ["7", "no", "5"] and "How many?" in values[-4]


def test_a_published_dialogue_is_what_the_model_saw(tmp_path, output):
    record = sketch("w7 r5")[0].to_dict()
    for key in ("answers", "verdicts", "finish_reasons", "models", "usage", "chosen"):
        del record["turn_history"][key]
    record["dialogue"][1]["role"] = "agent"
    record["dialogue"].pop()  # published logs end with the last prompt
    path = tmp_path / "2_turns.json"
    path.write_text(json.dumps({"0": record}))
    assert convert("--filepath", path, "--output", output) == 0
    assert [turn["from"] for turn in read(output)[1]["conversations"]] == ["human", "gpt"] * 2


@pytest.mark.parametrize("kept", [1, 2, 3, 4])
def test_a_published_dialogue_that_was_cut_takes_its_prompt_from_the_style(
    tmp_path, output, capsys, kept
):
    record = sketch("w7 w6 r5")[0].to_dict()
    for key in ("answers", "verdicts", "finish_reasons", "models", "usage", "chosen"):
        del record["turn_history"][key]
    whole = record["dialogue"][:-1]  # published logs end with the last prompt
    path = tmp_path / "3_turns.json"
    for dialogue in (whole, whole[-kept:]):
        # As some editors on Windows save it.
        path.write_text("\ufeff" + json.dumps({"0": record | {"dialogue": dialogue}}))
        style = ("--prompt_style", "bare", "--overwrite")
        assert convert("--filepath", path, "--output", output, *style) == 0
        notice = capsys.readouterr().err
        assert notice.count("1 episodes are shorter than their turns") == (dialogue != whole)
        turns = [[t["value"] for t in row["conversations"]] for row in read(output)]
        assert turns[2] == [
            *turns[1][:-1],
            record["turn_history"]["best_actions"][1],
            *turns[2][-2:],
        ]
        assert turns[2][-2] == record["turn_history"]["best_observations"][1]
        opening = record["query"] if dialogue != whole else record["dialogue"][0]["content"]
        assert turns[0][0] == opening


def test_tokens_are_counted_as_the_trainer_counts_them(log, output, tmp_path, capsys):
    tokenizer = tiny_tokenizer("llama-2")
    tokenizer.save_pretrained(tmp_path / "model")
    model = tmp_path / "model"
    assert convert("--filepath", log, "--output", output, "--model_path", model) == 0
    template = ChatTemplate(tokenizer)
    counted = json.loads(Path(f"{output}.report.json").read_text())["tokens"]
    pairs = [template.encode(target.messages)[:2] for _, (target,) in read_targets(output)]
    assert counted["prompt"]["total"] == sum(len(prompt) for prompt, _ in pairs)
    assert counted["answer"]["total"] == sum(len(answer) for _, answer in pairs)
    assert counted["row"]["max"] == max(len(prompt) + len(answer) for prompt, answer in pairs)
    assert f"{counted['answer']['total']} trained" in capsys.readouterr().out


def test_a_tokenizer_that_cannot_be_loaded_does_not_stop_the_conversion(log, output, capsys):
    assert convert("--filepath", log, "--output", output, "--model_path", "no/such/model") == 0
    assert "tokens: not counted: the tokenizer of no/such/model" in capsys.readouterr().out
    assert len(read(output)) == 7
