"""scripts/rise.sh: the commands of its knobs, what is refused at its start, kill -9 at any moment.

python -m pytest tests/journeys/test_rise_sh.py

One server plays the models and a script the trainer, so that an iteration takes seconds;
tests/journeys/test_reproduce.py runs the real ones.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aiohttp import web

from tests.support.scripted_servers import Wire, wire_reply
from tests.support.servers import alive, wait_for
from tests.support.stages import ROOT, environment, parsed, value, write_inputs

PYTHON = f"""#!/bin/bash
case "$*" in *train_mem.py*)
    case "$*" in *--check*) exit ;; esac
    exec {sys.executable} trainer.py "$@" ;;
esac
exec {sys.executable} "$@"
"""
TRAINER = """
import hashlib, json, os, pathlib, sys, time
given = dict(zip(sys.argv[2::2], sys.argv[3::2]))
output = pathlib.Path(given["--output_dir"])
output.mkdir(parents=True, exist_ok=True)
(output / "training.json").write_text(json.dumps({"name": os.environ["WANDB_NAME"]}))
time.sleep(0.3)
seen = pathlib.Path(given["--data_path"]).read_bytes()
seen += pathlib.Path(given["--model_name_or_path"], "model.safetensors").read_bytes()
(output / "config.json").write_text("{}")
(output / "model.safetensors").write_bytes(hashlib.sha256(seen).digest())
"""


class Models(Wire):
    """Serves the base and what comes out of it, which is right more often."""

    async def _models(self, request):
        return web.json_response({"models": self.served, "extensions": []})


def reply(body):
    time.sleep(0.01)
    number = int(re.findall(r"What is (\d+)", body["messages"][-1]["content"])[-1])
    skill = 2 if body["model"].endswith("base") else 7
    seeds = [body["seed"] + sample for sample in range(body["n"])]
    return wire_reply(
        *(f"It is \\boxed{{{number + (1 if seed % 10 < skill else 2)}}}" for seed in seeds)
    )


def knobs(place, **more):
    """The environment of a call: what is not said here is rise.sh's own."""
    own = {"MODEL": place / "base", "TRAIN_DATA": place / "problems.jsonl", "OUT": place / "out"}
    own |= {"TEST_DATA": place / "problems.jsonl", "EXPERT": f"{place}/experts.py:teacher"}
    own |= {"LAUNCHER": "python", "TRAIN_ARGS": "", "VIRTUAL_ENV": "active"}
    path = f"{place}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return environment(PATH=path) | {name: str(value) for name, value in (own | more).items()}


def begin(place, *words, output=subprocess.PIPE, **more):
    return subprocess.Popen(
        ["bash", ROOT / "scripts/rise.sh", *words],
        cwd=place,
        env=knobs(place, **more),
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def call(place, *words, **more):
    process = begin(place, *words, **more)
    return process.communicate(timeout=300)[0], process.returncode


@pytest.fixture
def place(tmp_path):
    """Problems, experts and a base."""
    write_inputs(tmp_path, problems=12)
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    (tmp_path / "base" / "model.safetensors").write_bytes(b"base")
    return tmp_path


def children(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return []


def bash_alone(process, running):
    process.kill()


def its_group(process, running):
    os.killpg(process.pid, signal.SIGKILL)


def stage_too(process, running):
    process.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(int(running[0]), signal.SIGKILL)


ENDINGS = (
    ("iteration1/gen", "out/iteration1/gen/rows.jsonl", bash_alone),
    ("iteration1/train", "out/iteration1/model/training.json", its_group),
    ("iteration1/eval", "out/eval/iteration1/rows.jsonl", stage_too),
)
"""During which stage a run is ended, the file that says that it has begun, and how."""


def test_a_run_that_is_killed_again_and_again_ends_like_an_undisturbed_one(place):
    (place / "trainer.py").write_text(TRAINER)
    (place / "python").write_text(PYTHON.replace("trainer.py", str(place / "trainer.py")))
    (place / "python").chmod(0o755)
    served = [place / "base", *(place / f"{out}/iteration1/model" for out in ("out", "same"))]
    with Models(reply, tuple(map(str, served))) as models:
        ask = f"--prompt_style bare --concurrency 2 --controller_address {models.url}"
        more = {"GEN_ARGS": ask, "EVAL_ARGS": f"{ask} --max_turns 2 --num_of_samples 3 1"}
        more["ITERATIONS"] = 1
        for _, file, end in ENDINGS:
            process = begin(place, output=subprocess.DEVNULL, **more)
            begun = place / file
            wait_for(lambda b=begun: b.exists() and b.stat().st_size, 120)
            running = children(process.pid)
            end(process, running)
            process.wait()
            wait_for(lambda r=running: not any(map(alive, r)))
        asked = len(models.requests)
        printed, code = call(place, **more)
        assert code == 0, printed
        assert len(models.requests) - asked <= 2 * 12, "what was done was asked for again"
        same, code = call(place, **more | {"OUT": place / "same"})
        assert code == 0, same
    assert all(name in printed for name in ("   base/eval  ", "   iteration1/train  ", " 0 min 0"))
    ours, theirs = (place / each / "comparison.md" for each in ("out", "same"))
    assert ours.read_text() == theirs.read_text() and ours.read_text() in printed
    base, last = (float(ours.read_text().splitlines()[k].split(" | ")[2]) for k in (2, 3))
    assert base < last, printed
    assert (place / "out" / "report.html").stat().st_size > 10_000
    record = json.loads((place / "out" / "iteration1" / "model" / "training.json").read_text())
    assert record == {"name": "iteration1/train"}  # what wandb calls the run
    log = (place / "out" / "logs" / "iteration1-gen.log").read_text()
    assert log.startswith("+ python workflow_gen.py ") and "right at turn 2" not in log
    shutil.rmtree(place / "out" / "iteration1" / "model")
    (place / "base" / "model.safetensors").write_bytes(b"another")
    printed, code = call(place, "--check", **more)
    assert code == 2 and "base/eval: workflow_eval.py: error: " in printed
    assert "holds a run of another configuration" in printed


def test_what_the_stages_refuse_is_said_in_the_first_minute(place):
    wrong = {"TRAIN_ARGS": "--lerning_rate 1", "EVAL_ARGS": "--limt 3", "EXPERT": "no.py:f"}
    printed, code = call(place, ITERATIONS=1, **wrong)
    assert code == 2 and "rise.sh: nothing was begun:\nbase/eval: workflow_eval" in printed
    assert "unknown argument --lerning_rate: did you mean --learning_rate?" in printed
    assert "unrecognized arguments: --limt 3" in printed and "no.py" in printed
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    ("words", "more", "said"),
    [
        (["--iterations", "2"], {}, "'--iterations' is unknown: the knobs are variables"),
        ([], {"ITERATIONS": 0}, "ITERATIONS must be above 0"),
        ([], {"SEED": "08"}, "SEED must be a whole number, not '08': leave out the leading 0"),
        ([], {"POOL": "some"}, "POOL is 'some': give all or last"),
        ([], {"MODEL": "gpt-4"}, "MODEL=gpt-4 is no directory: give one, or hf:ORG/NAME"),
        ([], {"LAUNCHER": "no-such-thing"}, "LAUNCHER=no-such-thing: there is no such program"),
        ([], {"GEN_ARGS": "--worker_args '--device"}, "GEN_ARGS cannot be read"),
        ([], {"TRAIN_ARGS": "--q_lora", "TRAIN_FROM": "last"}, "give TRAIN_FROM=base"),
        ([], {"TRAIN_ARGS": "--use_lora True", "BOOST": "expert"}, "leave out BOOST"),
        ([], {"GEN_ARGS": "--limit 3 --log_dir x"}, "GEN_ARGS gives --log_dir, which"),
        (["--check"], {"EVAL_ARGS": "--env svamp --seed=3"}, "EVAL_ARGS gives --seed, which"),
        (["--dry-run"], {"TRAIN_ARGS": "--output-dir x"}, "TRAIN_ARGS gives --output-dir, which"),
        ([], {"CONVERT_ARGS": "--filepath x"}, "CONVERT_ARGS gives --filepath, which"),
    ],
)
def test_knobs_that_cannot_be_are_refused(place, words, more, said):
    printed, code = call(place, *words, **more)
    assert code == 2 and "rise.sh: " in printed and said in printed
    assert not (place / "out").exists()


def planned(place, **more):
    """The commands of a dry run by their stages, as words."""
    printed, code = call(place, "--dry-run", **more)
    assert code == 0 and not (place / "out").exists(), printed
    return {
        name: shlex.split(line) for name, line in re.findall(r"# (\S+)\n(.+)\n", printed) if line
    }


@pytest.mark.parametrize(
    ("pool", "start", "logs", "first"),
    [("all", "base", 2, "boost/model"), ("last", "last", 1, "iteration1/model")],
)
def test_what_an_iteration_is_trained_on_and_from(place, pool, start, logs, first):
    out = place / "out"
    plan = planned(place, BOOST="expert", POOL=pool, TRAIN_FROM=start, SEED=3)
    assert list(plan)[:6] == [
        *("base/eval", "boost/gen", "boost/convert", "boost/train", "boost/eval", "iteration1/gen")
    ]
    for words in plan.values():
        if words[1].startswith("workflow_"):
            parsed(words)
    assert value(plan["boost/convert"], "--criteria") == "success"
    assert value(plan["boost/convert"], "--filepath") == f"{out}/boost/gen"
    assert value(plan["boost/gen"], "--max_turns") == "1"
    models = value(plan["iteration1/gen"], "--models")
    assert models == f"{out}/boost/model {place}/experts.py:teacher"
    assert value(plan["iteration2/gen"], "--models").startswith(f"{out}/iteration1/model ")
    seeds = [value(plan[f"iteration{number}/gen"], "--seed") for number in (1, 2)]
    assert seeds == ["3", "4"]
    assert len(value(plan["iteration2/convert"], "--filepath").split()) == logs
    assert value(plan["iteration1/train"], "--model_name_or_path") == f"{out}/boost/model"
    assert value(plan["iteration2/train"], "--model_name_or_path") == f"{out}/{first}"
    assert value(plan["iteration2/eval"], "--model") == f"{out}/iteration2/model"
    evaluation = parsed(plan["base/eval"])
    assert (evaluation.max_turns, evaluation.num_of_samples) == (5, [5, 1, 1, 1, 1])


def test_the_student_may_teach_itself_and_arguments_are_passed_on(place):
    more = {"GEN_ARGS": "--worker_args '--device cpu'", "EVAL_ARGS": "--max_turns 3"}
    more |= {"LAUNCHER": "torchrun --nproc_per_node 2", "TRAIN_ARGS": "--bf16 True\n  --tf32 True"}
    plan = planned(place, EXPERT="self", WANDB_PROJECT="p", BOOST="rows.json", **more)
    assert "boost/gen" not in plan and value(plan["boost/train"], "--data_path") == "rows.json"
    student = f"{place}/out/boost/model"
    assert value(plan["iteration1/gen"], "--models") == f"{student} {student}"
    assert value(plan["iteration1/gen"], "--num_of_samples") == "1 16"
    generation = parsed(plan["iteration1/gen"])
    assert generation.worker_args == "--device cpu"
    assert generation.log_dir == f"{place}/out/iteration1/gen"
    assert value(plan["base/eval"], "--max_turns") == "3"
    assert plan["boost/train"][:3] == ["torchrun", "--nproc_per_node", "2"]
    assert value(plan["boost/train"], "--tf32") == "True"
    assert all(value(words, "--report_to") == "wandb" for words in plan.values())
