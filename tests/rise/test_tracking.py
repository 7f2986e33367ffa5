"""Tracking: what the stages record is read back from wandb's offline runs and event files.

python -m pytest tests/rise/test_tracking.py
"""

import json
import logging
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

import workflow_convert
from rise import tracking
from rise.tracking import Subject, trackers_named
from rise.wandb_run import logged_in
from tests.offline_wandb import read_offline_run, read_offline_runs
from tests.stages import begin, call, write_inputs

HOSTILE = r"""
def hostile(problem, messages):
    return "<script>alert(1)</script> | \ud800 " + "x" * 5000 + " \\boxed{1}"
"""
EVAL = ("workflow_eval.py", "--model", "experts.py:student", "--max_turns", 3)
NOWHERE = dict.fromkeys(tracking.KEYS)


@pytest.fixture(autouse=True)
def no_login(monkeypatch, tmp_path):
    """A machine without a login, whose own files are not touched."""
    for name in ("MODE", "API_KEY", "BASE_URL", "PROJECT", "RUN_GROUP", "JOB_TYPE", "RUN_ID"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))
    return tmp_path / "netrc"


@pytest.fixture
def place(tmp_path):
    write_inputs(tmp_path)
    with (tmp_path / "experts.py").open("a") as file:
        file.write(HOSTILE)
    return tmp_path


def subject(directory, **changes):
    where = {"directory": directory, "events": directory / "events"}
    return Subject(**{"stage": "eval", "name": "a run", "config": {"k": 1}} | where | changes)


def events_of(directory):
    return EventAccumulator(str(directory), size_guidance={"tensors": 0}).Reload()


def scalars(board, name):
    """Step -> value."""
    return {event.step: make_ndarray(event.tensor_proto).item() for event in board.Tensors(name)}


def texts(board, name):
    (event,) = board.Tensors(name)
    return make_ndarray(event.tensor_proto)


def test_an_evaluation_at_wandb(place, caplog):
    arguments = ("--log_dir", "log", "--wandb_project", "maths", "--wandb_group", "iteration-1")
    with caplog.at_level(logging.WARNING, logger="rise"):
        done = call(place, *EVAL, *arguments)
    assert done.returncode == 0, done.stderr
    assert [r.message.split(":")[0] for r in caplog.records] == ["there is no wandb login"]
    run = read_offline_run(place / "log")
    assert (run["project"], run["group"], run["job_type"]) == ("maths", "iteration-1", "eval")
    assert run["name"] == "log" and run["config"]["max_turns"] == 3
    metrics = json.loads((place / "log" / "summary.json").read_text())["metrics"]
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
    moves = [
        dict(zip(run["tables"]["transitions"]["columns"], row, strict=True))
        for row in run["tables"]["transitions"]["data"]
    ]
    assert [(move["t"], move["u"]) for move in moves] == [(1, 2), (2, 3), (1, 3)]
    assert {move["kept"] + move["fixed"] + move["broken"] + move["wrong"] for move in moves} == {12}
    assert moves[0]["fixed"] == round(12 * metrics["i->c"]["1,2"]["value"])
    names = [row[0] for row in run["tables"]["headline"]["data"]]
    assert names == ["m1@t1", "m1@t3", "p1@t3", "m1@t3 - m1@t1"]
    page = run["artifacts"][f"report-{run['id']}"]["report.html"]
    assert page == (place / "log" / "report.html").read_text() and "<h1" in page


def test_an_evaluation_in_tensorboard(place):
    done = call(place, *EVAL, "--log_dir", "log", "--report_to", "tensorboard")
    assert done.returncode == 0, done.stderr
    assert not (place / "log" / "wandb").exists()
    board = events_of(place / "log" / "tensorboard")
    metrics = json.loads((place / "log" / "summary.json").read_text())["metrics"]
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

    monkeypatch.setattr("rise.tracked_results.MOST_DIALOGUES", 5)
    arguments = ("--log_dir", "log", "--report_to", "all", "--max_turns", 1)
    hostile = ("workflow_eval.py", "--model", "experts.py:hostile")
    assert call(place, *hostile, *arguments).returncode == 0
    table = read_offline_run(place / "log")["tables"]["dialogues"]
    assert table["columns"] == ["task_id", "question", "reference", "verdicts", "turn 1"]
    assert [row[0] for row in table["data"]] == [0, 1, 2, 3, 4]
    assert {len(row[4]) for row in table["data"]} == {1000}
    assert all("| ? x" in row[4] and row[4].endswith("…") for row in table["data"])
    assert [row[3] for row in table["data"]] == ["right", *["wrong"] * 4]
    board = events_of(place / "log" / "tensorboard")
    page = text_array_to_html(texts(board, "dialogues"), enable_markdown=True)
    assert page.count("<tr>") == 6 and "alert(1)" in page and "<script" not in page


def test_generation_says_success_verdicts_usage_and_cost(place):
    done = call(
        place,
        *("workflow_gen.py", "--models", "experts.py:student", "experts.py:teacher"),
        *("--max_turns", 2, "--log_dir", "log", "--report_to", "all", "--wandb_name", "first"),
        WANDB_RUN_GROUP="iteration-1",
        WANDB_PROJECT="from-environment",
    )
    assert done.returncode == 0, done.stderr
    run = read_offline_run(place / "log")
    assert (run["project"], run["group"]) == ("from-environment", "iteration-1")
    assert (run["name"], run["job_type"]) == ("first", "gen")
    by_turn = [row for row in run["history"] if "turn" in row]
    assert [row["turn/success"] for row in by_turn] == pytest.approx([4 / 12, 1.0])
    assert [row["turn/verdicts/right"] for row in by_turn] == [4, 8]
    usage = {
        row[0]: dict(zip(run["tables"]["usage"]["columns"], row, strict=True))
        for row in run["tables"]["usage"]["data"]
    }
    assert usage["experts.py:teacher"]["requests"] == 8
    assert run["summary"]["success_by_turn_2"] == 1.0
    board = events_of(place / "log" / "tensorboard")
    assert scalars(board, "turn/success") == pytest.approx({1: 4 / 12, 2: 1.0})
    assert len(texts(board, "dialogues")) == 13


def test_a_conversion_says_its_counts_and_its_weights(place):
    experts = ("--models", "experts.py:student", "experts.py:teacher")
    gen = ("workflow_gen.py", *experts, "--max_turns", 2, "--log_dir", "log")
    assert call(place, *gen).returncode == 0
    output = place / "finetune.json"
    command = ["--filepath", place / "log", "--output", output, "--report_to", "all"]
    command += ["--wandb_project", "maths", "--wandb_group", "iteration-1"]
    for _ in range(2):  # the second call finds the same file and records nothing
        assert workflow_convert.main([str(part) for part in command]) == 0
    report = json.loads((place / "finetune.json.report.json").read_text())
    run = read_offline_run(place)
    assert (run["project"], run["group"], run["job_type"]) == ("maths", "iteration-1", "convert")
    assert run["name"] == "finetune" and run["config"]["weighting"] == "exp"
    assert run["summary"]["rows"] == report["rows"] == 20
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
        assert call(place, *command).returncode == 0
    first, second = read_offline_runs(place / "log", count=2)
    assert first["id"] == second["id"]
    assert not [row for row in first["history"] if "turn" in row]
    assert [row["turn"] for row in second["history"] if "turn" in row] == [1, 2, 3]
    assert 4 <= first["history"][-1]["episodes"] < 12 == second["summary"]["episodes"]
    # The finished run is recorded elsewhere where that is asked for now, also once.
    for _ in range(2):
        assert call(place, *command, "--report_to", "tensorboard").returncode == 0
    assert list(scalars(events_of(place / "log" / "tensorboard"), "turn/acc@t")) == [1, 2, 3]
    assert len(list((place / "log" / "tensorboard").iterdir())) == 1


def test_nothing_is_recorded_that_is_not_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import would fail
    for options in (NOWHERE, NOWHERE | {"report_to": [], "wandb_project": "p"}):
        tracker = tracking.start(options, subject(tmp_path))
        tracker.log({"accuracy": 1.0}, "turn", 1)
        tracker.complete()
        tracker.finish()
        assert not tracker
    assert list(tmp_path.iterdir()) == []


def test_without_wandb_tensorboard_gets_the_numbers(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)
    tracker = tracking.start(NOWHERE | {"wandb_project": "p"}, subject(tmp_path))
    tracker.log({"accuracy": 0.5}, "turn", 2)
    tracker.finish()
    assert "pip install wandb" in caplog.text and "TensorBoard's files" in caplog.text
    assert scalars(events_of(tmp_path / "events"), "accuracy") == {2: 0.5}


def test_without_any_package_there_is_a_notice_and_no_error(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.event_file_writer", None)
    assert not tracking.start(NOWHERE | {"wandb_project": "p"}, subject(tmp_path))
    assert "pip install wandb" in caplog.text and "pip install tensorboard" in caplog.text


def test_a_tracker_that_breaks_is_left_out_and_the_stage_goes_on(tmp_path, monkeypatch, caplog):
    import wandb

    def fail(*_, **__):
        raise RuntimeError("no space left\nmore")

    options = NOWHERE | {"report_to": ["wandb", "tensorboard"]}
    state = tmp_path / "tracking.json"
    tracker = tracking.start(options, subject(tmp_path, state=state))
    monkeypatch.setattr(wandb.Run, "log", fail)
    tracker.log({"accuracy": 0.5}, "turn", 1)
    tracker.log({"accuracy": 0.7}, "turn", 2)
    tracker.complete()
    tracker.finish()
    wandb.finish()
    assert caplog.text.count("wandb/rise fails (no space left)") == 1
    assert scalars(events_of(tmp_path / "events"), "accuracy") == pytest.approx({1: 0.5, 2: 0.7})
    known = json.loads(state.read_text())
    assert known["tensorboard"] == {"complete": True} and known["wandb/rise"].keys() == {"id"}
    monkeypatch.setattr(wandb, "init", fail)
    assert not tracking.start(options, subject(tmp_path, state=state))
    assert "wandb cannot start (no space left)" in caplog.text


def test_a_server_that_refuses_makes_the_run_offline(tmp_path, monkeypatch, caplog):
    import wandb

    real = wandb.init

    def refuse(**arguments):
        if arguments.get("mode") == "offline":
            return real(**arguments)
        raise wandb.errors.CommError("timed out\nmore")

    monkeypatch.setattr(wandb, "init", refuse)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    tracker = tracking.start(NOWHERE | {"wandb_project": "p"}, subject(tmp_path))
    tracker.log({"accuracy": 1.0}, "turn", 1)
    tracker.finish()
    assert "wandb could not start (timed out)" in caplog.text
    assert read_offline_run(tmp_path)["history"][0]["accuracy"] == 1.0


def test_an_unknown_tracker_is_refused(place):
    done = call(place, *EVAL, "--log_dir", "log", "--report_to", "wandb,tensorbord")
    assert done.returncode == 2 and "'tensorbord' is none of wandb, tensorboard" in done.stderr
    assert trackers_named("wandb,tensorboard") == trackers_named("all")


def test_a_login_is_found_in_the_environment_and_in_the_netrc_file(no_login, monkeypatch):
    assert not logged_in()
    no_login.write_text("machine api.wandb.ai login user password secret\n")
    no_login.chmod(0o600)
    assert logged_in()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not logged_in()
    monkeypatch.setenv("WANDB_API_KEY", "key")
    assert logged_in()
