"""What workflow_convert.py refuses, and what it leaves as it is.

python -m pytest tests/unit/test_convert_refusals.py
"""

import json

import pytest

from rise.episodes.shorthand import sketch
from tests.support.conversion import convert, write_run


@pytest.mark.parametrize("name", ["", "rows.jsonl", "2_turns.json"])
def test_an_evaluation_is_refused(name, tmp_path, capsys):
    write_run(tmp_path / "run", sketch("w7 r5"), stage="eval")
    arguments = ("--filepath", tmp_path / "run" / name, "--output", tmp_path / "data.json")
    assert convert(*arguments) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert f"--filepath {tmp_path / 'run' / name} is an evaluation" in error
    assert "stage eval" in error
    assert not (tmp_path / "data.json").exists()


def edit(path, change) -> None:
    """Change the record of the last line of a rows.jsonl."""
    *lines, last = path.read_text().splitlines()
    record = json.loads(last)
    change(record)
    path.write_text("\n".join([*lines, json.dumps(record)]) + "\n")


def one_line(capsys) -> str:
    (error,) = capsys.readouterr().err.splitlines()
    return error


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r["dialogue"][0].update(role="tool"), "a message of role 'tool', expected sys"),
        (lambda r: r["dialogue"][0].update(content=None), "a message with content None, expected"),
        (lambda r: r.update(query=None), "its query is None, expected a text"),
        (lambda r: r["turn_history"]["rewards"].update({"1": [float("nan")]}), "finite numbers"),
        (lambda r: r["turn_history"]["rewards"].update({"1": [float("inf")]}), "finite numbers"),
        (lambda r: r["turn_history"]["actions"].update({"0": [None]}), "an action is no text"),
        (lambda r: r.update(turn_history=[]), "an episode is an object"),
        (lambda r: r.update(mood="fine"), "unknown keys mood"),
    ],
)
@pytest.mark.parametrize("form", ["fastchat", "messages"])
def test_a_record_that_would_be_odd_data_is_named_by_its_line(tmp_path, change, said, form, capsys):
    write_run(tmp_path / "run", sketch("w7 r5", "w7 r5"))
    edit(tmp_path / "run" / "rows.jsonl", change)
    before, output = sorted(tmp_path.rglob("*")), tmp_path / "made" / "data.json"
    assert convert("--filepath", tmp_path / "run", "--output", output, "--format", form) == 2
    error = one_line(capsys)
    assert f"{tmp_path}/run/rows.jsonl, line 2: " in error and said in error
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("task_id", [True, 2**63, "1", None])
@pytest.mark.parametrize("name", ["rows.jsonl", "2_turns.json"])
def test_a_task_id_that_is_no_number_of_64_bits_is_refused(tmp_path, task_id, name, capsys):
    log = write_run(tmp_path / "run", sketch("w7 r5", "w7 r5"))
    edit(log.with_name("rows.jsonl"), lambda record: record.update(task_id=task_id))
    records = map(json.loads, log.with_name("rows.jsonl").read_text().splitlines())
    log.write_text(json.dumps(dict(enumerate(records))))
    output = tmp_path / "data.json"
    assert convert("--filepath", tmp_path / "run" / name, "--output", output) == 2
    said = "line 2 of" if name == "rows.jsonl" else 'key "1": this is no episode with a task_id'
    assert said in one_line(capsys)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("[]", "holds a list, expected a JSON object"),
        ({"context_window": "2"}, "context_window is '2', expected int or null"),
        ({"problems": True}, "problems is True, expected int or null"),
        ({"env": ["gsm8k"]}, "env is ['gsm8k'], expected str or null"),
        ({"shard": 3}, "shard is 3, expected str or null"),
    ],
)
@pytest.mark.parametrize("name", ["", "2_turns.json"])
def test_a_config_that_no_run_writes_is_named(tmp_path, config, said, name, capsys):
    path = write_run(tmp_path / "run", sketch("w7 r5")).with_name("config.json")
    known = {"max_turns": 2, "problems": 1}
    path.write_text(config if isinstance(config, str) else json.dumps(known | config))
    output = tmp_path / "data.json"
    assert convert("--filepath", tmp_path / "run" / name, "--output", output) == 2
    error = one_line(capsys)
    assert said in error and str(path) in error


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("run", "run", "are of the same run"),
        ("run", "run/2_turns.json", "are of the same run"),
        ("run/rows.jsonl", "other/../run", "are of the same run"),
        ("run", "copy.jsonl", "are equal, byte by byte"),
    ],
)
def test_a_log_that_is_given_twice_is_refused(tmp_path, first, second, said, capsys):
    write_run(tmp_path / "run", sketch("w7 r5"))
    write_run(tmp_path / "other", sketch("w8 r5"))
    (tmp_path / "copy.jsonl").write_bytes((tmp_path / "run" / "rows.jsonl").read_bytes())
    logs = (f"{tmp_path}/{first}", tmp_path / "other", f"{tmp_path}/{second}")
    assert convert("--filepath", *logs, "--output", tmp_path / "data.json") == 2
    assert f"--filepath {tmp_path}/{first} and {tmp_path}/{second} {said}" in one_line(capsys)


def test_two_logs_of_one_directory_are_two_runs(tmp_path):
    write_run(tmp_path / "run", sketch("w7 r5"))
    write_run(tmp_path / "run" / "3_turns", sketch("w7 w8 r5"), turns=3)
    (tmp_path / "run" / "3_turns" / "3_turns.json").rename(tmp_path / "run" / "3_turns.json")
    logs = [tmp_path / "run" / name for name in ("2_turns.json", "3_turns.json")]
    assert convert("--filepath", *logs, "--output", tmp_path / "data.json") == 0
    assert len(json.loads((tmp_path / "data.json").read_text())) == 5


@pytest.mark.parametrize("name", ["", "2_turns.json"])
@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"problems": 100}, "holds 3 of its 100 problems: the run is not finished"),
        ({"problems": 7, "shard": "1/2"}, "holds 3 of its 4 problems"),
        ({"problems": 3}, ""),
        ({"problems": 6, "shard": "1/2"}, ""),
        ({}, ""),
    ],
)
def test_an_unfinished_run_is_converted_with_a_notice(tmp_path, name, config, said, capsys):
    episodes = sketch("w7 r5", "w7 r5", "w7 r5", "w7 r5")
    # The first has no answer and is not owed, the last one is owed.
    episodes[0].error = {"kind": "context_overflow", "message": "", "turn": 1, "final": True}
    episodes[3].error = {"kind": "timeout", "message": "", "turn": 1}
    log = write_run(tmp_path / "run", episodes, **config)
    log.write_text(json.dumps({str(e.task_id): e.to_dict() for e in episodes[1:3]}))
    assert convert("--filepath", tmp_path / "run" / name, "--output", tmp_path / "data.json") == 0
    error = capsys.readouterr().err
    assert len(error.splitlines()) == bool(said)
    assert error.startswith(f"{tmp_path / 'run' / name} {said}" if said else "")
    assert len(json.loads((tmp_path / "data.json").read_text())) == 4


STYLE = {"system": None, "example_question": None, "example_answer": None, "right": "yes"}
STYLE |= {"wrong": "no", "no_answer": "no"}
PLUGIN = """
from dataclasses import replace
from envs import GSM8K
from envs.prompts import BARE

class Own(GSM8K):
    name = "own"
    prompts = replace(BARE, question="{question} WORD")
"""


@pytest.mark.parametrize("has_dialogue", [False, True])
@pytest.mark.parametrize("flag", ["--prompt_style", "--env"])
def test_a_prompt_that_changed_in_its_file_is_another_setting(tmp_path, flag, has_dialogue, capsys):
    episodes = sketch("w7 r5")
    if not has_dialogue:
        episodes[0].dialogue = []
    (tmp_path / "2_turns.json").write_text(json.dumps({"0": episodes[0].to_dict()}))
    file = tmp_path / {"--prompt_style": "style.json", "--env": "own.py"}[flag]

    def written(word: str) -> str:
        question = STYLE | {"question": f"{{question}} {word}"}
        file.write_text(
            json.dumps(question) if flag == "--prompt_style" else PLUGIN.replace("WORD", word)
        )
        output, suffix = tmp_path / "data.json", ":Own" if flag == "--env" else ""
        code = convert(
            *("--filepath", tmp_path / "2_turns.json", "--output", output),
            *(flag, f"{file}{suffix}"),
        )
        said = capsys.readouterr()
        question = json.loads(output.read_text())[0]["conversations"][0]["value"]
        return f"{code} {question} {'done' if 'is done' in said.out else ''}{said.err}".strip()

    shown = "question 0" if has_dialogue else "question 0 first"
    assert written("first") == f"0 {shown}"
    assert written("first") == f"0 {shown} done"
    again = written("second")
    if has_dialogue:
        assert again == f"0 {shown} done"
    else:
        assert again.startswith(f"2 {shown} ") and "other settings (prompts)" in again


@pytest.mark.parametrize(
    ("read", "written"), [("", "rows.jsonl"), ("2_turns.json", "2_turns.json"), ("", "config.json")]
)
def test_what_is_read_is_never_written_over(tmp_path, read, written, capsys):
    run = tmp_path / "run"
    write_run(run, sketch("w7 r5"))
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    assert convert("--filepath", run / read, "--output", run / written, "--overwrite") == 2
    assert f"--output {run / written} is among the files of --filepath" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    for _ in range(2):  # a data set may stand beside them
        assert convert("--filepath", run, "--output", run / "data.json", "--overwrite") == 0


def test_a_file_of_problems_and_a_mistyped_model_are_named(tmp_path, monkeypatch, capsys):
    problems, output = tmp_path / "test.jsonl", tmp_path / "data.json"
    problems.write_text('{"question": "1 + 1?", "answer": "#### 2"}\n')
    assert convert("--filepath", problems, "--output", output) == 2
    assert "no log of workflow_gen.py, its first line has no task_id" in capsys.readouterr().err
    write_run(tmp_path / "run", sketch("w7 r5"), stage="gen")
    monkeypatch.chdir(tmp_path)
    for model, beside in (("/no", ""), ("rum", " (did you mean run?)")):
        assert convert("--filepath", "run", "--output", output, "--model_path", model) == 2
        said = f"--model_path {model}: there is no such directory{beside}"
        assert said in capsys.readouterr().err
    assert not output.exists()
