"""Tracking: real offline runs of wandb are read back; without wandb nothing happens.

python -m pytest tests/rise/test_tracking.py
"""

import importlib.util
import logging
import sys

import pytest

from rise import tracking
from rise.tracking import DummyTracker, Tracker
from tests.offline_wandb import read_offline_run


@pytest.fixture
def no_login(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path / "netrc"


def test_without_a_login_a_run_is_kept_offline_with_one_notice(no_login, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="rise"):
        tracker = tracking.start("rise-test", "a run", {"max_turns": 2}, tmp_path)
    assert isinstance(tracker, Tracker)
    tracker.log({"accuracy": 0.25}, step=1)
    tracker.log({"accuracy": 0.5}, step=2)
    tracker.summary({"m1@t2": 0.5})
    tracker.finish()
    assert len(caplog.records) == 1 and "no wandb login" in caplog.text
    run = read_offline_run(tmp_path)
    assert [(row["_step"], row["accuracy"]) for row in run["history"]] == [(1, 0.25), (2, 0.5)]
    assert run["summary"]["m1@t2"] == 0.5
    assert run["config"]["max_turns"] == 2
    assert (run["project"], run["name"]) == ("rise-test", "a run")


@pytest.mark.parametrize("project", ["", None])
def test_without_a_project_nothing_is_tracked(project, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import would fail
    tracker = tracking.start(project, "a run", {}, tmp_path)
    tracker.log({"accuracy": 1.0}, step=1)
    tracker.summary({"n": 1})
    tracker.finish()
    assert isinstance(tracker, DummyTracker)
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_there_is_a_notice_and_no_error(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    tracker = tracking.start("rise-test", "a run", {}, tmp_path)
    assert isinstance(tracker, DummyTracker)
    assert "pip install wandb" in caplog.text


def test_a_server_that_refuses_makes_the_run_offline(no_login, tmp_path, monkeypatch, caplog):
    import wandb

    real = wandb.init

    def refuse(**arguments):
        if arguments.get("mode") == "offline":
            return real(**arguments)
        raise wandb.errors.CommError("timed out\nmore")

    monkeypatch.setattr(wandb, "init", refuse)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    tracker = tracking.start("rise-test", "a run", {}, tmp_path)
    tracker.log({"accuracy": 1.0})
    tracker.finish()
    assert "wandb could not start (timed out)" in caplog.text
    assert read_offline_run(tmp_path)["history"][0]["accuracy"] == 1.0


def test_a_login_is_found_in_the_environment_and_in_the_netrc_file(no_login, monkeypatch):
    assert not tracking.logged_in()
    no_login.write_text("machine api.wandb.ai login user password secret\n")
    no_login.chmod(0o600)
    assert tracking.logged_in()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not tracking.logged_in()
    monkeypatch.setenv("WANDB_API_KEY", "key")
    assert tracking.logged_in()
