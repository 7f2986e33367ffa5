"""One call of workflow_gen.py or workflow_eval.py: checked, then played.

The scripts say what is asked for and report the results; `check` refuses what cannot work, before
anything is written or asked, and `Job.play` plays the episodes that are owed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rise.episodes import shard
from rise.episodes.episode import Episode, is_owed
from rise.episodes.journal import RunDir, locate, read_json, recorded
from rise.episodes.rows import refusals, rows
from rise.policies import names as choice
from rise.policies.local import LocalServing, ServingError
from rise.program.exits import DONE, FAILED, INTERRUPTED, USAGE
from rise.rollout.play import Plan, run_episodes
from rise.runs import tally as cost
from rise.runs.arguments import allow_connections, controller_url, per_turn, problems_with, smoke
from rise.runs.config import configuration, make_env
from rise.runs.messages import interrupted, none_fit, none_fits, unanswered, unfinished
from rise.runs.progress import Progress
from rise.runs.tally import Tally
from rise.tracking import tracker as tracking

if TYPE_CHECKING:
    from envs.base import Env

SMOKE_DONE = (
    "Smoke run: every step of this command works. Its numbers mean nothing; the real run is the "
    "same command without --smoke."
)


@dataclass
class Job:
    """A call whose arguments hold together, and whose models answer."""

    env: Env | None
    """None where nothing is played: in `rise.merge`."""
    config: dict[str, Any]
    """What config.json gets."""
    kinds: dict[str, str]
    """Kind of each model; empty where the run is finished, since nobody is asked then."""
    finished: int
    """Episodes that earlier calls have recorded."""
    seconds: float = 0.0
    """Wall time of the episodes, earlier calls included that wrote a summary: a call that was
    interrupted wrote none."""

    @property
    def is_finished(self) -> bool:
        """Whether earlier calls have recorded every episode."""
        return self.finished == self.size

    @property
    def size(self) -> int:
        """The episodes that the run has: one per problem, or per problem of its shard."""
        return len(shard.task_ids(self.config))

    def open_run(self) -> RunDir:
        """Open the run directory, or make it; raises ValueError as `RunDir.open` does."""
        return RunDir.open(self.config["log_dir"], self.config, self.config["max_turns"])

    def tally(self, run: RunDir) -> Tally:
        """The counts over the episodes that are recorded, and the usage of those that failed."""
        config = self.config
        cumulative, prices = config["feedback"] == "oracle", config.get("prices")
        tally = Tally(config["max_turns"], cumulative=cumulative, prices=prices)
        for episode in run.episodes():
            tally.add(episode)
        for _, _, row in rows(run.path / "rows.jsonl"):
            if row and is_owed(row.get("error")):
                tally.add_usage(Episode.from_dict(row))
        return tally

    def play(self, run: RunDir, tally: Tally, tracker: Any) -> int:
        """Play what is owed, add it to the tally and say how it ended.

        Returns:
            The exit code: 0 done, 1 if episodes are still owed or none was answered, 2 if a
            checkpoint cannot be served, 130 if interrupted.
        """
        self.seconds = _summary(run).get("wall_s", 0.0)
        if self.is_finished:
            print(f"All {self.finished} episodes are in {run.path}; nobody was asked.")
            return self._ending(run, tally)
        started = time.monotonic()
        try:
            trouble = self._play(run, tally, tracker)
        except KeyboardInterrupt:
            print(interrupted(self, run))
            return INTERRUPTED
        except ServingError as error:
            if error.refused:
                print(f"{sys.argv[0]}: error: {error}", file=sys.stderr)
                return USAGE
            trouble = str(error)
        self.seconds += time.monotonic() - started
        if trouble:
            print(trouble)
        return self._ending(run, tally)

    def _ending(self, run: RunDir, tally: Tally) -> int:
        """Say what is missing and why; returns the exit code."""
        if len(run.done) == self.size and none_fits(tally):
            print(f"{Path(sys.argv[0]).name}: error: {none_fit(self, tally)}", file=sys.stderr)
            return FAILED
        for line in unanswered(tally):
            print(line)
        if len(run.done) == self.size:
            return FAILED if tally.unanswered == self.size else DONE
        print(unfinished(self, run, tally))
        return FAILED

    def write_summary(self, run: RunDir, results: dict[str, Any]) -> None:
        """Write summary.json: the results, then the counts, the configuration, the wall time.

        A finished run keeps the summary that it has, unless that one has other prices, or is of a
        call before the last row: a kill can come between the two.
        """
        if self.is_finished and self._is_of_now(_summary(run)):
            return
        total, done = self.size, len(run.done)
        run.write_summary(
            results
            | {
                "counts": {"problems": total, "finished": done, "owed": total - done},
                "wall_s": round(self.seconds, 1),
                "versions": self.config["versions"],
                "config": self.config,
            }
        )

    def _is_of_now(self, summary: dict[str, Any]) -> bool:
        """Whether a summary was written after the last row, and at the prices of this call."""
        prices = [config.get("prices") or {} for config in (summary.get("config", {}), self.config)]
        return summary.get("counts", {}).get("owed") == 0 and prices[0] == prices[1]

    def state(self, run: RunDir) -> str:
        """How far the run is, and where."""
        return f"{len(run.done)} of {self.size} episodes are in {run.path}"

    def _play(self, run: RunDir, tally: Tally, tracker: Any) -> str | None:
        """Play the episodes; returns what went wrong if it was given up."""
        config = self.config
        limit = config["max_cost_usd"]
        if cost.exceeded(limit, tally):
            return None
        allow_connections(config["concurrency"])
        refused = refusals(run.path / "rows.jsonl")
        groups = shard.groups(config)
        if refused:
            # First those that nobody has refused: else the refused ones, failing again in a row,
            # would end every call before the others are asked.
            groups = sorted(groups, key=lambda group: max(refused[task] for task in group))
        owed = (group for group in groups if not run.done >= set(group))
        owed = cost.within(limit, tally, owed)
        checkpoints = [name for name, kind in self.kinds.items() if kind == "checkpoint"]
        serving = LocalServing(
            checkpoints,
            run.path / "serving",
            concurrency=config["concurrency"],
            worker_args=shlex.split(config["worker_args"]),
            workers_per_model=config["workers_per_model"],
        )
        with serving as local, Progress(tally, self.size, tracker) as progress:
            plan = self._plan(local.addresses(), refused)
            concurrency = config["concurrency"]
            rollout = run_episodes(
                self.env, plan, run, owed, concurrency=concurrency, report=progress.report
            )
            if asyncio.run(rollout):
                return None
            return f"Given up after many failures in a row. {local.complaint() or ''}"

    def _plan(self, local: dict[str, tuple[str, str]], refused: Mapping[int, int]) -> Plan:
        config = self.config
        policies = choice.build(self.kinds, config, local)
        names = ("num_of_samples", "temperature", "max_new_tokens", "top_p", "seed", "feedback")
        names += ("context_window", "correct_to_correct", "shown_attempt")
        return Plan(
            policies=[policies[name] for name in config["models"]],
            generation=config["stage"] == "gen",
            revise_if_wrong=bool(config.get("revise_if_wrong")),
            expert_sees=config.get("expert_sees", "feedback"),
            give_up_after=config["give_up_after"],
            refused=refused,
            **{name: config[name] for name in names},
        )


def check(
    args: argparse.Namespace, models: list[str], options: dict[str, Any], problems: list[str]
) -> Job:
    """Check everything that can be wrong before anything is asked or written.

    With --check a checkpoint may be missing that an earlier stage will make.

    Args:
        args: the parsed arguments.
        models: one model, or one per turn.
        options: what the scripts differ in: stage, feedback, correct_to_correct, shown_attempt;
            expert_sees of generation, revise_if_wrong of evaluation.
        problems: what the script itself has found wrong.

    Raises:
        ValueError: one message, with everything that is wrong.
    """
    args = smoke(args) if args.smoke else args
    problems = [*problems, *problems_with(args, models)]
    later = {model for model in models if args.check and choice.is_absent(model)}
    env = None
    if not any("--data_path" in problem for problem in problems):
        with _collect(problems):
            env = make_env(args)
    if problems:
        if not any("--controller_address" in problem for problem in problems):
            with _collect(problems):
                now = [model for model in models if model not in later]
                choice.decide(now, controller_url(args.controller_address))
        raise ValueError("\n".join(problems))
    models = per_turn(models, args.max_turns)
    config = configuration(args, models, env, options)
    done = set() if later else recorded(args.log_dir, args.max_turns, config)
    size = len(shard.task_ids(config))
    if not size:
        raise ValueError(f"--shard {args.shard} is empty: there are {config['problems']} problems")
    if len(done) == size:
        return _finished(env, config, len(done))
    now = [model for model in models if model not in later]
    kinds = choice.decide(now, config["controller_address"]) | dict.fromkeys(later, "checkpoint")
    problems = choice.unavailable_sampling(kinds, config)
    if problems:
        raise ValueError("\n".join(problems))
    if args.api_base and "openai" not in kinds.values():
        answer = ", ".join(f"{model}: {kind}" for model, kind in kinds.items())
        raise ValueError(
            f"--api_base {args.api_base} would be asked by nobody ({answer}): leave it out, or "
            "name the model NAME@URL"
        )
    config |= {"kinds": [kinds[model] for model in models], **choice.sampling(kinds, config)}
    cost.check_prices(config["prices"], kinds, config["max_cost_usd"])
    asyncio.run(choice.probe(kinds, config))
    return Job(env, config, kinds, len(done))


def _summary(run: RunDir) -> dict[str, Any]:
    """The summary of an earlier call; empty where none is, or none that can be read."""
    path = run.path / "summary.json"
    try:
        return read_json(path) if path.exists() else {}
    except ValueError:
        return {}


def _finished(env: Env, config: dict[str, Any], count: int) -> Job:
    """The job of a finished run, as it was configured; what is tracked where is said anew.

    So are prices: with other ones the summary is written again.
    """
    stored = read_json(locate(config["log_dir"], config["max_turns"]) / "config.json")
    if "kinds" in stored:
        # What is not given is the default, which the run may not have had.
        kinds = dict(zip(stored["models"], stored["kinds"], strict=True))
        defaults = choice.sampling(kinds, config)
        recorded(config["log_dir"], config["max_turns"], config | defaults)
    now = {name: config[name] for name in ("log_dir", *tracking.KEYS)}
    if config["prices"]:
        cost.check_prices(config["prices"], dict.fromkeys(stored["models"], ""), None)
        now["prices"] = config["prices"]
    return Job(env, stored | now, {}, count)


@contextlib.contextmanager
def start_tracker(job: Job, run: RunDir) -> Iterator[Any]:
    """The tracker of the run, finished at the end."""
    above = Path(job.config["log_dir"]).resolve().parent
    subject = tracking.Subject(
        stage=job.config["stage"],
        name="-".join(run.path.resolve().relative_to(above).parts),
        config=job.config,
        directory=run.path,
        events=run.path / "tensorboard",
        state=run.path / "tracking.json",
    )
    tracker = tracking.start(job.config, subject)
    try:
        yield tracker
    finally:
        tracker.finish()


@contextlib.contextmanager
def _collect(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        problems.append(str(error))
