r"""Iterate RISE: generate, convert, train, evaluate, and again with the model that came out.

    python -m rise.iterate --model ./base --env gsm8k --train_data data/gsm8k/train.jsonl \
        --test_data data/gsm8k/test.jsonl --expert gpt-3.5-turbo --iterations 2 --out log/iterated
    python -m rise.iterate --config run.json --out log/other

Reads   --config, a JSON object with these arguments by name; the two files of problems.
Writes  --out: base/, boost/, iteration1/, ... with gen/ (the log), data.json (the rows) and model/
        (the checkpoint); eval/NAME of each model; lineage.json, comparison.md and report.html.

Every stage is a command of the existing scripts and is printed before it runs. The same command
goes on after Ctrl-C or kill -9; what is done is not done again.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import subprocess
import sys
import time
from typing import IO

from rise.iteration_arguments import parse
from rise.iteration_forecast import refused_commands, size_of
from rise.iteration_plan import Stage, evaluations, plan, stage_environment
from rise.iteration_sources import missing_key, unusable
from rise.lineage import Lineage
from rise.program.exits import DONE, FAILED, INTERRUPTED, USAGE, run_program
from rise.stage_process import StageProcesses, locked


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line and the file that it names; see `rise.iteration_arguments.parse`."""
    return parse(argv, __doc__)


def main(argv: list[str] | None = None) -> int:
    """Run what is missing, compare the models; returns the exit code."""
    # A batch system ends a job by SIGTERM: then too, the stage that runs is to end first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        args = parse_args(argv)
        stages = plan(args)
        if args.dry_run:
            _check(args, stages, stages)
            print(described(stages, missing_key(args)))
            return DONE
        args.out.mkdir(parents=True, exist_ok=True)
        with locked(args.out / "lock") as lock:
            return _run(args, stages, lock)
    except KeyboardInterrupt:
        print("Interrupted: the same command goes on.")
        return INTERRUPTED
    except (ValueError, OSError) as error:
        print(f"rise.iterate: error: {error}", file=sys.stderr)
        return USAGE if isinstance(error, ValueError) else FAILED


def described(stages: list[Stage], missing: str | None = None) -> str:
    """Every command, with what it will ask for at most, and what has to be set before."""
    lines = []
    for stage in stages:
        size = size_of(stage)
        lines += [f"# {stage.name}{': ' if size else ''}{size}", stage.words, ""]
    lines += [f"# Before the real run: {missing}."] if missing else []
    return "\n".join([*lines, "Dry run: nothing was asked and nothing was written."])


def _run(args: argparse.Namespace, stages: list[Stage], lock: IO[str]) -> int:
    lineage = Lineage(args.out / "lineage.json")
    unknown = [stage for stage in stages if stage.command not in lineage.checked]
    _check(args, [stage for stage in stages if not lineage.holds(stage)], unknown)
    if unknown:
        lineage.add_checked([stage.command for stage in unknown])
    processes = StageProcesses(lock)
    try:
        for number, stage in enumerate(stages, start=1):
            title = f"{number}/{len(stages)} {stage.name}"
            if lineage.holds(stage):
                print(f"== {title}: done", flush=True)
                continue
            print(f"\n== {title}\n+ {stage.words}", flush=True)
            outdated, started = lineage.outdated(stage), time.monotonic()
            code = processes.run(stage.command, stage_environment(stage))
            if code:
                return _failed(stage, code)
            if outdated and lineage.outdated(stage):
                raise ValueError(_other_inputs(stage, outdated))
            lineage.add(stage, stages, time.monotonic() - started)
    finally:
        processes.close()
    return _finish(args, stages, lineage)


def _check(args: argparse.Namespace, owed: list[Stage], unknown: list[Stage]) -> None:
    """Look at everything that can be known before the first stage.

    Args:
        args: of the run.
        owed: stages that are not done.
        unknown: those whose arguments have not been read yet.

    Raises:
        ValueError: one message, with everything that is wrong.
    """
    problems = unusable(args, owed)
    if unknown:
        problems += refused_commands(unknown)
    if problems:
        raise ValueError("\n".join(["nothing was begun:", *problems]))


def _failed(stage: Stage, code: int) -> int:
    how = f"ended with code {code}" if code > 0 else f"was ended by signal {-code}"
    mend = "Once that is mended, the" if code == USAGE else "The"
    print(f"\n{stage.name} {how}; what it said is above. {mend} same command goes on there.")
    return code if code in (USAGE, INTERRUPTED) else FAILED


def _other_inputs(stage: Stage, outdated: list[str]) -> str:
    return (
        f"{stage.name} has left {stage.output} as it was, but that was made when "
        f"{', '.join(sorted(outdated))} had another content. Put that back, or delete "
        f"{stage.output}, or name another --out"
    )


def _finish(args: argparse.Namespace, stages: list[Stage], lineage: Lineage) -> int:
    """Write the comparison and the report, and show where every model comes from."""
    runs = evaluations(stages)
    comparison, report = args.out / "comparison.md", args.out / "report.html"
    compare = ["python", "-m", "rise.compare", *runs, "--format", "markdown"]
    environment = stage_environment(stages[0])
    print(f"\n+ {shlex.join(compare)} > {shlex.quote(str(comparison))}", flush=True)
    done = subprocess.run(compare, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return FAILED
    text = f"{done.stdout}\n{lineage.table()}\n"
    comparison.write_text(text, encoding="utf-8")
    show = ["python", "-m", "rise.report", *runs, "-o", str(report)]
    print(f"+ {shlex.join(show)}", flush=True)
    if subprocess.run(show, env=environment, stdout=subprocess.DEVNULL, check=False).returncode:
        return FAILED
    print(f"\n{text}\nTables: {comparison}. Page: {report}. Every input: {lineage.path}.")
    return DONE


if __name__ == "__main__":
    run_program(main)
