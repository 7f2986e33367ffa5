"""One call of workflow_gen.py or workflow_eval.py: checked, then played.

The scripts say what is asked for and report the results; `check` refuses what cannot work, before
anything is written or asked, and `Job.play` plays the episodes that are owed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envs.base import Env
from fastchat.tracking import TRACKING
from fastchat.utils import json_or_none, raise_file_limit
from rise.episodes import shard
from rise.episodes.journal import RunDir
from rise.policies import names
from rise.policies.local import LocalServing, ServingError, refused
from rise.program.exits import DONE, FAILED, USAGE, collecting, said
from rise.rollout.play import Plan, run_episodes
from rise.rollout.shown import Shown, attempts_of, checksum
from rise.runs.arguments import controller_url, per_turn, problems_with
from rise.runs.config import configuration, make_env
from rise.runs.progress import Progress
from rise.runs.stage import none_fit, none_fits, unanswered, unfinished
from rise.runs.tally import Tally, check_prices, exceeded
from rise.tracking import tracker as tracking


@dataclass
class Job:
    """A call whose arguments hold together, and whose models answer."""

    env: Env | None
    """None where nothing is played: in `rise.merge`."""
    config: dict[str, Any]
    kinds: dict[str, str]
    """Kind of each model; empty where the run is finished, since nobody is asked then."""
    run: RunDir
    tally: Tally
    """The counts over what is recorded, by earlier calls and by this one."""
    shown: Shown = field(default_factory=dict)
    """What `--shown_attempts` shows."""
    seconds: float = 0.0
    """Wall time of the episodes, earlier calls included that wrote a summary."""

    def __post_init__(self) -> None:
        self.finished = len(self.run.done)
        """Episodes that earlier calls have recorded."""

    @classmethod
    def found(cls, config: dict[str, Any], env: Env | None = None) -> Job:
        """The job of this configuration with what earlier calls have recorded, read in one pass."""
        directory, turns = config["log_dir"], config["max_turns"]
        tally = _new_tally(config)
        run = RunDir.find(directory, turns, tally.add_earlier)
        if run.has_repeats:
            tally = _new_tally(config)
            for episode in run.episodes():
                tally.add(episode)
        return cls(env, config, {}, run, tally)

    @property
    def is_finished(self) -> bool:
        return self.finished == self.size

    @property
    def size(self) -> int:
        return len(shard.task_ids(self.config))

    def start(self) -> RunDir:
        self.run.start(self.config)
        return self.run

    def play(self, tracker: Any) -> int:
        """Play what is owed, add it to the tally and say how it ended; returns the exit code."""
        self.seconds = (json_or_none(self.run.path / "summary.json") or {}).get("wall_s", 0.0)
        if self.is_finished:
            print(f"All {self.finished} episodes are in {self.run.path}; nobody was asked.")
            return self._ending()
        started = time.monotonic()
        try:
            trouble = self._play(tracker)
        except ServingError as error:
            if error.refused:
                print(f"{sys.argv[0]}: error: {said(error)}", file=sys.stderr)
                return USAGE
            trouble = str(error)
        self.seconds += time.monotonic() - started
        if trouble:
            print(trouble)
        return self._ending()

    def _ending(self) -> int:
        is_complete = len(self.run.done) == self.size
        if is_complete and none_fits(self.tally):
            print(f"{Path(sys.argv[0]).name}: error: {none_fit(self)}", file=sys.stderr)
            return FAILED
        for line in unanswered(self.tally):
            print(line)
        if is_complete:
            return FAILED if self.tally.unanswered == self.size else DONE
        print(unfinished(self))
        return FAILED

    def write_summary(self, results: dict[str, Any]) -> None:
        """Write summary.json: the results, then the counts, the configuration, the wall time.

        A finished run keeps the summary that it has, unless that one has other prices, or is of a
        call before the last row: a kill can come between the two.
        """
        summary = json_or_none(self.run.path / "summary.json") or {}
        prices = [config.get("prices") or {} for config in (summary.get("config", {}), self.config)]
        is_of_now = summary.get("counts", {}).get("owed") == 0 and prices[0] == prices[1]
        if self.is_finished and is_of_now:
            return
        total, done = self.size, len(self.run.done)
        self.run.write_summary(
            results
            | {
                "counts": {"problems": total, "finished": done, "owed": total - done},
                "wall_s": round(self.seconds, 1),
                "versions": self.config["versions"],
                "config": self.config,
            }
        )

    def state(self) -> str:
        return f"{len(self.run.done)} of {self.size} episodes are in {self.run.path}"

    def _play(self, tracker: Any) -> str | None:
        config, run, tally = self.config, self.run, self.tally
        limit, concurrency = config["max_cost_usd"], config["concurrency"]
        if exceeded(limit, tally):
            return None
        raise_file_limit()
        # First those that nobody has refused: else the refused ones, failing again in a row, would
        # end every call before the others are asked.
        owed = [task_id for task_id in shard.task_ids(config) if task_id not in run.done]
        owed.sort(key=run.refusals.__getitem__)
        serving = LocalServing(
            [name for name, kind in self.kinds.items() if kind == "checkpoint"],
            run.path / "serving",
            concurrency=concurrency,
            worker_args=shlex.split(config["worker_args"]),
        )
        with serving as local, Progress(tally, self.size, tracker) as progress:
            if local.engines:
                config["engines"] = local.engines
                run.write_config(config)
            plan = self._plan(local.addresses(), progress.watch)
            progress.policies = plan.policies

            env = self.env
            assert env is not None, "nothing is played"

            async def rollout() -> str | None:
                showing = asyncio.create_task(progress.keep_showing())
                # Those in flight go on when the limit is reached.
                begun = itertools.takewhile(lambda _: not exceeded(limit, tally), owed)
                try:
                    return await run_episodes(
                        *(env, plan, run, begun), concurrency=concurrency, report=progress.report
                    )
                finally:
                    showing.cancel()

            trouble = asyncio.run(rollout())
            return trouble and f"{trouble} {local.complaint() or ''}".rstrip()

    def _plan(self, local: dict[str, tuple[str, str]], watch: Callable[[], Any]) -> Plan:
        config = self.config

        def learned(name: str, left_out: list[str]) -> None:
            config.setdefault("left_out", {})[name] = left_out
            self.run.write_config(config)

        policies = names.build(self.kinds, config, local, learned)
        keys = ["num_of_samples", "temperature", "max_new_tokens", "top_p", "seed", "feedback"]
        keys += ["date", "context_window", "correct_to_correct"]
        return Plan(
            policies=[policies[name] for name in config["models"]],
            generation=config["stage"] == "gen",
            revise_if_wrong=bool(config.get("revise_if_wrong")),
            expert_sees=config.get("expert_sees", "feedback"),
            shown=self.shown,
            refused=self.run.refusals,
            watch=watch,
            **{name: config[name] for name in keys},
        )


def check(
    args: argparse.Namespace, models: list[str], options: dict[str, Any], problems: list[str]
) -> Job:
    """Check everything that can be wrong before anything is asked or written: one ValueError.

    `options` is what the scripts differ in, `problems` what the script has found wrong. With
    --check a checkpoint may be missing that an earlier stage will make.
    """
    later = {model for model in models if args.check and names.is_absent(model)}
    now = [model for model in models if model not in later]
    env = _environment(args, models, now, problems)
    config = configuration(args, per_turn(models, args.max_turns), env, options)
    shown: Shown = {}
    other = config.get("shown_attempts")
    if other and not (args.check and not Path(other).exists()):
        shown = attempts_of(Path(other), config)
        config["shown_sha256"] = checksum(shown)
    job = Job.found(config, env)
    job.shown, stored = shown, job.run.stored or {}
    if not job.size:
        raise ValueError(f"--shard {args.shard} is empty: there are {config['problems']} problems")
    if stored:  # a run goes on with the day on which it began
        config["date"] = stored.get("date")
    if job.is_finished and not later:
        return _as_it_was(job, stored)
    if not (args.check or args.dry_run):
        asyncio.run(names.wait_for(_kinds_of(stored), config))
    job.kinds = names.decide(now, config["controller_address"])
    job.kinds |= dict.fromkeys(later, "checkpoint")
    wrong = names.unavailable_sampling(job.kinds, config)
    if "checkpoint" in job.kinds.values():
        wrong += refused(shlex.split(args.worker_args))
    if wrong:
        raise ValueError("\n".join(wrong))
    config["kinds"] = [job.kinds[model] for model in config["models"]]
    config |= names.sampling(job.kinds, config)
    if not later:
        job.run.check(config)
    check_prices(config["prices"], job.kinds, config["max_cost_usd"])
    if stored.get("left_out"):
        config["left_out"] = stored["left_out"]
    asyncio.run(names.probe(job.kinds, config))
    return job


def _environment(
    args: argparse.Namespace, models: list[str], now: list[str], problems: list[str]
) -> Env:
    """The environment; ValueError with all that the arguments and `problems` contradict."""
    problems = [*problems, *problems_with(args, models)]
    if Path(args.data_path).is_file():
        with collecting(problems):
            env = make_env(args)
            if not problems:
                return env
    with collecting(problems):
        names.decide(now, controller_url(args.controller_address))
    # An address that is none was found before.
    raise ValueError("\n".join(dict.fromkeys(problems)))


def _as_it_was(job: Job, stored: dict[str, Any]) -> Job:
    """A finished run, of which nobody is asked; trackers and prices are those given now.

    ValueError if another configuration is given. The defaults are those of who answered; a run
    from before kinds were recorded has what it was sampled with.
    """
    config, kinds = job.config, _kinds_of(stored)
    config["kinds"] = stored.get("kinds")
    before = {name: stored.get(name) for name in names.STUDENT}
    job.run.check(config | (names.sampling(kinds, config) if kinds else before | config))
    check_prices(config["prices"], dict.fromkeys(config["models"], ""), None)
    now = {name: config[name] for name in ("log_dir", *tracking.KEYS)}
    if config["prices"]:
        now["prices"] = config["prices"]
    job.config = stored | now
    job.tally.prices = job.config.get("prices") or {}
    return job


def _kinds_of(config: dict[str, Any]) -> dict[str, str]:
    return dict(zip(config.get("models", []), config.get("kinds", []), strict=False))


def _new_tally(config: dict[str, Any]) -> Tally:
    cumulative, prices = config["feedback"] == "oracle", config.get("prices")
    return Tally(config["max_turns"], cumulative=cumulative, prices=prices)


@contextlib.contextmanager
def start_tracker(job: Job) -> Iterator[Any]:
    above, path = Path(job.config["log_dir"]).resolve().parent, job.run.path
    subject = tracking.Subject(
        stage=job.config["stage"],
        name="-".join(path.resolve().relative_to(above).parts),
        config=job.config,
        directory=path,
        events=path / "tensorboard",
        state=path / TRACKING,
    )
    tracker = tracking.start(job.config, subject)
    try:
        yield tracker
    finally:
        tracker.finish()
