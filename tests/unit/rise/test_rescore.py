"""`python -m rise.rescore` on runs whose stored grades are wrong.

python -m pytest tests/unit/rise/test_rescore.py
"""

import json

import pytest

from rise import rescore
from rise.episodes.journal import load_episodes
from rise.program.files import read_object
from rise.rescore import main
from tests.support.run_dirs import open_run_dir, write_run
from tests.support.stages import run_main

# What the responses say; the reference is 5.
RESPONSES = {"right": r"So \boxed{5.0}", "wrong": r"So \boxed{7}", "no_answer": "no idea"}


@pytest.fixture
def make_run(tmp_path):
    """A run whose problems are stored as wrong with answer 7, whatever the responses say."""

    def made(*problems, **settings):
        words = [" ".join(["w7"] * len(problem)) for problem in problems]
        run = write_run(tmp_path / "run", *words, **settings)
        rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
        for row, problem in zip(rows, problems, strict=True):
            texts = [RESPONSES[kind] for kind in problem]
            history = row["turn_history"]
            history["actions"] = {str(t): [text] for t, text in enumerate(texts)}
            history["best_actions"] = texts
            row["answer"] = "2 + 3 = 5\n#### 5"
        (run / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return run

    return made


def test_grades_are_made_anew_and_changes_listed(make_run, capsys):
    run = make_run(["wrong", "right"], ["no_answer", "wrong"], ["wrong", "wrong"])
    before = (run / "rows.jsonl").read_text()
    assert main([str(run)]) == 0
    shown = capsys.readouterr().out
    assert "problem 0, turn 2, sample 1: wrong (7) -> right (5.0)" in shown
    assert "2 verdicts changed" in shown
    verdicts = [[turn.verdict for turn in episode.turns] for episode in load_episodes(run)]
    assert verdicts == [["wrong", "right"], ["no_answer", "wrong"], ["wrong", "wrong"]]
    assert [turn.reward for turn in load_episodes(run)[1].turns] == [-1, 0]
    assert (run / "rows.original.jsonl").read_text() == before
    changes = json.loads((run / "rescored.json").read_text())
    assert [(c["task_id"], c["turn"]) for c in changes] == [(0, 2), (1, 1)]
    summary = read_object(run / "summary.json")
    assert summary["metrics"]["p1@t2"]["value"] == pytest.approx(1 / 3)
    assert summary["rescored"]["changes"] == 2
    log = json.loads((run / "2_turns.json").read_text())
    assert log["0"]["turn_history"]["verdicts"] == {"0": ["wrong"], "1": ["right"]}


def test_a_second_time_gives_the_same_changes_and_the_first_rows_are_kept(make_run, capsys):
    run = make_run(["wrong", "right"], ["wrong", "wrong"])
    original = (run / "rows.jsonl").read_text()
    assert main([str(run)]) == 0
    first = {name: (run / name).read_text() for name in ("rows.jsonl", "rescored.json")}
    for _ in range(2):
        assert main([str(run)]) == 0
        assert "1 verdicts changed" in capsys.readouterr().out
        assert {name: (run / name).read_text() for name in first} == first
        assert read_object(run / "summary.json")["rescored"]["changes"] == 1
        assert (run / "rows.original.jsonl").read_text() == original
    assert main([str(run), "--dry-run"]) == 0
    assert "1 verdicts changed" in capsys.readouterr().out


def test_a_rescoring_that_was_killed_before_its_record_is_done_again(make_run, monkeypatch):
    run = make_run(["wrong", "right"])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(rescore, "summarise", interrupt)
        main([str(run)])
    assert not (run / "rescored.json").exists()
    assert main([str(run)]) == 0
    assert len(json.loads((run / "rescored.json").read_text())) == 1


def interrupt(*_):
    raise KeyboardInterrupt


def refusal(*words) -> str:
    """What the program says where it refuses these words."""
    argv = [str(word) for word in words]
    return run_main(lambda: main(argv), "rescore.py", code=2).stderr


def test_rows_that_came_after_a_rescoring_are_kept_as_they_were_too(make_run):
    run = make_run(["wrong", "right"], ["right", "right"], problems=2)
    first, second = original = (run / "rows.jsonl").read_bytes().splitlines(keepends=True)
    (run / "rows.jsonl").write_bytes(first)
    assert main([str(run)]) == 0
    with open(run / "rows.jsonl", "ab") as file:
        file.write(second)
    for _ in range(2):
        assert main([str(run)]) == 0
        changes = json.loads((run / "rescored.json").read_text())
        assert [(c["task_id"], c["turn"]) for c in changes] == [(0, 2), (1, 1), (1, 2)]
        assert (run / "rows.original.jsonl").read_bytes() == b"".join(original)


@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
def test_a_row_that_is_no_episode_is_named_and_nothing_is_written(make_run, flags):
    run = make_run(["wrong", "right"])
    with open(run / "rows.jsonl", "a") as file:
        file.write('{"task_id": 1}\n')
    before = {path.name: path.stat().st_size for path in run.iterdir()}
    error = refusal(run, *flags)
    assert len(error.splitlines()) == 1
    assert f"{run}/rows.jsonl, line 2: an episode is an object" in error
    assert {path.name: path.stat().st_size for path in run.iterdir()} == before


def test_a_dry_run_writes_nothing_and_reads_the_rows_once(make_run, capsys, monkeypatch):
    run = make_run(["wrong", "right"])
    monkeypatch.setattr("rise.episodes.journal.rows", None)
    monkeypatch.setattr(rescore, "SHOWN", 0)  # every change is listed all the same
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    assert main([str(run), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "1 verdicts changed (wrong -> right: 1)" in said and "rescored.json" not in said
    assert "problem 0, turn 2, sample 1: wrong (7) -> right" in said
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_episodes_that_went_on_by_the_old_grade_are_counted(make_run, capsys):
    assert main([str(make_run(["right", "wrong"], ["wrong", "wrong"], feedback="oracle"))]) == 0
    assert "1 episodes went on by the old grade" in capsys.readouterr().out


def test_answers_that_are_read_otherwise_are_no_changed_verdicts(make_run, capsys):
    run = make_run(["wrong", "right"])
    text = (run / "rows.jsonl").read_text().replace('"7"', '"8"')
    (run / "rows.jsonl").write_text(text)
    assert main([str(run)]) == 0
    said = capsys.readouterr().out
    assert "1 verdicts changed (wrong -> right: 1); of 1 other attempts the answer is" in said
    assert read_object(run / "summary.json")["rescored"]["verdicts"] == 1


def test_another_environment_and_a_moved_prompt_style_take_the_place_of_the_runs(make_run):
    run = make_run(["wrong", "right"])
    style = run.parent / "moved.json"
    texts = ("system", "example_question", "example_answer")
    words = dict.fromkeys(("question", "wrong", "no_answer", "right"), "{question}")
    style.write_text(json.dumps(dict.fromkeys(texts) | words))
    assert main([str(run), "--env", "svamp", "--prompt_style", str(style)]) == 0
    config = read_object(run / "config.json")
    assert (config["env"], config["prompt_style"]) == ("svamp", str(style))
    assert "gone.json" in refusal(run, "--prompt_style", "gone.json")


def test_what_is_no_run_or_is_being_written_is_refused(tmp_path, make_run):
    assert "is no run" in refusal(tmp_path)
    run = make_run(["wrong", "right"])
    with open_run_dir(run, read_object(run / "config.json"), 2):
        assert "another process is writing" in refusal(run)
    assert not (run / "rows.original.jsonl").exists()
