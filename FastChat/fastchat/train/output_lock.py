"""One training per output directory: a lock file in it, which is held until the run ends.

Two runs there would delete each other's checkpoints, and the record of one would stand beside the
weights of the other.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import torch

from fastchat.train.arguments import TrainingArguments
from fastchat.train.processes import is_first_process

logger = logging.getLogger("fastchat.train")

LOCK = ".training.lock"
"""Hidden, since it stays behind after kill -9; the lock itself ends with its process."""
LOCK_WAIT = 10.0
"""Seconds to wait for what a killed run has left behind: processes that load its data."""
POLL = 0.1


@contextlib.contextmanager
def output_lock(args: TrainingArguments) -> Iterator[None]:
    """Hold the output directory, on the first process; all processes fail if it cannot.

    A directory that is made for it, and is still empty at the end, is removed again.

    Raises:
        ValueError: another run is at work there.
        OSError: the directory cannot be made.
    """
    refusal: list[Exception | None] = [None]
    with contextlib.ExitStack() as held:
        if is_first_process():
            try:
                held.enter_context(_locked(Path(args.output_dir)))
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
    path = directory / LOCK
    try:
        with _take(path):
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
    finally:
        with contextlib.suppress(OSError):  # not empty: something was written
            for folder in made:
                folder.rmdir()


def _take(path: Path) -> IO[str]:
    """The lock file, open and locked."""
    deadline = time.monotonic() + LOCK_WAIT
    while True:
        file = path.open("a", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                file.close()
                raise ValueError(
                    f"another process is training in {path.parent}: wait for it, or name "
                    "another --output_dir"
                ) from error
        except OSError as error:
            # Some file systems of clusters know no locks; training there is no mistake.
            logger.warning("%s cannot be locked (%s): let no other run write there", path, error)
            return file
        else:
            if _is_at(file, path):
                return file
        file.close()
        time.sleep(POLL)


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether an open file is still the one at that path: the run before may have deleted it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
