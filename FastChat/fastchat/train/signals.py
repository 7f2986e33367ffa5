"""SIGTERM, SIGUSR1 and Ctrl-C: what is begun is finished and saved, and the exit code tells.

Slurm sends SIGTERM before it ends a job, or what `--signal` names, often SIGUSR1. Before the first
step a signal ends the process at once; during training it is noted, and `StopAtSignal` in
`rwr_trainer.py` ends the run after the step on all processes together. Launchers send several of
them, or, as `deepspeed` on one node, end without a word: only Ctrl-C twice, some seconds apart,
ends a step that is begun.
"""

import contextlib
import os
import signal
import time
from pathlib import Path
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
APART = 3.0
"""Seconds: a launcher's second signal comes earlier, a person's later."""


class Ended(KeyboardInterrupt):
    """A signal ends this process; the message says where it was."""


class State:
    """What came so far in this process."""

    number = 0
    since = 0.0
    deferred = False
    """Whether a signal is noted, and not raised."""
    runner = 0
    """The process that is `deepspeed`, two above this one; 0 without it."""


def install() -> None:
    with contextlib.suppress(OSError):  # a system without /proc
        if b"deepspeed.launcher.launch" in Path(f"/proc/{os.getppid()}/cmdline").read_bytes():
            State.runner = _parent(os.getppid())
    for number in SIGNALS:
        # Shells let background jobs ignore Ctrl-C; SIGUSR1 is ignored so that launchers survive it.
        if number != signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _handle)


def wanted() -> int:
    """The signal to stop at, 0 for none: the end of `deepspeed` counts as SIGTERM."""
    # It waits for this run, so it was killed; its own launcher would let the run go on.
    with contextlib.suppress(OSError):
        if State.runner and _parent(os.getppid()) != State.runner:
            State.number = State.number or signal.SIGTERM
    return State.number


def defer() -> None:
    """From here on a signal is noted alone: training is at work, or the process ends anyway."""
    State.deferred = True


def ignore(_: int = 0) -> None:
    """Leave all signals to the parent: a process that loads data must not end before it does."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def exit_code(number: int) -> int:
    """130 after Ctrl-C, 143 after what ends a job."""
    return 128 + (signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)


def _parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def _handle(number: int, _: FrameType | None) -> None:
    is_first, now = not State.number, time.monotonic()
    if is_first:
        State.number, State.since = number, now
    again = number == signal.SIGINT and now - State.since > APART
    if again or (is_first and not State.deferred):
        raise Ended("interrupted")
    if is_first and os.environ.get("RANK", "0") == "0":
        # Not by print, which may be at work where the signal came.
        text = f"\n{signal.Signals(number).name}: finishing the step and saving a checkpoint"
        more = "; Ctrl-C again leaves at once" if number == signal.SIGINT else ""
        os.write(2, f"{text}{more}\n".encode())
