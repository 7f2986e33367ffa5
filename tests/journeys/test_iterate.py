"""Iterations: the stages that are planned, and kill -9 at any moment.

python -m pytest tests/journeys/test_iterate.py

The models are played by one server and the trainer by a script, so that a whole run takes seconds;
tests/journeys/test_reproduce.py runs the real ones.
"""

import contextlib
import doctest
import json
import os
import random
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

from rise import iterate, iteration_arguments, iteration_plan
from rise.iteration_plan import Stage, plan
from rise.lineage import Lineage, identity
from rise.stage_process import end_group
from tests.processes.test_serving import alive, wait_until
from tests.support.iterations import COMMAND, TRAINER, make_folder, planned
from tests.support.run_dirs import write_run
from tests.support.scripted_servers import Wire, wire_reply
from tests.support.stages import environment

ENDINGS = (
    ("base/eval", signal.SIGKILL, False),
    ("iteration1/gen", signal.SIGKILL, True),
    ("iteration1/convert", signal.SIGINT, False),
)
"""Where a run is ended early, how, and whether its stage is killed with it."""


class Models(Wire):
    """Serves the base and what comes out of it, which is right more often."""

    def __init__(self):
        super().__init__(self._reply, ("base", "out/iteration1/model"))

    async def _models(self, request):
        return web.json_response({"models": self.served, "extensions": []})

    def _reply(self, body):
        number = int(re.findall(r"What is (\d+)", body["messages"][-1]["content"])[-1])
        skill = 2 if body["model"] == "base" else 7
        seeds = [body["seed"] + sample for sample in range(body["n"])]
        return wire_reply(
            *(f"It is \\boxed{{{number + (1 if seed % 10 < skill else 2)}}}" for seed in seeds)
        )


@pytest.fixture
def place(tmp_path):
    return lambda name: make_folder(tmp_path / name)


def begin(directory, url, *more, output=subprocess.PIPE):
    words = [*shlex.split(COMMAND), "--controller_address", url, *more]
    return subprocess.Popen(
        [sys.executable, "-m", "rise.iterate", *words],
        cwd=directory,
        env=environment(PYTHONPATH=f"{Path(__file__).parents[2]}:{environment()['PYTHONPATH']}"),
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(directory, url, *more):
    process = begin(directory, url, *more)
    output = process.communicate()[0]
    assert process.returncode == 0, output[-3000:]
    return output


def children(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return []


def value(stage, flag):
    """The values of a flag in a stage's command."""
    rest = stage.command[stage.command.index(flag) + 1 :]
    ends = [k for k, word in enumerate(rest) if word.startswith("--")]
    return " ".join(rest[: ends[0] if ends else None])


def end_early(directory, url, stage, ending, with_stage):
    """Begin the run and end it at some moment after it has begun that stage."""
    printed = directory / "printed.txt"
    with printed.open("w") as output:
        process = begin(directory, url, output=output)
    assert wait_until(lambda: f"/5 {stage}\n+" in printed.read_text(), seconds=120)
    time.sleep(random.Random(stage).uniform(0, 1))
    running = children(process.pid)
    process.send_signal(ending)
    if with_stage:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(running[-1]), signal.SIGKILL)
    code = process.wait()
    assert code == (130 if ending == signal.SIGINT else -signal.SIGKILL), printed.read_text()
    assert wait_until(lambda: not any(map(alive, running))), "something was left running"


def facts(directory):
    """Of every stage: what ran, what went in, what came out."""
    stages = json.loads((directory / "out" / "lineage.json").read_text())["stages"]
    for entry in stages.values():
        for item in (*entry["inputs"].values(), entry["output"]):
            if item.get("of") == "rows.jsonl":
                # Episodes are there in the order in which they finished.
                rows = sorted((directory / item["path"] / "rows.jsonl").read_text().splitlines())
                item["checksum"] = rows
    keys = ("command", "inputs", "output", "parents")
    return {name: {key: entry[key] for key in keys} for name, entry in stages.items()}


def test_a_run_that_is_killed_again_and_again_ends_like_an_undisturbed_one(place):
    disturbed, undisturbed = place("disturbed"), place("undisturbed")
    with Models() as models:
        for ending in ENDINGS:
            end_early(disturbed, models.url, *ending)
        asked = len(models.requests)
        output = finish(disturbed, models.url)
        resumed = len(models.requests) - asked
        # The same commands have been read already, for which the trainer's need torch.
        lineage = json.loads((disturbed / "out" / "lineage.json").read_text())
        (undisturbed / "out").mkdir()
        (undisturbed / "out" / "lineage.json").write_text(json.dumps(lineage | {"stages": {}}))
        finish(undisturbed, models.url)
        other = begin(disturbed, models.url, "--gen_args=--prompt_style bare --temperature 0.5")
        refused = other.communicate()[0]
    assert "another --out of rise.iterate, or the same arguments" in refused
    assert "Next: " not in output
    assert output.count(": done\n") >= 2 and resumed <= 6 * 12, "the base was evaluated again"
    assert other.returncode == 2 and "temperature [1.0, 1.0] -> [0.5, 0.5]" in refused, refused
    ours, theirs = facts(disturbed), facts(undisturbed)
    assert len(ours) == 5 and ours == theirs
    assert ours["iteration1/train"]["parents"] == ["iteration1/convert"]
    table, same = ((each / "out/comparison.md").read_text() for each in (disturbed, undisturbed))
    assert table.partition("| stage")[0] == same.partition("| stage")[0]
    base, trained = (float(line.split(" | ")[2]) for line in table.splitlines()[2:4])
    assert base < trained, table
    assert (disturbed / "out" / "report.html").stat().st_size > 10_000


@pytest.fixture
def training(place, monkeypatch):
    """Only the training runs, with a trainer that leaves what is there as it is."""
    monkeypatch.chdir(place("here"))
    lazy = 'import os, sys\nif os.path.exists("out/iteration1/model"): sys.exit()\n'
    Path("trainer.py").write_text(lazy + TRAINER)
    Path("out/iteration1").mkdir(parents=True)
    Path("out/iteration1/data.json").write_text("[]")
    monkeypatch.setattr(iterate, "plan", lambda args: [s for s in plan(args) if s.step == "train"])
    monkeypatch.setattr(iterate, "refused_commands", lambda stages: [])
    monkeypatch.setattr(iterate, "_finish", lambda *arguments: 0)


def test_an_output_is_not_recorded_as_made_of_what_replaced_its_input(training, capfd):
    assert iterate.main(shlex.split(COMMAND)) == 0
    before = Path("out/lineage.json").read_text()
    Path("base/model.safetensors").write_bytes(b"another base")
    assert iterate.main(shlex.split(COMMAND)) == 2
    message = capfd.readouterr().err
    assert "left out/iteration1/model as it was" in message and "model base had" in message
    assert Path("out/lineage.json").read_text() == before
    shutil.rmtree("out/iteration1/model")
    assert iterate.main(shlex.split(COMMAND)) == 0
    assert Path("out/lineage.json").read_text() != before


@pytest.mark.parametrize("flag", ["--chat-template ", "--eval_data_path=", "--deepspeed "])
def test_a_file_that_the_trainers_arguments_name_is_an_input(training, capfd, flag):
    Path("file").write_text("one")
    words = [*shlex.split(COMMAND), f"--train_args={flag}file --bf16 True"]
    assert iterate.main(words) == iterate.main(words) == 0
    Path("file").write_text("another")
    assert iterate.main(words) == 2
    role = flag.strip(" =-").replace("-", "_")
    assert f"that was made when {role} file had another content" in capfd.readouterr().err


def test_what_an_older_lineage_did_not_record_as_an_input_is_recorded_now(training, capfd):
    Path("file").write_text("one")
    words = [*shlex.split(COMMAND), "--train_args=--chat_template file"]
    assert iterate.main(words) == 0
    path = Path("out/lineage.json")
    lineage = json.loads(path.read_text())
    recorded = lineage["stages"]["iteration1/train"]["inputs"].pop("chat_template")
    path.write_text(json.dumps(lineage))
    assert iterate.main(words) == 0
    lineage = json.loads(path.read_text())
    assert lineage["stages"]["iteration1/train"]["inputs"]["chat_template"] == recorded


def test_a_changed_row_of_a_run_is_another_input(tmp_path):
    run = write_run(tmp_path / "gen", "w7 r5", stage="gen")
    (run / "2_turns.json").write_text("{}")
    stage = Stage("iteration1/convert", ["convert"], tmp_path / "data.json", {"log 1": str(run)})
    stage.output.write_text("[]")
    lineage = Lineage(tmp_path / "lineage.json")
    lineage.add(stage, [stage], 1.0)
    assert lineage.holds(stage) and not lineage.outdated(stage)
    entry = lineage.stages[stage.name]["inputs"]["log 1"]
    rows = run / "rows.jsonl"
    rows.write_text(rows.read_text().replace("question 0", "question 9"))
    assert not lineage.holds(stage) and lineage.outdated(stage) == [f"log 1 {run}"]
    # What an older lineage has is the checksum of the published log, which says nothing of rows.
    entry["checksum"] = "0"
    del entry["of"]
    assert not lineage.holds(stage) and not lineage.outdated(stage)


@pytest.mark.parametrize(
    ("pool", "start", "logs", "first"),
    [("all", "base", 2, "out/boost/model"), ("last", "last", 1, "out/iteration1/model")],
)
def test_what_an_iteration_is_trained_on_and_from(place, monkeypatch, pool, start, logs, first):
    monkeypatch.chdir(place("here"))
    stages = planned(
        *("--boost", "expert", "--iterations", "2", "--pool", pool, "--train_from", start)
    )
    assert list(stages)[:6] == [
        *("base/eval", "boost/gen", "boost/convert", "boost/train", "boost/eval", "iteration1/gen")
    ]
    assert value(stages["boost/convert"], "--criteria") == "success"
    assert value(stages["boost/gen"], "--max_turns") == "1"
    assert value(stages["iteration1/gen"], "--models") == "out/boost/model experts.py:teacher"
    assert value(stages["iteration2/gen"], "--models").startswith("out/iteration1/model ")
    seeds = [value(stages[f"iteration{number}/gen"], "--seed") for number in (1, 2)]
    assert seeds == ["0", "1"]
    assert len(value(stages["iteration2/convert"], "--filepath").split()) == logs
    assert value(stages["iteration1/train"], "--model_name_or_path") == "out/boost/model"
    assert value(stages["iteration2/train"], "--model_name_or_path") == first
    assert value(stages["iteration2/eval"], "--model") == "out/iteration2/model"


def test_the_student_may_teach_itself_and_all_stages_form_one_group(place, monkeypatch):
    monkeypatch.chdir(place("here"))
    stages = planned("--expert", "self", "--wandb_project", "p", "--iterations", "2")
    assert value(stages["iteration1/gen"], "--models") == "base base"
    assert value(stages["iteration2/gen"], "--models") == " ".join(["out/iteration1/model"] * 2)
    assert value(stages["iteration1/gen"], "--num_of_samples") == "1 16"
    assert {stage.environment["WANDB_RUN_GROUP"] for stage in stages.values()} == {"out"}
    train = stages["iteration1/train"]
    assert train.environment["WANDB_PROJECT"] == "p" and value(train, "--report_to") == "wandb"
    untrained = [name for name, stage in stages.items() if stage.step != "train"]
    names = [value(stages[name], "--wandb_name") for name in untrained]
    assert names == [f"out-{name.replace('/', '-')}" for name in untrained]


def test_files_that_grade_and_prompt_are_inputs_of_the_stages_that_read_them(place, monkeypatch):
    monkeypatch.chdir(place("here"))
    words = ["--env", "my.py:Env", "--boost", "expert", "--boost_args=--prompt_style boost.json"]
    words += ["--gen_args=--prompt_style=gen.json", "--eval_args=--env gsm8k --prompt_style bare"]
    stages = planned(*words)
    found = {
        name: {role: stage.inputs.get(role) for role in ("env", "prompts")}
        for name, stage in stages.items()
    }
    assert found["boost/gen"] == {"env": "my.py", "prompts": "boost.json"}
    assert found["iteration1/gen"] == {"env": "my.py", "prompts": "gen.json"}
    assert found["iteration1/convert"] == {"env": "my.py", "prompts": None}
    assert found["iteration1/eval"] == found["iteration1/train"] == {"env": None, "prompts": None}
    Path("gen.json").write_text("{}")
    before = identity("gen.json")
    Path("gen.json").write_text("{ }")
    assert before["checksum"] and identity("gen.json") != before
    assert doctest.testmod(iteration_plan) == (0, 1)


def test_a_file_holds_the_same_arguments_and_the_command_line_goes_first(place, monkeypatch):
    monkeypatch.chdir(place("here"))
    table = {"learning_rate": "1e-5", "bf16": True, "tf32": False}
    Path("run.json").write_text(json.dumps({"iterations": 3, "train_args": table, "seed": 4}))
    stages = planned("--config", "run.json", "--iterations", "1")
    assert "iteration2/gen" not in stages
    given = ["--learning_rate", "1e-5", "--bf16", "--tf32", "False"]
    assert stages["iteration1/train"].command[-5:] == given
    assert value(stages["base/eval"], "--seed") == "4"
    Path("run.json").write_text('{"iteration": 3}')
    with pytest.raises(ValueError, match="unknown name 'iteration': did you mean iterations"):
        planned("--config", "run.json")
    assert doctest.testmod(iteration_arguments) == (0, 5)


def test_null_and_false_in_a_file_give_nothing(place, monkeypatch):
    monkeypatch.chdir(place("here"))
    kwargs = {"num_cycles": 2}
    content = {"wandb_project": False, "boost": False, "controller_address": None}
    content |= {"gen_args": {"limit": None, "temperature": [1.0, 0.7]}, "eval_args": False}
    content |= {"train_args": {"lr_scheduler_kwargs": kwargs, "learning_rate": None}}
    Path("run.json").write_text(json.dumps(content))
    words = ["--config", "run.json", "--model", "base", "--env", "gsm8k", "--out", "out"]
    words += ["--train_data", "problems.jsonl", "--test_data", "problems.jsonl"]
    args = iterate.parse_args([*words, "--expert", "experts.py:teacher"])
    assert (args.wandb_project, args.boost, args.controller_address) == ("", "", None)
    assert args.gen_args == ["--temperature", "1.0", "0.7"] and args.eval_args == []
    assert args.train_args == ["--lr_scheduler_kwargs", json.dumps(kwargs)]


def test_a_value_of_a_file_that_is_no_word_is_refused_by_its_name(place, monkeypatch):
    monkeypatch.chdir(place("here"))
    content = {"launcher": ["torchrun", "--nproc_per_node", 2], "wandb_project": True}
    content |= {"expert": {"name": "gpt-4"}, "gen_args": 3, "iteration": 2}
    Path("run.json").write_text(json.dumps(content))
    with pytest.raises(ValueError) as refused:
        planned("--config", "run.json")
    said = str(refused.value).splitlines()
    assert len(said) == 5 and "unknown name 'iteration'" in said[0]
    launcher = 'launcher is ["torchrun", "--nproc_per_node", 2]: give a string or a number'
    assert f"--config run.json: {launcher}" in said
    assert "--config run.json: wandb_project is true: give a string or a number" in said
    assert "--config run.json: gen_args is 3: give a string, a list or an object" in said


def test_the_command_that_makes_the_comparison_can_be_pasted(place, monkeypatch, capsys):
    monkeypatch.chdir(place("here"))
    for name in ("eval/base", "eval/iteration1"):
        write_run(Path("my out") / name, "w7 r5", stage="eval")
    args = iterate.parse_args([*shlex.split(COMMAND), "--out", "my out"])
    assert iterate._finish(args, plan(args), Lineage(Path("my out/lineage.json"))) == 0
    assert "--format markdown > 'my out/comparison.md'\n" in capsys.readouterr().out


def test_the_size_of_every_stage_is_foretold(place, monkeypatch, capsys):
    monkeypatch.chdir(place("here"))
    words = ["--expert", "gpt-4", "--eval_args=--limit 3", "--boost", "expert", "--dry-run"]
    assert iterate.main([*shlex.split(COMMAND), *words]) == 0
    shown = capsys.readouterr().out
    assert "# base/eval: 3 problems, at most 27 answers and 27,000 new tokens" in shown
    assert "# boost/gen: 12 problems, at most 12 answers and 6,144 new tokens" in shown
    assert "# iteration1/gen: 12 problems, at most 24 answers and 18,144 new tokens" in shown
    assert not Path("out").exists()


def test_what_does_not_stop_when_asked_is_killed(monkeypatch):
    monkeypatch.setattr("rise.stage_process.GRACE", 0.3)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True)"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{deaf}; time.sleep(60)"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    process.stdout.read(1)
    end_group(process.pid)
    assert process.wait(10) == -signal.SIGKILL
    process.stdout.close()
