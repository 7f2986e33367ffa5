"""The data of the baselines: Pair-SFT, and right answers alone at an equal number of tokens.

pytest tests/unit/test_baselines.py
"""

import json
from pathlib import Path

import pytest

from fastchat.conversation import ChatTemplate
from fastchat.train.data.rows import targets_of
from rise.dataset import writer
from rise.episodes.shorthand import sketch
from tests.support.conversion import convert, read, write_run
from tests.support.tiny import tiny_tokenizer


@pytest.fixture
def output(tmp_path):
    return tmp_path / "data" / "baseline.json"


def report_of(output: Path) -> dict:
    return json.loads(Path(f"{output}.report.json").read_text())


def contents(row: dict) -> list[str]:
    return [turn["value"] for turn in row["conversations"]]


def answer(number: int) -> str:
    return f"the answer is {number}"


def test_pair_sft_puts_a_right_answer_after_any_wrong_attempt_at_its_question(tmp_path, output):
    # Question 0 has one right answer and, over two logs, four wrong ones, one of them twice; the
    # others have no right answer, or no wrong one. "t5" was not graded.
    first = write_run(tmp_path / "1", sketch("w7,w8,t5 r5", "w7 w8", "r5"))
    second = write_run(tmp_path / "2", sketch("w7 - w9"), turns=3)
    run = ("--filepath", first, second, "--output", output, "--to", "pair_sft")
    assert convert(*run, "--max_pairs", 3) == 0
    rows = read(output)
    assert [contents(row) for row in rows] == [
        ["question 0", answer(7), "incorrect", answer(5)],
        ["question 0", answer(8), "incorrect", answer(5)],
        ["question 0", "no idea", "incorrect", answer(5)],
    ]
    assert [row["id"] for row in rows] == ["0-0-2-1", "0-0-2-2", "0-0-2-3"]
    assert {(row["turn"], row["weight"], row["reward"], row["opening"]) for row in rows} == {
        (2, 1.0, 1, 1)
    }
    assert [target.weight for row in rows for target in targets_of(row)] == [1.0] * 3
    report = report_of(output)
    assert (report["episodes"], report["attempts"], report["rows"]) == (4, 8, 3)
    assert report["dropped"] == {"question without both a right and a wrong answer": 3}
    assert report["settings"]["weighting"] == "none"
    assert convert(*run, "--overwrite", "--max_pairs", 9) == 0
    assert contents(read(output)[3])[1] == answer(9) and len(read(output)) == 4


def test_pair_sft_keeps_the_feedback_that_the_attempt_got(tmp_path, output):
    episodes = sketch("w7,w8 r5")
    episodes[0].turns[0].observations = ["look at step 2", ""]
    run = write_run(tmp_path / "run", episodes)
    assert convert("--filepath", run, "--output", output, "--to", "pair_sft") == 0
    [row] = read(output)  # nothing was ever said about 8
    assert contents(row)[1:3] == [answer(7), "look at step 2"]


def test_without_a_pair_nothing_is_written(tmp_path, output, capsys):
    run = write_run(tmp_path / "run", sketch("w7 w8", "r5"))
    assert convert("--filepath", run, "--output", output, "--to", "pair_sft") == 1
    assert "no question has both a right answer and a wrong one" in capsys.readouterr().err
    assert not output.exists()


@pytest.fixture
def rise_data(tmp_path):
    """RISE's rows of a run with two right answers, their tokens counted; and that run."""
    run = write_run(tmp_path / "run", sketch("w7 r5", "r5", "w7 w8", "w9 w3"))
    tiny_tokenizer("llama-2").save_pretrained(tmp_path / "model")
    data = tmp_path / "rise.json"
    model = ("--model_path", tmp_path / "model")
    assert convert("--filepath", run, "--output", data, *model) == 0
    return run, data, model


SINGLE = ("--criteria", "success", "--weighting", "none", "--context_window", 1)


def test_single_turn_data_is_repeated_to_the_tokens_of_the_rise_data(rise_data, output, capsys):
    run, data, model = rise_data
    match = ("--filepath", run, "--output", output, *model, *SINGLE, "--match_tokens", data)
    assert convert(*match) == 0
    rows = read(output)
    # Seven answers of equal length there, two here: three passes and one row more.
    assert len(read(data)) == 7 and len(rows) == 7
    assert {tuple(contents(row)) for row in rows} == {
        ("question 0", answer(5)),
        ("question 1", answer(5)),
    }
    assert sorted(sum(row["task_id"] == task for row in rows) for task in (0, 1)) == [3, 4]
    assert {row["conversations"][-1]["loss"] for row in rows} == {1.0}
    budget = report_of(data)["tokens"]["answer"]["total"]
    template = ChatTemplate(tiny_tokenizer("llama-2"))
    targets = (target for row in rows for target in targets_of(row))
    trained = sum(len(template.encode(target.messages).action) for target in targets)
    assert report_of(output)["match_tokens"] == {"budget": budget, "rows": 7, "total": trained}
    assert trained == budget
    assert f"7 rows with {budget} trained tokens" in capsys.readouterr().out
    assert convert(*match) == 0  # the same again is done
    # A data set that was repeated itself counts with what was written.
    third = output.with_name("third.json")
    again = ("--filepath", run, "--output", third, *model, "--match_tokens", output)
    assert convert(*again) == 0 and len(read(third)) == 7


def test_another_budget_is_another_data_set(rise_data, output, capsys):
    run, data, model = rise_data
    match = ("--filepath", run, "--output", output, *model, *SINGLE, "--match_tokens", data)
    assert convert(*match) == 0
    assert convert("--filepath", run, "--output", data, *model, *SINGLE, "--overwrite") == 0
    assert convert(*match) == 2 and "other settings (match_tokens)" in capsys.readouterr().err
    assert convert(*match, "--overwrite") == 0 and len(read(output)) == 2


def test_budgets_are_met_to_half_a_row_and_never_with_nothing():
    lengths = [5, 9, 2]
    for budget in range(40, 80):
        places = writer.repeated(lengths, budget, seed=1)
        assert abs(sum(lengths[place] for place in places) - budget) <= 9 / 2
    assert len(writer.repeated(lengths, 0, seed=1)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--match_tokens", "absent.json"], "absent.json.report.json is not beside it"),
        (["--match_tokens", "DATA"], "convert both data sets with --model_path"),
        (["--match_tokens", "DATA", "--model_path", "other"], "was counted with the tokenizer of"),
        (["--match_tokens", "DATA", "--to", "dpo"], "--match_tokens says nothing about preference"),
    ],
)
def test_contradictions_are_refused(rise_data, output, arguments, message, capsys):
    run, data, _ = rise_data
    words = [data if word == "DATA" else word for word in arguments]
    assert convert("--filepath", run, "--output", output, *words) == 2
    assert message in capsys.readouterr().err and not output.exists()
