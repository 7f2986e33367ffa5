"""Run commands of which nothing is left when this process ends, however it ends.

Each command has a process group of its own, and a second process watches over the caller: it reads
from a pipe that closes when the caller ends, by `kill -9` too, and then ends the group. Launchers
like `deepspeed` do not survive their caller that way, and neither do the trainers they started.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

GRACE = 20.0
"""Seconds between the request to stop and the kill; generation finishes its rows in that time."""
LOCK_WAIT = 60.0
"""Seconds to wait for what an earlier call has left running."""
POLL = 0.1
ROOT = Path(__file__).resolve().parents[1]


class StageProcesses:
    """Runs one command after the other.

    Args:
        lock: an open file with a lock that the watching process keeps until nothing runs any more.
    """

    def __init__(self, lock: IO[str]):
        paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
        self._watcher = subprocess.Popen(
            [sys.executable, "-m", "rise.stage_process"],
            stdin=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            pass_fds=[lock.fileno()],
            start_new_session=True,
        )

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Run a command and wait for it; returns its exit code, negative for a signal.

        Raises:
            KeyboardInterrupt: after Ctrl-C; the command has ended then.
            OSError: if the command cannot be started.
        """
        # A session of its own: Ctrl-C reaches this process alone, which then ends all of it.
        child = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
        )
        self._watch(child.pid)
        try:
            code = child.wait()
        except KeyboardInterrupt:
            self._watcher.stdin.close()
            child.wait()
            self._watcher.wait()
            raise
        self._watch(0)
        return code

    def close(self) -> None:
        """End the watching process; nothing runs now."""
        if not self._watcher.stdin.closed:
            self._watcher.stdin.close()
        self._watcher.wait()

    def _watch(self, group: int) -> None:
        self._watcher.stdin.write(f"{group}\n")
        self._watcher.stdin.flush()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[IO[str]]:
    """Hold a lock file; waits a while for what an earlier call has left behind.

    Raises:
        ValueError: if another call is at work there.
    """
    with path.open("a", encoding="utf-8") as file:
        deadline = time.monotonic() + LOCK_WAIT
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise ValueError(
                        f"another call is at work in {path.parent}: wait for it, or give another "
                        "--out"
                    ) from error
            if not told:
                print(f"Waiting for an earlier call in {path.parent} to end.", flush=True)
                told = True
            time.sleep(POLL)
        yield file


def watch() -> None:
    """Read process groups, one per line, 0 for none; at the end of the pipe end the last one."""
    group = 0
    for line in sys.stdin:
        group = int(line)
    if group:
        end_group(group)


def end_group(group: int) -> None:
    """Ask the processes of a group to stop, wait, and kill what is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(POLL)
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    watch()
