"""One training per output directory: a lock file in it, which is held until the run ends.

Two runs there would delete each other's checkpoints, and the record of one would stand beside the
weights of the other.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from fastchat.train.arguments import TrainingArguments
from fastchat.train.processes import is_first_process

logger = logging.getLogger("fastchat.train")

LOCK = ".training.lock"
"""Hidden, since it stays behind after kill -9; the lock itself ends with its process."""
LOCK_WAIT = 10.0
"""Seconds to wait for what a killed run has left behind: processes that load its data."""


@contextlib.contextmanager
def output_lock(args: TrainingArguments) -> Iterator[None]:
    """Hold the output directory, on the first process; all processes fail if it cannot."""
    refusal: list[Exception | None] = [None]
    with contextlib.ExitStack() as held:
        if is_first_process():
            try:
                held.enter_context(_locked(args.directory))
            except (ValueError, OSError) as error:
                refusal = [error]
        if args.world_size > 1:
            # The others look at the directory only now: the run that was waited for has changed it.
            torch.distributed.broadcast_object_list(refusal, src=0)
        if refusal[0] is not None:
            raise refusal[0]
        yield


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    made = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory / LOCK, timeout=LOCK_WAIT, fallback_to_soft=False)
    try:
        _take(lock)
        try:
            yield
        finally:
            (directory / LOCK).unlink(missing_ok=True)
            lock.release()
    finally:
        with contextlib.suppress(OSError):  # not empty: something was written
            for folder in made:
                folder.rmdir()


def _take(lock: FileLock) -> None:
    directory = Path(lock.lock_file).parent
    try:
        lock.acquire()
    except Timeout as error:
        raise ValueError(
            f"another process is training in {directory}: wait for it, or name another --output_dir"
        ) from error
    except OSError as error:
        # Some file systems of clusters know no locks; training there is no mistake.
        logger.warning("%s cannot be locked (%s): let no other run write there", directory, error)
