"""The stages of an iterated run: each is a command line of the existing scripts.

base/eval                                      the base model
boost/gen, boost/convert, boost/train, boost/eval           where a boost is asked for
iteration1/gen, iteration1/convert, iteration1/train, iteration1/eval, iteration2/gen, ...
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path

from rise.program.stage import VARIABLE
from rise.stage_process import ROOT

SELF = "self"
SELF_SAMPLES = 16
"""Answers of which the student's best one teaches it (self-distillation, as published)."""
EVALUATION = ["--max_turns", "5", "--num_of_samples", "5", "1", "1", "1", "1"]
"""Five turns and, at turn 1, five samples: the sequential and the parallel vote in one run."""
TRAINER = "FastChat/fastchat/train/train_mem.py"

TRAINER_FILES = ("chat_template", "eval_data_path", "deepspeed", "lora_weight_path")
"""Arguments of the trainer that may name a file."""


@dataclass(frozen=True)
class Stage:
    """One command, what it reads and what it makes."""

    name: str
    """MODEL/STEP, such as iteration1/train."""
    command: list[str]
    output: Path
    """A run directory, a file of rows or a checkpoint."""
    inputs: dict[str, str]
    """What it reads: role -> file, run directory or name of a model."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables beside those of this process."""

    @property
    def step(self) -> str:
        """gen, convert, train or eval."""
        return self.name.rpartition("/")[2]

    @property
    def words(self) -> str:
        """The command as it can be pasted into a shell."""
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*variables, shlex.join(self.command)])


def plan(args: argparse.Namespace) -> list[Stage]:
    """All stages, in their order; the arguments have been checked."""
    stages = [_evaluate(args, "base", args.model)]
    start = args.model
    if args.boost:
        stages += _boost(args)
        start = _checkpoint(args, "boost")
        stages.append(_evaluate(args, "boost", start))
    student = start
    logs: list[str] = []
    for number in range(1, args.iterations + 1):
        name = f"iteration{number}"
        generate = _generate(args, number, student)
        logs.append(str(generate.output))
        convert = _convert(args, name, logs if args.pool == "all" else logs[-1:], args.convert_args)
        trained = start if args.train_from == "base" else student
        student = _checkpoint(args, name)
        stages += [generate, convert, _train(args, name, trained, str(convert.output))]
        stages.append(_evaluate(args, name, student))
    return stages


def _stage(
    args: argparse.Namespace, name: str, command: list[str], output: Path, inputs: dict[str, str]
) -> Stage:
    """A stage that asks or reads: among its inputs are the files that its command names."""
    return Stage(name, command, output, inputs | files_of(command), _group(args))


def files_of(command: list[str]) -> dict[str, str]:
    """The files that decide what is asked and what is right: a plug-in's and a prompt style's.

    >>> files_of(["python", "workflow_gen.py", "--env", "my.py:Env", "--prompt_style=bare"])
    {'env': 'my.py'}
    """
    from envs.plugins import FILE_FORM

    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--env", default="")
    parser.add_argument("--prompt_style", default="")
    args, _ = parser.parse_known_args(command)
    plugin = FILE_FORM.fullmatch(args.env)
    files = {"env": plugin["file"]} if plugin else {}
    return files | ({"prompts": args.prompt_style} if args.prompt_style.endswith(".json") else {})


def trainer_files(words: list[str]) -> dict[str, str]:
    """The files and directories that arguments of the trainer name, beside model and data."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in TRAINER_FILES:
        parser.add_argument(f"--{name}", f"--{name.replace('_', '-')}", nargs="?")
    args, _ = parser.parse_known_args(words)
    # A template may be one of the built-in names, and DeepSpeed's file be given as its text.
    return {name: path for name, path in vars(args).items() if path and os.path.exists(path)}


def evaluations(stages: list[Stage]) -> list[str]:
    """The run directories that are compared, the base's first."""
    return [str(stage.output) for stage in stages if stage.step == "eval"]


def script(path: str) -> str:
    """A file of the repository, as seen from the working directory."""
    return path if Path.cwd() == ROOT else str(ROOT / path)


GROUP = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
"""What tells a process which group of torch it belongs to."""


def stage_environment(stage: Stage) -> dict[str, str]:
    """The environment in which a stage runs.

    Each launcher makes a group of processes of its own, so this one's, if it is in one, stays out.
    """
    own = {name: value for name, value in os.environ.items() if name not in GROUP}
    return own | {"PATH": search_path(), VARIABLE: stage.name} | stage.environment


def search_path() -> str:
    """Where programs are looked for: first beside this interpreter, so `python` is this one."""
    beside = os.path.dirname(sys.executable)
    return os.pathsep.join(filter(None, [beside, os.environ.get("PATH")]))


def _boost(args: argparse.Namespace) -> list[Stage]:
    """Supervised fine-tuning before the first iteration: on a file, or on right answers."""
    if args.boost != "expert":
        return [_train(args, "boost", args.model, args.boost)]
    expert, samples = _expert(args, args.model)
    output = args.out / "boost" / "gen"
    command = ["python", script("workflow_gen.py"), *_problems(args, args.train_data)]
    command += ["--log_dir", str(output), "--max_turns", "1", "--num_of_samples", str(samples)]
    more = args.gen_args if args.boost_args is None else args.boost_args
    command += ["--models", expert, *_shared(args), *_tracked(args, "boost/gen"), *more]
    inputs = {"expert": expert, "problems": args.train_data}
    generate = _stage(args, "boost/gen", command, output, inputs)
    plain = ["--criteria", "success", "--weighting", "none", "--shuffle"]
    convert = _convert(args, "boost", [str(output)], plain)
    return [generate, convert, _train(args, "boost", args.model, str(convert.output))]


def _generate(args: argparse.Namespace, number: int, student: str) -> Stage:
    name = f"iteration{number}"
    expert, samples = _expert(args, student)
    output = args.out / name / "gen"
    command = ["python", script("workflow_gen.py"), *_problems(args, args.train_data)]
    command += ["--log_dir", str(output), "--max_turns", "2", "--num_of_samples", "1"]
    command += [str(samples), "--models", student, expert, *_shared(args, number)]
    command += [*_tracked(args, f"{name}/gen"), *args.gen_args]
    inputs = {"student": student, "expert": expert, "problems": args.train_data}
    return _stage(args, f"{name}/gen", command, output, inputs)


def _convert(args: argparse.Namespace, name: str, logs: list[str], more: list[str]) -> Stage:
    output = args.out / name / "data.json"
    command = ["python", script("workflow_convert.py"), "--filepath", *logs]
    command += ["--output", str(output), "--env", args.env, "--model_path", args.model]
    command += ["--seed", str(args.seed), *_tracked(args, f"{name}/convert"), *more]
    inputs = {f"log {number}": log for number, log in enumerate(logs, start=1)}
    return _stage(args, f"{name}/convert", command, output, inputs)


def _train(args: argparse.Namespace, name: str, model: str, data: str) -> Stage:
    output = _checkpoint(args, name)
    command = [*args.launcher, script(TRAINER), "--model_name_or_path", model, "--data_path", data]
    command += ["--output_dir", output, "--seed", str(args.seed)]
    environment = _group(args)
    if args.wandb_project:
        command += ["--report_to", "wandb", "--run_name", _run_name(args, f"{name}/train")]
        environment["WANDB_PROJECT"] = args.wandb_project
    command += args.train_args
    inputs = {"model": model, "data": data} | trainer_files(args.train_args)
    return Stage(f"{name}/train", command, Path(output), inputs, environment)


def _evaluate(args: argparse.Namespace, name: str, model: str) -> Stage:
    output = args.out / "eval" / name
    command = ["python", script("workflow_eval.py"), "--model", model]
    command += [*_problems(args, args.test_data), "--log_dir", str(output), *EVALUATION]
    command += ["--context_window", "2", *_shared(args), *_tracked(args, f"{name}/eval")]
    inputs = {"model": model, "problems": args.test_data}
    return _stage(args, f"{name}/eval", command + args.eval_args, output, inputs)


def _expert(args: argparse.Namespace, student: str) -> tuple[str, int]:
    """Who teaches this student, and with how many answers of which the best one counts."""
    own = args.expert == SELF
    samples = args.expert_samples or (SELF_SAMPLES if own else 1)
    return (student if own else args.expert), samples


def _checkpoint(args: argparse.Namespace, name: str) -> str:
    return str(args.out / name / "model")


def _problems(args: argparse.Namespace, path: str) -> list[str]:
    return ["--data_path", path, "--env", args.env]


def _shared(args: argparse.Namespace, iteration: int = 1) -> list[str]:
    """The seed, another one for each iteration's attempts, and who is asked."""
    shared = ["--seed", str(args.seed + iteration - 1)]
    if args.controller_address:
        shared += ["--controller_address", args.controller_address]
    return shared


def _tracked(args: argparse.Namespace, name: str) -> list[str]:
    if not args.wandb_project:
        return []
    return ["--wandb_project", args.wandb_project, "--wandb_name", _run_name(args, name)]


def _run_name(args: argparse.Namespace, name: str) -> str:
    return f"{args.out.name}-{name.replace('/', '-')}"


def _group(args: argparse.Namespace) -> dict[str, str]:
    """One group at Weights & Biases for all stages; wandb reads the variable itself."""
    return {"WANDB_RUN_GROUP": args.out.name} if args.wandb_project else {}
