"""Iterations: the stages that are planned, kill -9 at any moment, what is refused.

python -m pytest tests/rise/test_iterate.py

The models are played by one server and the trainer by a script, so that a whole run takes seconds;
tests/scripts/test_reproduce.py runs the real ones.
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

from rise import iterate, iteration_arguments, iteration_owned, iteration_plan
from rise.iteration_plan import Stage, plan
from rise.iteration_sources import unusable
from rise.lineage import Lineage, identity
from rise.stage_process import end_group
from tests.rise.run_dirs import write_run
from tests.rise.servers import Wire, wire_reply
from tests.rise.test_serving import alive, wait_until
from tests.stages import environment, write_inputs

ENDINGS = (
    ("base/eval", signal.SIGKILL, False),
    ("iteration1/gen", signal.SIGKILL, True),
    ("iteration1/convert", signal.SIGINT, False),
)
"""Where a run is ended early, how, and whether its stage is killed with it."""
TRAINER = """
import hashlib, json, pathlib, sys
given = dict(zip(sys.argv[2::2], sys.argv[3::2]))
output = pathlib.Path(given["--output_dir"])
output.mkdir(parents=True, exist_ok=True)
seen = pathlib.Path(given["--data_path"]).read_bytes()
seen += pathlib.Path(given["--model_name_or_path"], "model.safetensors").read_bytes()
(output / "config.json").write_text("{}")
(output / "model.safetensors").write_bytes(hashlib.sha256(seen).digest())
"""
COMMAND = (
    "--model base --env gsm8k --train_data problems.jsonl --test_data problems.jsonl "
    "--expert experts.py:teacher --out out --launcher 'python trainer.py' "
    "--gen_args='--prompt_style bare' --eval_args='--prompt_style bare'"
)


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
    """A folder with problems, experts, a base and the stand-in for the trainer."""

    def make(name):
        directory = tmp_path / name
        (directory / "base").mkdir(parents=True)
        write_inputs(directory, problems=12)
        (directory / "base" / "config.json").write_text("{}")
        (directory / "base" / "model.safetensors").write_bytes(b"base")
        (directory / "trainer.py").write_text(TRAINER)
        return directory

    return make


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


def planned(*words):
    """The stages of a command line, by name."""
    args = iterate.parse_args([*shlex.split(COMMAND), *words])
    return {stage.name: stage for stage in plan(args)}


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


def test_an_output_is_not_recorded_as_made_of_what_replaced_its_input(place, monkeypatch, capfd):
    monkeypatch.chdir(place("here"))
    lazy = 'import os, sys\nif os.path.exists("out/iteration1/model"): sys.exit()\n'
    Path("trainer.py").write_text(lazy + TRAINER)
    Path("out/iteration1").mkdir(parents=True)
    Path("out/iteration1/data.json").write_text("[]")
    monkeypatch.setattr(iterate, "plan", lambda args: [s for s in plan(args) if s.step == "train"])
    monkeypatch.setattr(iterate, "refused_commands", lambda stages: [])
    monkeypatch.setattr(iterate, "_finish", lambda *arguments: 0)
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
    assert doctest.testmod(iteration_arguments) == (0, 4)


def test_everything_that_is_wrong_is_said_at_once(place, monkeypatch, capsys):
    monkeypatch.chdir(place("here"))
    wrong = ["--iterations", "0", "--boost", "no.json", "--launcher", "nothing-like-it", "--seed=1"]
    assert iterate.main([*wrong, "--model", "experts.py:student", "--out", "out"]) == 2
    message = capsys.readouterr().err
    for part in ("--env is missing", "--iterations is 0", "no.json", "nothing-like-it"):
        assert part in message
    assert "experts.py:student cannot be trained" in message


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_arguments_that_a_stage_refuses_are_found_at_the_start(place, monkeypatch, capsys, more):
    monkeypatch.chdir(place("here"))
    assert iterate.main([*shlex.split(COMMAND), "--eval_args=--limt 3", *more]) == 2
    message = capsys.readouterr().err
    assert "nothing was begun" in message and "unrecognized arguments: --limt" in message
    assert not Path("out/eval").exists()


def test_a_temperature_that_the_expert_cannot_have_is_found_at_the_start(
    place, monkeypatch, capsys
):
    monkeypatch.chdir(place("here"))
    words = [*shlex.split(COMMAND), "--expert", "o3-mini", "--dry-run"]
    assert iterate.main([*words, "--gen_args=--prompt_style bare --temperature 1.0 0.7"]) == 2
    said = capsys.readouterr().err
    assert "--temperature 0.7: o3-mini takes no other than 1" in said


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_arguments_that_contradict_each_other_are_found_at_the_start(
    place, monkeypatch, capsys, more
):
    monkeypatch.chdir(place("here"))
    words = ["--boost", "expert", "--gen_args=--temperature 1.0 0.7 --correct_to_correct"]
    words += ["--eval_args=--revise_if_wrong --prompt_style none.json --limit 0"]
    words += ["--convert_args=--to pair_sft --match_tokens out/later.json --only_success"]
    words += ["--train_args=--lora_r 4 --tree_tokens 0"]
    assert iterate.main([*shlex.split(COMMAND), *words, *more]) == 2
    said = capsys.readouterr().err
    for part in (
        "workflow_gen.py: error: --temperature has 2 values for --max_turns 1",
        "--correct_to_correct needs --max_turns 2 or more (boost/gen)",
        "--revise_if_wrong needs --feedback self or critique: a model's own check (base/eval, ",
        "--limit is 0: ",
        "none.json",
        "--only_success says nothing about pairs: leave it out with --to pair_sft (iteration1/conv",
        "--lora_r does nothing without --use_lora True (boost/train, iteration1/train)",
        "--tree_tokens is 0: it must be at least 1 (boost/train, iteration1/train)",
    ):
        assert part in said, said
    assert "later.json" not in said and "data_path" not in said
    assert not Path("out/eval").exists()


@pytest.mark.parametrize("dry", [True, False])
def test_models_and_problems_that_cannot_be_used_are_found_at_the_start(
    place, monkeypatch, capsys, dry
):
    monkeypatch.chdir(place("here"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    Path("data").mkdir()
    Path("expert.py").write_text("def one(problem):\n    return ''\n")
    Path("rows.jsonl").write_text('{"query": "1+1?"}\n')
    Path("text.jsonl").write_text("not JSON\n")
    more = ["--dry-run"] if dry else []
    words = ["--model", "data", "--expert", "expert.py:one", "--train_data", "rows.jsonl"]
    words += ["--test_data", "text.jsonl", "--eval_args=--limit 0"]
    assert iterate.main([*shlex.split(COMMAND), *words, *more]) == 2
    said = capsys.readouterr().err
    for part in ("data is a directory without config.json", "expert.py:one is called as one(pr"):
        assert part in said, said
    assert "rows.jsonl" in said and "text.jsonl" in said and "--limit is 0" in said
    # A dry run shows what is planned before the key is there.
    code = iterate.main([*shlex.split(COMMAND), "--expert", "gpt-3.5-turbo", *more])
    shown = capsys.readouterr()
    assert code == (0 if dry else 2)
    assert "OPENAI_API_KEY" in (shown.out if dry else shown.err)
    assert not Path("out/eval").exists()


def test_what_is_done_needs_its_expert_no_longer(place, monkeypatch):
    monkeypatch.chdir(place("here"))
    args = iterate.parse_args([*shlex.split(COMMAND), "--expert", "gpt-3.5-turbo"])
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    stages = plan(args)
    assert "OPENAI_API_KEY" in "".join(unusable(args, stages))
    assert unusable(args, [stage for stage in stages if stage.step != "gen"]) == []


def test_what_iterate_sets_itself_cannot_be_passed_on(place, monkeypatch, capsys):
    monkeypatch.chdir(place("here"))
    words = ["--gen_args=--log_dir foo --models a b --num_of_samples 1 4 --max_turns=3 --seed 1"]
    words += [
        "--convert_args=--filepath a --output b --format messages",
        "--eval_args=--model x --data_path y",
    ]
    words += ["--train_args=--model_name_or_path a --data_path b --output_dir c --seed 3"]
    assert iterate.main([*shlex.split(COMMAND), *words, "--dry-run"]) == 2
    said = capsys.readouterr().err
    for part in (
        "--gen_args has --log_dir, which rise.iterate sets: give its --out instead",
        "--gen_args has --models, which rise.iterate sets: give its --model and --expert instead",
        "--gen_args has --num_of_samples, which rise.iterate sets: give its --expert_samples",
        "--gen_args has --max_turns, which rise.iterate sets: it generates an attempt and",
        "--convert_args has --filepath, which rise.iterate sets: give its --pool instead",
        "--train_args has --output_dir, which rise.iterate sets: give its --out instead",
        "--eval_args has --data_path, which rise.iterate sets: give its --test_data instead",
    ):
        assert part in said, said
    assert len(said.splitlines()) == 5 + 3 + 2 + 4
    assert planned("--eval_args=--max_turns 2 --num_of_samples 1", "--gen_args=--limit 3")
    assert doctest.testmod(iteration_owned) == (0, 4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--train_from", "last", "--iterations", "2"], "give --train_from base"),
        (["--boost", "expert"], "leave out --boost expert"),
    ],
)
def test_an_adapter_is_not_trained_further(words, said, place, monkeypatch, capsys):
    monkeypatch.chdir(place("here"))
    command = [*shlex.split(COMMAND), *words, "--dry-run"]
    assert iterate.main([*command, "--train_args=--q_lora True"]) == 2
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .endswith(
            f"are no models to train further: {said}"
            + (", or give the boosted model as --model" if "--boost" in words else "")
        )
    )
    assert iterate.main([*command, "--train_args=--use_lora False"]) == 0


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
