"""Checkpoints served for one run: real controller, real workers, tiny random models.

pytest tests/processes/test_serving.py
"""

import asyncio
import json
import sys
from unittest import mock

import pytest

from fastchat.client.process import Child, free_ports
from rise.episodes.journal import load_episodes
from rise.policies import gpus
from rise.policies.local import LocalServing, ServingError
from rise.policies.worker import WorkerPolicy
from tests.support.servers import alive
from tests.support.stages import call, command, environment, run_program, write_inputs
from tests.support.tiny import save_tiny_model

SETTINGS = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 12, "problem": {}}
MESSAGES = [{"role": "user", "content": "How many apples?"}]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("first", "second")):
        save_tiny_model(directory / name, seed=seed)
    return directory


def test_every_checkpoint_answers_its_workers_alike_and_nothing_is_left_running(
    checkpoints, tmp_path
):
    paths = [str(checkpoints / name) for name in ("first", "second")]

    async def ask(name, controller, model):
        policy = WorkerPolicy(name, controller, model=model)
        await policy.check()
        asked = [policy.sample(MESSAGES, n=2, seed=s, **SETTINGS) for s in (1, 1, 2, 2)]
        answers = await asyncio.gather(*asked)
        known = policy._cluster._workers[model]._known.values()
        used = [bool(worker.used_at) for worker in known]
        for worker in known:
            worker.seen_at = 0.0  # at work for minutes, it has given no sign of life
        drawn = sum((await policy.drawn()).values())
        assert drawn == sum(sample.completion_tokens for each in answers for sample in each)
        await policy.close()
        assert not await policy.drawn()
        return [[sample.text for sample in samples] for samples in answers], used

    with (
        mock.patch.object(gpus, "placement", lambda models, found: [[None, None], [None]]),
        LocalServing(paths, tmp_path / "logs", worker_args=["--device", "cpu"]) as serving,
    ):
        pids = [child.pid for child in serving._children.values()]
        addresses = serving.addresses()
        assert list(addresses) == paths and len(pids) == 4
        texts, used = zip(
            *(asyncio.run(ask(path, *addresses[path])) for path in paths), strict=True
        )
        assert serving.complaint() is None
    for same, again, other, as_other in texts:
        assert same == again != other == as_other and same[0] != same[1]
    assert texts[0] != texts[1] and used == ([True, True], [True])
    assert not any(alive(pid) for pid in pids)
    logs = {path.name for path in (tmp_path / "logs").iterdir()}
    assert logs == {"controller.log", *(f"checkpoint-{n}.log" for n in ("0", "0.1", "1"))}


def test_a_directory_is_all_that_evaluation_needs(checkpoints, tmp_path):
    write_inputs(tmp_path, problems=6)
    model = checkpoints / "first"
    arguments = ("--model", model, "--max_new_tokens", 8, "--worker_args", "--device cpu")
    call(tmp_path, "workflow_eval.py", *arguments, "--max_turns", 2, "--log_dir", "log")
    episodes = load_episodes(tmp_path / "log")
    assert [len(episode.turns) for episode in episodes] == [2] * 6
    turn = episodes[0].turns[0]
    assert turn.model == str(model) and 0 < turn.usage["completion_tokens"] <= 8
    summary = json.loads((tmp_path / "log" / "summary.json").read_text())
    assert summary["config"]["kinds"] == ["checkpoint"] * 2
    assert summary["config"]["engines"] == {str(model): "embedded"}
    assert {"controller.log", "checkpoint-0.log"} == {
        path.name for path in (tmp_path / "log" / "serving").iterdir()
    }


def test_what_a_worker_refuses_once_it_is_there_is_one_line_and_a_usage_error(
    checkpoints, tmp_path
):
    write_inputs(tmp_path)
    model = str(checkpoints / "first")
    words = ("--model", model, "--log_dir", "log", "--worker_args", "--context-length 99999")
    failed = call(tmp_path, "workflow_eval.py", *words, code=2)
    [line] = [line for line in failed.stderr.splitlines() if "error: cannot" in line]
    assert f"error: cannot serve {model}: --context-length 99999 is longer than" in line
    assert "usage:" not in failed.stderr + failed.stdout and "--help" not in line


def test_worker_that_crashes_ends_a_run_with_the_end_of_its_log(checkpoints, tmp_path):
    arguments = ["-c", "raise SystemExit('no luck')"]
    serving = LocalServing([str(checkpoints / "first")], tmp_path)
    with (
        mock.patch.object(serving, "_launch", lambda name, *_: launch(serving, name, arguments)),
        pytest.raises(ServingError, match="ended with code 1; .*.log ends with:\n    no luck"),
        serving,
    ):
        pass


def launch(serving, name, arguments):
    """Start Python in the place of what should serve."""
    log = serving.log_dir / f"{name}.log"
    serving._children[name] = Child(name, [sys.executable, *arguments], log)


def test_a_hub_that_does_not_answer_is_one_error_within_seconds(tmp_path):
    write_inputs(tmp_path)
    words = command("workflow_eval.py", "--model", "hf:nobody/nothing", "--log_dir", "log")
    place = {"HF_ENDPOINT": f"http://127.0.0.1:{free_ports(1)[0]}", "HF_HOME": str(tmp_path / "hf")}
    done = run_program(*words, cwd=tmp_path, env=environment(**place), timeout=30, code=2)
    assert not (tmp_path / "log").exists()
    assert "nobody/nothing is no directory here and not in the cache" in done.stderr
