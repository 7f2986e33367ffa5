"""What the stages record, read back from wandb's offline runs and from event files.

python -m pytest tests/unit/rise/report/test_tracked.py
"""

import json
import logging

import pytest

import workflow_convert
from rise.tracking.tracker import trackers_named
from tests.support.event_files import events_of, scalars, texts
from tests.support.offline_wandb import (
    names_in,
    no_login,  # noqa: F401  (a fixture)
    panels,
    read_offline_run,
    read_offline_runs,
)
from tests.support.stages import begin, call, write_inputs

MORE_EXPERTS = r"""
import random

DICE = random.Random(0)

def drawn(problem, messages):
    return (student if DICE.random() < 0.5 else teacher)(problem, messages)

HEAD = "<script>alert(1)</script> <img src=x onerror=alert(1)> "

def hostile(problem, messages):
    return HEAD + "\ud800 | ![pixel](http://host.invalid/p.png)\n# big " + "x" * 5000 + "\\boxed{1}"
"""
EVAL = ("workflow_eval.py", "--model", "experts.py:student", "--max_turns", 3)
GEN = ("workflow_gen.py", "--models", "experts.py:student", "experts.py:teacher")
GEN += ("--max_turns", 2, "--log_dir", "log")
pytestmark = pytest.mark.usefixtures("no_login")


@pytest.fixture
def place(tmp_path):
    write_inputs(tmp_path)
    with (tmp_path / "experts.py").open("a") as file:
        file.write(MORE_EXPERTS)
    return tmp_path


@pytest.fixture
def evaluated(place, caplog):
    """The log of an evaluation that both trackers record, and its metrics."""
    with caplog.at_level(logging.WARNING, logger="rise"):
        call(place, *EVAL, "--log_dir", "log", "--wandb_project", "maths", "--report_to", "all")
    assert [r.message.split(":")[0] for r in caplog.records] == ["there is no wandb login"]
    return place / "log", json.loads((place / "log" / "summary.json").read_text())["metrics"]


def test_an_evaluation_at_wandb(evaluated):
    log, metrics = evaluated
    run = read_offline_run(log)
    assert (run["project"], run["job_type"]) == ("maths", "eval")
    assert run["name"] == "log" and run["config"]["max_turns"] == 3
    by_turn = [row for row in run["history"] if "turn" in row]
    assert [row["turn"] for row in by_turn] == [1, 2, 3]
    for name in ("acc@t", "no_answer", "length", "copied"):
        expected = [rate["value"] for rate in metrics[name] if rate]
        assert [row[f"turn/{name}"] for row in by_turn if f"turn/{name}" in row] == expected
    assert run["axes"]["turn/acc@t"] == "turn" and run["axes"]["tokens_per_second"] == "episodes"
    for name in ("m1@t1", "m1@t3", "p1@t3"):
        rate = metrics[name]
        assert run["summary"][name] == rate["value"]
        found = [run["summary"][f"{name}/{part}"] for part in ("low", "high", "n")]
        assert found == [rate["low"], rate["high"], rate["n"]]
    assert run["summary"]["usage/experts.py:student/requests"] == 36
    moves = table_of(run, "transitions")
    assert [(move["t"], move["u"]) for move in moves] == [(1, 2), (2, 3), (1, 3)]
    assert {move["kept"] + move["fixed"] + move["broken"] + move["wrong"] for move in moves} == {12}
    assert moves[0]["fixed"] == round(12 * metrics["i->c"]["1,2"]["value"])
    names = [row[0] for row in run["tables"]["headline"]["data"]]
    assert names == ["m1@t1", "m1@t3", "p1@t3", "m1@t3 - m1@t1"]
    page = run["artifacts"][f"report-{run['id']}"]["report.html"]
    assert page == (log / "report.html").read_text() and "<h1" in page


def table_of(run, name):
    """The rows of a table at wandb, by the names of their columns."""
    table = run["tables"][name]
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]


def test_an_evaluation_has_the_numbers_of_every_panel_of_the_docs(place):
    samples = ("--max_turns", 5, "--num_of_samples", 5, 1, 1, 1, 1)
    where = ("--log_dir", "log", "--wandb_project", "maths")
    call(place, *EVAL[:2], "experts.py:drawn", *samples, *where)
    names = names_in(read_offline_run(place / "log"))
    assert panels("eval") - names == {"cost_usd"}  # test_cost.py has a price


def test_an_evaluation_in_tensorboard(evaluated):
    log, metrics = evaluated
    board = events_of(log / "tensorboard")
    for name in ("acc@t", "no_answer"):
        expected = {turn: rate["value"] for turn, rate in enumerate(metrics[name], start=1)}
        assert scalars(board, f"turn/{name}") == pytest.approx(expected)
    assert scalars(board, "summary/m1@t3") == {12: pytest.approx(metrics["m1@t3"]["value"])}
    assert scalars(board, "summary/m1@t3/low") == {12: pytest.approx(metrics["m1@t3"]["low"])}
    assert list(scalars(board, "success/turn_1")) == [12]
    assert [list(row[:2]) for row in texts(board, "transitions")][1:] == [
        *([b"1", b"2"], [b"2", b"3"], [b"1", b"3"])
    ]
    assert b'"max_turns": 3' in texts(board, "config").item()
    assert texts(board, "report").item().endswith(b"report.html")


@pytest.mark.filterwarnings("ignore:html5lib's sanitizer")
def test_texts_of_a_model_are_cut_counted_and_harmless(place, monkeypatch):
    from tensorboard.plugins.text.text_plugin import text_array_to_html

    monkeypatch.setattr("rise.report.tracked.MOST_DIALOGUES", 5)
    arguments = ("--log_dir", "log", "--report_to", "all", "--max_turns", 1)
    call(place, "workflow_eval.py", "--model", "experts.py:hostile", *arguments)
    table = read_offline_run(place / "log")["tables"]["dialogues"]
    assert table["columns"] == ["task_id", "question", "reference", "verdicts", "turn 1"]
    assert [row[0] for row in table["data"]] == [0, 1, 2, 3, 4]
    assert {len(row[4]) for row in table["data"]} == {1000}
    assert all("\ufffd | ![pixel]" in row[4] and row[4].endswith("…") for row in table["data"])
    assert [row[3] for row in table["data"]] == ["right", *["wrong"] * 4]
    board = events_of(place / "log" / "tensorboard")
    page = text_array_to_html(texts(board, "dialogues"), enable_markdown=True)
    assert page.count("<tr>") == 6 and "&lt;script&gt;alert(1)" in page and "\n# big" in page
    assert not [tag for tag in ("<script", "<img", "<a ", "<h1") if tag in page]


def test_generation_says_success_verdicts_usage_and_cost(place):
    names = {"NAME": "first", "RUN_GROUP": "iteration-1", "PROJECT": "from-environment"}
    named = {f"WANDB_{key}": name for key, name in names.items()}
    call(place, *GEN, "--report_to", "all", **named)
    run = read_offline_run(place / "log")
    assert (run["project"], run["group"]) == ("from-environment", "iteration-1")
    assert (run["name"], run["job_type"]) == ("first", "gen")
    by_turn = [row for row in run["history"] if "turn" in row]
    assert [row["turn/success"] for row in by_turn] == pytest.approx([4 / 12, 1.0])
    assert [row["turn/verdicts/right"] for row in by_turn] == [4, 8]
    requests = {row["model"]: row["requests"] for row in table_of(run, "usage")}
    assert requests["experts.py:teacher"] == 8
    assert run["summary"]["success_by_turn_2"] == 1.0
    assert panels("gen") - names_in(run) == {"cost_usd"}
    board = events_of(place / "log" / "tensorboard")
    assert scalars(board, "turn/success") == pytest.approx({1: 4 / 12, 2: 1.0})
    assert len(texts(board, "dialogues")) == 13


def test_a_conversion_says_its_counts_and_its_weights(place, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_GROUP", "iteration-1")
    call(place, *GEN)
    output = place / "finetune.json"
    command = ["--filepath", place / "log", "--output", output, "--report_to", "all"]
    command += ["--wandb_project", "maths"]
    for _ in range(2):  # the second call finds the same file and records nothing
        assert workflow_convert.main([str(part) for part in command]) == 0
    report = json.loads((place / "finetune.json.report.json").read_text())
    run = read_offline_run(place)
    assert (run["project"], run["group"], run["job_type"]) == ("maths", "iteration-1", "convert")
    assert run["name"] == "finetune" and run["config"]["weighting"] == "exp"
    assert run["summary"]["rows"] == report["rows"] == 20
    assert panels("convert") <= names_in(run)
    size = report["weights"]["effective_sample_size"]
    assert run["summary"]["weights/effective_sample_size"] == size
    (values,) = [row["weights.values"] for row in run["history"] if "weights.values" in row]
    assert sum(values) == 20
    board = events_of(place / "finetune_tensorboard")
    assert scalars(board, "summary/weights/effective_sample_size") == {12: pytest.approx(size)}
    assert sum(texts(board, "weights")[:, 2]) == 20


def test_a_resumed_run_goes_on_and_a_finished_one_is_recorded_once(place):
    command = (*EVAL, "--log_dir", "log", "--concurrency", 2, "--wandb_project", "maths")
    process = begin(place, *command, rows=4, STUDENT_SECONDS="0.1")
    process.terminate()
    process.communicate()
    assert process.returncode == 130
    for _ in range(2):
        call(place, *command)
    first, second = read_offline_runs(place / "log", count=2)
    assert first["id"] == second["id"]
    assert not [row for row in first["history"] if "turn" in row]
    assert [row["turn"] for row in second["history"] if "turn" in row] == [1, 2, 3]
    assert 4 <= first["history"][-1]["episodes"] < 12 == second["summary"]["episodes"]
    # The finished run is recorded elsewhere where that is asked for now, also once.
    for _ in range(2):
        call(place, *command, "--report_to", "tensorboard")
    assert list(scalars(events_of(place / "log" / "tensorboard"), "turn/acc@t")) == [1, 2, 3]
    assert len(list((place / "log" / "tensorboard").iterdir())) == 1
    assert len(read_offline_runs(place / "log", count=2)) == 2


def test_an_unknown_tracker_is_refused(place):
    done = call(place, *EVAL, "--log_dir", "log", "--report_to", "wandb,tensorbord", code=2)
    assert "'tensorbord' is none of wandb, tensorboard" in done.stderr
    assert trackers_named("wandb,tensorboard") == trackers_named("all")
