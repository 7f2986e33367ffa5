"""workflow_convert.py: from runs and published logs on disk to rows on disk, counted.

python -m pytest tests/unit/test_workflow_convert.py
"""

import json
import math
import re
import shlex
import sys
from pathlib import Path

import pytest

from fastchat.conversation import ChatTemplate
from fastchat.train.data.rows import read_targets
from rise.episodes.shorthand import sketch
from tests.support.conversion import convert, convert_and_draw, published, read, write_run
from tests.support.tiny import tiny_tokenizer


@pytest.fixture
def log(tmp_path):
    """Two turns: repaired, right at once, never right, nothing said at turn 1."""
    return write_run(tmp_path / "run", sketch("w7 r5", "r5", "w7 w7", "- w8"))


@pytest.fixture
def output(tmp_path):
    return tmp_path / "data" / "finetune.json"


def test_rows_weights_and_report(log, output, capsys):
    assert convert_and_draw("--filepath", log, "--output", output, "--remove_duplication") == 0
    rows = read(output)
    # Turn 2 of problem 2 repeats turn 1 and is dropped.
    assert [(row["task_id"], row["turn"]) for row in rows] == [
        *[(0, 1), (0, 2), (1, 1), (2, 1), (3, 1), (3, 2)]
    ]
    right, wrong, nothing = math.exp(2.5), 1.0, math.exp(-2.5)
    expected = [wrong, right, right, wrong, nothing, wrong]
    assert [row["weight"] for row in rows] == pytest.approx(expected)
    assert [row["conversations"][-1]["loss"] for row in rows] == pytest.approx(expected)
    assert not any(turn["loss"] for row in rows for turn in row["conversations"][:-1])

    report = json.loads(Path(f"{output}.report.json").read_text())
    assert (report["episodes"], report["attempts"], report["rows"]) == (4, 7, 6)
    assert report["dropped"] == {"repeated": 1}
    assert report["rows_by_turn"] == {"1": 4, "2": 2}
    assert report["rows_by_reward"] == {"-1": 1, "0": 3, "1": 2}
    size = sum(expected) ** 2 / sum(weight**2 for weight in expected)
    assert report["weights"]["effective_sample_size"] == pytest.approx(size)
    assert Path(f"{output}_hist.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(output.parent.iterdir())) == 3

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "4 episodes, 7 attempts -> 6 rows"
    assert len(lines) <= 10 and "train_mem.py" in lines[-1] and str(output) in lines[-1]


def test_the_trainer_reads_what_was_written(log, output):
    convert("--filepath", log, "--output", output)
    targets = [target for _, row in read_targets(output) for target in row]
    assert [target.weight for target in targets] == [row["weight"] for row in read(output)]
    assert targets[1].messages == sketch("w7 r5")[0].dialogue
    assert {target.opening for target in targets} == {1}


def test_a_run_directory_its_rows_and_its_log_are_the_same_input(log, tmp_path):
    outputs = []
    for path in (log.parent, log.parent / "rows.jsonl", log):
        outputs.append(tmp_path / f"{len(outputs)}.json")
        assert convert("--filepath", path, "--output", outputs[-1]) == 0
    assert outputs[0].read_text() == outputs[1].read_text() == outputs[2].read_text()


TWO, ON = {"context_window": 2}, {"correct_to_correct": True}


@pytest.mark.parametrize(
    ("problem", "config", "flags", "rows"),
    [
        ("w7 w8 r5", {}, "", [(1, 1), (2, 3), (3, 5)]),
        ("w7 w8 r5", TWO, "", [(1, 1), (2, 3), (3, 3)]),
        ("w7 w8 r5", TWO, "--context_window 1", [(1, 1), (2, 1), (3, 1)]),
        ("w7 w8 r5", TWO, "--context_window 3", [(1, 1), (2, 3), (3, 5)]),
        ("r5 r5", {}, "", [(1, 1)]),
        ("r5 r5", ON, "", [(1, 1), (2, 3)]),
        ("r5 r5", ON, "--no-correct_to_correct", [(1, 1)]),
        ("r5 r5", {}, "--correct_to_correct", [(1, 1), (2, 3)]),
    ],
)
def test_what_the_run_was_set_to_holds_unless_it_is_given(
    problem, config, flags, rows, tmp_path, output
):
    """Rows as (turn, messages before the answer)."""
    log = write_run(tmp_path / "run", sketch(problem), len(problem.split()), **config)
    words = ("--filepath", log, "--output", output, "--remove_duplication", *flags.split())
    assert convert(*words) == 0
    found = [(row["turn"], len(row["conversations"]) - 1) for row in read(output)]
    assert found == rows


def test_the_log_of_a_second_run_in_the_same_directory_finds_its_own_configuration(
    tmp_path, output
):
    write_run(tmp_path, sketch("w7 w8 r5"), turns=3)
    inner = write_run(tmp_path / "2_turns", sketch("r5 r5"), turns=2, correct_to_correct=True)
    published = tmp_path / "2_turns.json"
    published.write_text(inner.read_text())
    convert("--filepath", published, "--output", output)
    assert [row["turn"] for row in read(output)] == [1, 2]


def test_the_order_is_the_logs_or_the_seeds(tmp_path, output):
    log = write_run(tmp_path / "run", sketch(*["w7 r5"] * 20))
    orders = []
    seeds = (["1"], ["--seed", "1"])  # as it is given, and as it was given before
    for flags in ([], ["--shuffle"], *(["--shuffle", *seed] for seed in seeds), ["--shuffle"]):
        convert("--filepath", log, "--output", output, "--overwrite", *flags)
        orders.append([row["id"] for row in read(output)])
    plain, shuffled, other, as_before, again = orders
    assert shuffled == again and other == as_before
    assert len({tuple(order) for order in orders}) == 3
    assert sorted(plain) == sorted(shuffled) == sorted(other)


def test_the_same_command_again_says_done(log, output, capsys):
    arguments = ("--filepath", log, "--output", output, "--model_path", "no/such/model/here")
    assert convert(*arguments) == 0
    before = [(path, path.stat().st_mtime_ns) for path in output.parent.iterdir()]
    capsys.readouterr()
    assert convert(*arguments) == 0
    printed = capsys.readouterr().out
    assert "is done" in printed and "train_mem.py" in printed
    assert [(path, path.stat().st_mtime_ns) for path in output.parent.iterdir()] == before


def test_an_output_of_other_settings_or_of_somebody_else_is_kept_unless_told(log, output, capsys):
    convert("--filepath", log, "--output", output)
    before = output.read_bytes()
    assert convert("--filepath", log, "--output", output, "--criteria", "best") == 2
    said = capsys.readouterr().err
    assert "(criteria)" in said and "give another --output, or --overwrite to replace it" in said
    write_run(log.parent, sketch("w7 r5", "r5"))
    assert convert("--filepath", log, "--output", output) == 2
    assert "(the logs)" in capsys.readouterr().err
    assert output.read_bytes() == before
    assert convert("--filepath", log, "--output", output, "--overwrite") == 0
    assert len(read(output)) == 3
    Path(f"{output}.report.json").unlink()
    output.write_text("mine")
    assert convert("--filepath", log, "--output", output) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert output.read_text() == "mine"


def test_an_interrupted_conversion_is_done_again(log, output, monkeypatch):
    from rise.dataset import writer

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writer, "plot_weights", stop)
        assert convert_and_draw("--filepath", log, "--output", output) == 130
    assert not output.exists()
    assert convert("--filepath", log, "--output", output) == 0
    assert len(read(output)) == 7


def test_the_next_command_can_be_run_as_it_stands(log, output, tmp_path, capsys, monkeypatch):
    output = output.with_name("my rows.json")
    assert convert("--filepath", log, "--output", output) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    command = last.removeprefix("Next: ").split(" (")[0]
    assert f"DATA_PATH={output}" in shlex.split(command)
    assert "MODEL=" not in command and "set MODEL to the checkpoint that answered turn 1" in last
    assert (
        convert("--filepath", log, "--output", output, "--model_path", "no/m", "--overwrite") == 0
    )
    assert "Next: MODEL=no/m DATA_PATH=" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["/bin/rise-convert"])  # there are no scripts beside it
    convert("--filepath", log, "--output", output, "--overwrite")
    last = capsys.readouterr().out.splitlines()[-1]
    command = last.removeprefix("Next: ").partition("#")[0]
    assert shlex.split(command)[:2] == ["python", "-m"] and f"--data_path '{output}'" in command


def test_a_dry_run_shows_a_row_and_writes_nothing(log, output, capsys):
    assert convert("--filepath", log, "--output", output, "--dry-run") == 0
    printed = capsys.readouterr().out
    assert '"value": "question 0"' in printed and "nothing was written" in printed
    assert not output.parent.exists()


def test_no_row_left_is_a_failure_that_says_why(tmp_path, output, capsys):
    log = write_run(tmp_path / "run", sketch("w7 w8"))
    assert convert("--filepath", log, "--output", output, "--criteria", "success") == 1
    error = capsys.readouterr().err
    assert "No row is left of 1 episodes (dropped: not success: 2): keep more with" in error
    (log.parent / "rows.jsonl").write_text("")
    assert convert("--filepath", log.parent, "--output", output) == 1
    assert "no finished episode" in capsys.readouterr().err
    assert not output.parent.exists()


OF_RULES = ("--criteria best", "--only_success", "--weighting none", "--temperature 1")
OF_RULES += ("--remove_duplication", "--drop_truncated")
OF_ROWS = ("--model_path m", "--format messages", "--remove_near_duplicates 0.8")
IDLE = (
    ("dpo", "preference pairs", OF_RULES + OF_ROWS),
    ("pair_sft", "pairs", (*OF_RULES, "--context_window 1", "--correct_to_correct")),
)
"""Flags that do nothing for what the rows are written for."""


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--filepath", "nowhere.json"], "nowhere.json: there is no such log"),
        (["--filepath", "emty.json"], "log or run directory (did you mean empty.json?)"),
        (["--filepath", "."], "--filepath .: this directory holds no run"),
        (["--filepath", "empty.json"], "empty.json is empty (0 bytes)"),
        (["--filepath", "torn.json"], "not valid JSON"),
        (["--filepath", "torn.jsonl"], "damaged"),
        (["--output", "."], "is a directory"),
        (["--temperature", "0"], "above 0"),
        (["--temperature", "0.001"], "--temperature"),
        (["--context_window", "0"], "--context_window is 0"),
        (["--env", "math"], "a run of gsm8k"),
        (["--prompt_style", "nowhere.json"], "nowhere.json"),
        (["--max_pairs", "0", "--temperature", "-1"], "--max_pairs is 0: give 1 or more\n"),
        (["--max_pairs", "2"], "--max_pairs says nothing about weighted rows"),
        *(
            (["--to", to, *flag.split()], f"{flag.split()[0]} says nothing about {what}")
            for to, what, flags in IDLE
            for flag in flags
        ),
    ],
)
def test_bad_input_is_one_error_and_nothing_is_written(
    flags, message, log, output, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("torn.json").write_text('{"0": {')
    Path("empty.json").touch()
    Path("torn.jsonl").write_text('{"task_id": 0\n{"task_id": 1}\n')
    before = sorted(tmp_path.rglob("*"))
    assert convert("--filepath", log, "--output", output, *flags) == 2
    errors = capsys.readouterr().err
    assert message in errors and errors.count("error:") == 1 and "Traceback" not in errors
    assert sorted(tmp_path.rglob("*")) == before


def test_a_published_log_without_dialogues_gets_its_prompt_from_the_style(tmp_path, output):
    record = published(sketch("w7 r5")[0])
    del record["dialogue"]
    path = tmp_path / "2_turns.json"
    path.write_text(json.dumps({"0": record}))
    said = ["the answer is 7", "incorrect", "the answer is 5"]
    assert convert("--filepath", path, "--output", output, "--prompt_style", "bare") == 0
    values = [turn["value"] for turn in read(output)[1]["conversations"]]
    assert values == ["question 0", *said]
    assert convert("--filepath", path, "--output", output, "--overwrite") == 0
    values = [turn["value"] for turn in read(output)[1]["conversations"]]
    assert values[-3:] == said and "question 0" in values[-4]


def test_a_published_dialogue_is_what_the_model_saw(tmp_path, output):
    path = tmp_path / "2_turns.json"
    path.write_text(json.dumps({"0": published(sketch("w7 r5")[0])}))
    assert convert("--filepath", path, "--output", output) == 0
    assert [turn["from"] for turn in read(output)[1]["conversations"]] == ["human", "gpt"] * 2


@pytest.mark.parametrize("kept", [1, 2, 3, 4])
def test_a_published_dialogue_that_was_cut_takes_its_prompt_from_the_style(
    tmp_path, output, capsys, kept
):
    record = published(sketch("w7 w6 r5")[0])
    whole = record["dialogue"]
    path = tmp_path / "3_turns.json"
    for dialogue in (whole, whole[-kept:]):
        # As some editors on Windows save it.
        path.write_text("\ufeff" + json.dumps({"0": record | {"dialogue": dialogue}}))
        style = ("--prompt_style", "bare", "--overwrite")
        assert convert("--filepath", path, "--output", output, *style) == 0
        notice = capsys.readouterr().err
        assert notice.count("1 episodes are shorter than their turns") == (dialogue != whole)
        turns = [[t["value"] for t in row["conversations"]] for row in read(output)]
        second = record["turn_history"]["best_actions"][1]
        assert turns[2] == [*turns[1][:-1], second, *turns[2][-2:]]
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
    assert convert("--filepath", log, "--output", output, "--model_path", "no/model") == 0
    said = capsys.readouterr().out
    assert "not counted: the tokenizer of no/model cannot be used (no/model is no dir" in said
    assert len(read(output)) == 7
    (output.parent / "rise").mkdir()
    words = ("--model_path", output.parent / "rise", "--overwrite")
    assert convert("--filepath", log, "--output", output, *words) == 0
    found = re.search(r"cannot be used \((.*)\)", capsys.readouterr().out)
    assert found and not found[1].rstrip().endswith(":")
