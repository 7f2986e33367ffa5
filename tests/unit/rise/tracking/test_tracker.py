"""Trackers: what is absent, broken or unreachable is a notice, and nothing is lost elsewhere.

What the stages record is in tests/unit/rise/report/test_tracked.py.

python -m pytest tests/unit/rise/tracking/test_tracker.py
"""

import json
import socket
import sys
import time

import pytest

import fastchat.tracking
from fastchat.client import http
from fastchat.tracking import logged_in
from rise.tracking import tracker as tracking
from rise.tracking import wandb_run
from rise.tracking.tracker import Subject
from tests.support.event_files import events_of, scalars
from tests.support.offline_wandb import (
    no_login,  # noqa: F401  (a fixture)
    read_offline_run,
    serving,
)

NOWHERE = dict.fromkeys(tracking.KEYS)
pytestmark = pytest.mark.usefixtures("no_login")


def subject(directory, **changes):
    where = {"directory": directory, "events": directory / "events"}
    return Subject(**{"stage": "eval", "name": "a run", "config": {"k": 1}} | where | changes)


@pytest.fixture
def server(monkeypatch):
    with serving(monkeypatch) as server:
        yield server


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
    state.write_text("{")
    (tmp_path / "events").rename(tmp_path / "earlier")
    (tmp_path / "events").write_text("no directory")
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
    monkeypatch.setattr("fastchat.tracking.unreachable", lambda server: None)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    tracker = tracking.start(NOWHERE | {"wandb_project": "p"}, subject(tmp_path))
    tracker.log({"accuracy": 1.0}, "turn", 1)
    tracker.finish()
    assert "wandb could not start (timed out)" in caplog.text
    assert f"wandb sync {tmp_path}/wandb/offline-run-*" in caplog.text
    assert read_offline_run(tmp_path)["history"][0]["accuracy"] == 1.0


@pytest.mark.parametrize("hangs", [False, True])
def test_a_server_that_cannot_be_reached_makes_the_run_offline_at_once(
    tmp_path, monkeypatch, caplog, hangs
):
    monkeypatch.setattr(http, "ANSWER_SECONDS", 0.5)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if hangs:
            server.listen()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        tracker = tracking.start(NOWHERE | {"wandb_project": "p"}, subject(tmp_path))
    tracker.log({"accuracy": 1.0}, "turn", 1)
    tracker.finish()
    assert "does not answer" in caplog.text
    assert read_offline_run(tmp_path)["history"][0]["accuracy"] == 1.0


def test_a_server_that_goes_away_is_waited_for_within_limits(tmp_path, monkeypatch, caplog, server):
    """By itself wandb would wait for ever at the end of the run, and 19 s before each table."""
    assert http.ANSWER_SECONDS + 10 + fastchat.tracking._INIT_SECONDS <= 30
    assert fastchat.tracking.ANSWER_SECONDS + fastchat.tracking._FINISH_SECONDS + 4 <= 30
    monkeypatch.setattr(wandb_run, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(fastchat.tracking, "_FINISH_SECONDS", 1.0)
    monkeypatch.setattr(fastchat.tracking, "_INIT_SECONDS", 60.0)  # of a busy machine
    state, page = tmp_path / "tracking.json", tmp_path / "report.html"
    page.write_text("<h1>")
    options = NOWHERE | {"wandb_project": "p"}
    tracker = tracking.start(options, subject(tmp_path, state=state))
    assert tracker and "offline" not in caplog.text
    server.is_gone.set()
    begun = time.monotonic()
    tracker.log({"accuracy": 0.5}, "turn", 1)
    tracker.table("dialogues", ["text"], [["it is 1"]])
    tracker.file(page)
    tracker.complete()
    tracker.finish()
    assert time.monotonic() - begun < 18
    assert caplog.text.count("its server does not answer within 0.5 s): it gets nothing more") == 1
    # `wandb sync` has what was told before; the same command tells all of it again.
    assert list(tmp_path.glob("wandb/run-*/*.wandb"))
    assert json.loads(state.read_text())["wandb/p"].keys() == {"id"}


def test_a_login_is_found_in_the_environment_and_in_the_netrc_file(tmp_path, monkeypatch):
    assert not logged_in()
    netrc = tmp_path / "netrc"
    netrc.write_text("machine api.wandb.ai login user password secret\n")
    netrc.chmod(0o600)
    assert logged_in()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not logged_in()
    monkeypatch.setenv("WANDB_API_KEY", "key")
    assert logged_in()
