"""How a call ends: its exit code and one line, whatever went wrong."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from rise import cost
from rise.iterated import place

if TYPE_CHECKING:
    from rise.episodes.journal import RunDir
    from rise.job import Job
    from rise.tally import Tally

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
BROKEN_PIPE = 128 + signal.SIGPIPE
"""What a shell says of a program that writes to a pipe which nobody reads any more."""
NEVER_FIT = (
    "{count} of {finished} episodes ended because a prompt does not fit the model's context. They "
    "count as not right, are no data and are not asked again. With another {place}, a smaller "
    "--context_window makes later turns shorter, --prompt_style bare the first one too, and a "
    "smaller --max_new_tokens leaves more room."
)
NONE_FIT = (
    "no prompt fits the model's context, so nothing was answered (the last one: {said}). With "
    "another {place}, use a model with a longer context{style}."
)
GIVEN_UP = (
    "{count} of {finished} episodes ended because they were refused in as many calls as "
    "--give_up_after says. They count as not right, are no data and are not asked again."
)
REFUSED = (
    " {count} of them were refused, which a further try hardly changes: with --give_up_after N an "
    "episode that was refused in N calls counts as not right, and the run can end."
)


def run_program(main: Callable[[], int | str | None]) -> NoReturn:
    """Exit with the code that `main` returns, or quietly with 141 where nobody reads the output.

    A pipe into `head` ends like that, which is nobody's mistake.
    """
    try:
        try:
            sys.exit(main())
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # What a stream still holds would be written when Python ends, and fail again.
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        sys.exit(BROKEN_PIPE)


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """Turn an error into one message on stderr and exit code 2, Ctrl-C into code 130.

    Errors of the operating system are those of files: a directory that cannot be written to, or a
    full disk, which is nobody's wrong usage: exit code 1.
    """
    try:
        with _sigterm_as_interrupt():
            yield
    except KeyboardInterrupt as error:
        print("Interrupted before anything was asked: the same command begins again.")
        raise SystemExit(INTERRUPTED) from error
    except BrokenPipeError:
        raise  # to `run_program`
    except (ValueError, OSError) as error:
        print(f"{Path(sys.argv[0]).name}: error: {said(error)}", file=sys.stderr)
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise SystemExit(FAILED if full else USAGE) from error


def said(error: Exception) -> str:
    """An error in words: one of a file names the file and what would help.

    >>> said(PermissionError(13, "Permission denied", "/root/log"))
    '/root/log: Permission denied; give a place that you may write to'
    >>> said(ValueError("--limit is 0"))
    '--limit is 0'
    """
    if not isinstance(error, OSError) or error.filename is None:
        return str(error)
    forbidden = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    remedy = "; give a place that you may write to" if forbidden else ""
    return f"{error.filename}: {error.strerror}{remedy}"


@contextlib.contextmanager
def run_errors(job: Job, run: RunDir) -> Iterator[None]:
    """Turn an error of the disk into one message and exit code 1, Ctrl-C into code 130."""
    try:
        with _sigterm_as_interrupt():
            yield
    except KeyboardInterrupt as error:
        print(interrupted(job, run))
        raise SystemExit(INTERRUPTED) from error
    except BrokenPipeError:
        raise  # to `run_program`
    except OSError as error:
        print(f"Cannot write: {said(error)}. {job.state(run)}; the same command goes on with them.")
        raise SystemExit(FAILED) from error


def interrupted(job: Job, run: RunDir) -> str:
    """What an interrupted run says."""
    return f"Interrupted: {job.state(run)}; the same command goes on with them."


def unanswered(tally: Tally) -> list[str]:
    """What is said of the episodes that ended without an answer; empty without one."""
    counts = {NEVER_FIT: tally.unanswered - tally.given_up, GIVEN_UP: tally.given_up}
    return [
        text.format(count=count, finished=tally.finished, place=place())
        for text, count in counts.items()
        if count
    ]


def none_fits(tally: Tally) -> bool:
    """Whether every episode ended at turn 1 because its prompt does not fit: nothing was asked.

    Rates of 0 % would then look like a result.
    """
    ended = tally.finished and tally.unanswered == tally.finished
    return bool(ended) and not tally.given_up and not any(tally.verdicts)


def none_fit(job: Job, tally: Tally) -> str:
    """What is said where `none_fits`."""
    bare = job.config["prompt_style"] == "bare"
    style = "" if bare else ", or --prompt_style bare, which asks the question alone"
    return NONE_FIT.format(said=tally.last_error, place=place(), style=style)


def unfinished(job: Job, run: RunDir, tally: Tally) -> str:
    """What is said at the end of a call that leaves episodes owed: why, and what goes on."""
    kinds = ", ".join(f"{kind} {count}" for kind, count in tally.errors.items())
    causes = f", failed: {kinds} (last: {tally.last_error})" if kinds else ""
    refused = REFUSED.format(count=tally.refused) if tally.refused else ""
    limit = job.config.get("max_cost_usd")
    if cost.exceeded(limit, tally):
        return (
            f"Stopped at --max_cost_usd {limit:g}: the episodes so far cost {tally.cost_usd:.4f} "
            f"USD. {job.state(run)}{causes}; the same command with a larger --max_cost_usd goes "
            f"on.{refused}"
        )
    return f"{job.state(run)}{causes}. The same command tries again what is missing.{refused}"


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM, by which batch systems end a job, do what Ctrl-C does."""

    def forward(number: int, frame: FrameType | None) -> None:
        # asyncio's handler cancels the rollout; a plain KeyboardInterrupt would hit whichever task
        # happens to run. In a background job SIGINT may be ignored, SIGTERM must not be.
        handler = signal.getsignal(signal.SIGINT)
        (handler if callable(handler) else signal.default_int_handler)(number, frame)

    before = signal.signal(signal.SIGTERM, forward)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
