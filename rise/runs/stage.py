"""A stage from its command line to its end, and what it says there."""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from fastchat.utils import GO_TOGETHER
from rise.program.exits import DONE, FAILED, INTERRUPTED, said, sigterm_as_interrupt, usage_errors
from rise.rollout.plan import CALLS
from rise.runs.tally import Tally, exceeded

if TYPE_CHECKING:
    from rise.runs.job import Job

NEVER_FIT = (
    "{count} of {finished} episodes ended because a prompt does not fit the model's context. They "
    "count as not right, are no data and are not asked again. With another --log_dir, a smaller "
    "--context_window makes later turns shorter, --prompt_style bare the first one too, and a "
    "smaller --max_new_tokens leaves more room."
)
NONE_FIT = (
    "no prompt fits the model's context, so nothing was answered (the last one: {said}). With "
    "another --log_dir, use a model with a longer context{style}."
)
GIVEN_UP = (
    f"{{count}} of {{finished}} episodes ended because they were refused in {CALLS} calls. They "
    "count as not right, are no data and are not asked again."
)
REFUSED = (
    " {count} of them were refused, which a further try hardly changes: what is refused in "
    f"{CALLS} calls counts as not right, and the run can end."
)


def run_stage(
    argv: list[str] | None,
    parse_args: Callable[[list[str] | None], argparse.Namespace],
    check_args: Callable[[argparse.Namespace], Job],
    report: Callable[[Job, Any], None],
) -> int:
    """Run a script from its command line to its report; returns the exit code."""
    with usage_errors():
        args = parse_args(argv)
        logging.basicConfig(level=logging.INFO if args.verbose else logging.WARNING)

        from rise.runs.dry_run import describe
        from rise.runs.job import start_tracker

        job = check_args(args)
        if args.check or args.dry_run:
            print(GO_TOGETHER if args.check else describe(job))
            return DONE
        job.start()
    with job.run, run_errors(job), start_tracker(job) as tracker:
        code = job.play(tracker)
        if code in (DONE, FAILED) and job.run.done and not none_fits(job.tally):
            report(job, tracker)
    return code


@contextlib.contextmanager
def run_errors(job: Job) -> Iterator[None]:
    """Turn an error of the disk into one message and exit code 1, Ctrl-C into code 130."""
    try:
        with sigterm_as_interrupt():
            yield
    except KeyboardInterrupt as error:
        print(interrupted(job))
        raise SystemExit(INTERRUPTED) from error
    except BrokenPipeError:
        raise  # to `run_program`
    except OSError as error:
        print(f"Cannot write: {said(error)}. {job.state()}; the same command goes on with them.")
        raise SystemExit(FAILED) from error


def interrupted(job: Job) -> str:
    return f"Interrupted: {job.state()}; the same command goes on with them."


def unanswered(tally: Tally) -> list[str]:
    counts = {NEVER_FIT: tally.unanswered - tally.given_up, GIVEN_UP: tally.given_up}
    return [
        text.format(count=count, finished=tally.finished) for text, count in counts.items() if count
    ]


def none_fits(tally: Tally) -> bool:
    """Whether no prompt fitted at turn 1: nothing was asked, and 0 % would look like a result."""
    ended = tally.finished and tally.unanswered == tally.finished
    return bool(ended) and not tally.given_up and not any(tally.verdicts)


def none_fit(job: Job) -> str:
    bare = job.config["prompt_style"] == "bare"
    style = "" if bare else ", or --prompt_style bare, which asks the question alone"
    return NONE_FIT.format(said=job.tally.last_error, style=style)


def unfinished(job: Job) -> str:
    tally = job.tally
    kinds = ", ".join(f"{kind} {count}" for kind, count in tally.errors.items())
    causes = f", failed: {kinds} (last: {tally.last_error})" if kinds else ""
    refused = REFUSED.format(count=tally.refused) if tally.refused else ""
    limit = job.config.get("max_cost_usd")
    if exceeded(limit, tally):
        return (
            f"Stopped at --max_cost_usd {limit:g}: the episodes so far cost {tally.cost_usd:.4f} "
            f"USD. {job.state()}{causes}; the same command with a larger --max_cost_usd goes "
            f"on.{refused}"
        )
    return f"{job.state()}{causes}. The same command tries again what is missing.{refused}"
