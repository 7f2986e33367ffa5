"""The record of an episode and the journal of a run.

pytest tests/unit/rise/episodes/test_journal.py
"""

import json

import pytest

from rise.episodes.episode import Episode, Turn, visible
from rise.episodes.journal import RunDir, differences, load_episodes, locate
from tests.support.conversion import published
from tests.support.run_dirs import open_run_dir

OPENING = [{"role": "system", "content": "s"}, {"role": "user", "content": "1+1?"}]
CONFIG = {"stage": "gen", "seed": 0, "concurrency": 64}


def turn(*actions, rewards=None, chosen=0, **more):
    rewards = rewards or [0] * len(actions)
    return Turn(
        actions=list(actions),
        answers=[None] * len(actions),
        verdicts=["right" if reward == 1 else "wrong" for reward in rewards],
        rewards=list(rewards),
        observations=[f"no to {action}" for action in actions],
        finish_reasons=["stop"] * len(actions),
        model="m",
        usage={"prompt_tokens": 5, "completion_tokens": 2},
        chosen=chosen,
        **more,
    )


def episode(task_id=0, error=None):
    turns = [turn("3"), turn("4", "2", rewards=[0, 1], chosen=1)]
    dialogue = [*OPENING]
    for role, content in [("assistant", "3"), ("user", "no to 3"), ("assistant", "2")]:
        dialogue.append({"role": role, "content": content})
    return Episode(task_id, "1+1?", "#### 2", turns, dialogue, error)


def test_a_record_survives_json_and_has_the_published_keys():
    first = episode()
    first.turns[0].shown = {"task_id": 7, "action": "x"}
    assert Episode.from_dict(json.loads(json.dumps(first.to_dict()))) == first
    record = episode().to_dict()
    history = record["turn_history"]
    assert record["max_reward"] == 1
    assert history["best_actions"] == ["3", "2"]
    assert history["best_rewards"] == [0, 1]
    assert history["actions"] == {"0": ["3"], "1": ["4", "2"]}
    assert history["chosen"] == {"0": 0, "1": 1}
    assert "error" not in record and "shown" not in history
    assert episode().opening == OPENING


def test_published_logs_are_completed_and_their_blocked_turns_are_none():
    read = Episode.from_dict(published(episode(3)))
    assert read.opening == OPENING
    assert [m["role"] for m in read.dialogue[2:]] == ["assistant", "user", "assistant"]
    assert read.dialogue[-1]["content"] == "2"
    assert read.turns[1].chosen == 1 and read.turns[1].answer is None
    record = published(episode(3))
    record["turn_history"]["actions"]["1"] = ["blocked"]
    for key in ("best_actions", "best_observations", "best_rewards"):
        del record["turn_history"][key][1:]
    read = Episode.from_dict(record)
    assert len(read.turns) == 1
    assert read.opening == OPENING and read.dialogue[-1]["content"] == "3"
    record = published(episode(3))
    del record["dialogue"]
    with pytest.raises(ValueError, match="episode 3 .* workflow_gen.py"):
        _ = Episode.from_dict(record).opening


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("query"), "episode 0 lacks query"),
        (lambda r: r.update(extra=1), "has unknown keys extra"),
        (lambda r: r["turn_history"].update(other={}), "has unknown keys other"),
        (lambda r: r["turn_history"]["rewards"]["0"].append(1), "turn 1: its lists"),
    ],
)
def test_wrong_record_is_refused(change, message):
    record = episode().to_dict()
    change(record)
    with pytest.raises(ValueError) as caught:
        Episode.from_dict(record)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("window", "shown"),
    [(None, ["a", "A", "b", "B"]), (1, []), (2, ["b", "B"]), (3, ["a", "A", "b", "B"]), (9, None)],
)
def test_window_shows_the_last_attempts(window, shown):
    messages = visible(OPENING, ["a", "b"], ["A", "B"], window)
    assert messages[:2] == OPENING
    assert [m["content"] for m in messages[2:]] == (["a", "A", "b", "B"] if window == 9 else shown)


def test_any_text_can_be_recorded(tmp_path):
    odd = episode()
    odd.turns[0].actions = ["\ud800 half a pair, a line\u2028separator, \x00 and 漢字"]
    with open_run_dir(tmp_path, CONFIG, 2) as run:
        run.append(odd)
        run.write_log()
    assert load_episodes(tmp_path) == [odd] == load_episodes(tmp_path / "2_turns.json")


def test_same_configuration_resumes_and_an_error_is_owed_again(tmp_path):
    with open_run_dir(tmp_path, CONFIG, 2) as run:
        run.append(episode(1))
        run.append(episode(0, error={"kind": "timeout", "message": "", "turn": 1}))
    with open_run_dir(tmp_path, CONFIG | {"concurrency": 1}, 2) as run:
        assert run.done == {1}
        run.append(episode(0))
        assert [e.task_id for e in run.episodes()] == [0, 1]
        run.write_log()
    log = json.loads((tmp_path / "2_turns.json").read_text())
    assert list(log) == ["0", "1"] and log["0"]["turn_history"]["best_actions"] == ["3", "2"]
    assert load_episodes(tmp_path) == load_episodes(tmp_path / "2_turns.json")


def test_a_refusal_says_each_cause_once_and_not_what_follows_from_it():
    before = {"models": ["a"] * 5, "kinds": ["worker"] * 5, "fingerprints": [None] * 5}
    before |= {"env": "gsm8k", "env_sha256": "1", "prompt_sha256": "2", "worker_args": ""}
    before |= {"data_path": "a.jsonl", "data_sha256": "3", "temperature": [1.0] * 5}
    now = {"models": ["b"] * 5, "kinds": ["checkpoint"] * 5, "fingerprints": ["4"] * 5}
    now |= {"env": "math", "env_sha256": "5", "prompt_sha256": "6", "worker_args": "--dtype x"}
    now |= {"data_path": "b.jsonl", "data_sha256": "7", "temperature": [0.5] * 4 + [1.0]}
    assert differences(before, now) == (
        "data_path: a.jsonl -> b.jsonl, env: gsm8k -> math, models: a -> b, "
        "temperature: 1.0 -> [0.5, 0.5, 0.5, 0.5, 1.0], worker_args: '' -> '--dtype x'"
    )


@pytest.mark.parametrize("kinds", [["worker", "checkpoint"], None])
def test_only_what_is_here_has_a_fingerprint_that_is_compared(kinds):
    before = {"models": ["rise", "m"], "kinds": kinds, "fingerprints": ["e3b0c44298fc1c14", "1"]}
    assert differences(before, before | {"fingerprints": [None, "1"]}) == ""
    assert differences(before, before | {"fingerprints": [None, "2"]}) == "m has changed since"


def test_a_run_in_which_nothing_was_finished_may_be_changed(tmp_path):
    failed = {"kind": "bad_request", "message": "no such model", "turn": 1}
    with open_run_dir(tmp_path, CONFIG, 2) as run:
        run.append(episode(0, error=failed))
    with open_run_dir(tmp_path, CONFIG | {"seed": 1}, 2) as run:
        assert not run.done
        run.append(episode(0))
    with pytest.raises(ValueError, match="seed: 1 -> 0"):
        open_run_dir(tmp_path, CONFIG, 2)


def test_torn_last_line_is_redone(tmp_path, caplog):
    with open_run_dir(tmp_path, CONFIG, 2) as run:
        run.append(episode(0))
        run.append(episode(1))
    rows = tmp_path / "rows.jsonl"
    whole = rows.read_bytes()
    for cut in (1, 2, 100):
        rows.write_bytes(whole[:-cut])
        # Where the end of the line alone is missing, a reader has all of the episode.
        assert [e.task_id for e in load_episodes(tmp_path)] == ([0, 1] if cut == 1 else [0])
        assert RunDir.find(tmp_path, 2).done == {0}
        with open_run_dir(tmp_path, CONFIG, 2) as run:
            assert run.done == {0}
            run.append(episode(1))
        assert rows.read_bytes() == whole
    assert f"line 2 of {rows} is torn: its episode is left out" in caplog.messages


def test_damage_before_the_last_line_is_an_error_that_names_the_line(tmp_path):
    with open_run_dir(tmp_path, CONFIG, 2) as run:
        run.append(episode(0))
        run.append(episode(1))
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(b"{torn\n" + rows.read_bytes())
    with pytest.raises(ValueError, match="line 1 of"):
        open_run_dir(tmp_path, CONFIG, 2)
    with pytest.raises(ValueError, match="line 1 of"):
        load_episodes(tmp_path)


def test_runs_of_different_lengths_share_a_log_dir(tmp_path):
    five = CONFIG | {"max_turns": 5}
    one = CONFIG | {"max_turns": 1}
    with open_run_dir(tmp_path, five, 5) as run:
        assert run.path == tmp_path
    with open_run_dir(tmp_path, one, 1) as run:
        assert run.path == tmp_path / "1_turns"
        run.append(episode())
        assert run.write_log() == tmp_path / "1_turns.json"
    assert locate(tmp_path, 5) == tmp_path
    assert RunDir.find(tmp_path, 1).done == {0} and not RunDir.find(tmp_path, 5).done
    with pytest.raises(ValueError, match="seed: 0 -> 2"):
        RunDir.find(tmp_path, 1).check({"seed": 2})


def test_a_run_without_a_row_does_not_hold_its_directory(tmp_path):
    open_run_dir(tmp_path, {"max_turns": 1, "worker_args": ""}, 1).close()
    with open_run_dir(tmp_path, {"max_turns": 1, "worker_args": "--dtype float32"}, 1) as run:
        assert json.loads((run.path / "config.json").read_text())["worker_args"]
