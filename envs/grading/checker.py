"""The pool of grading processes: one queue, one thread and one process per worker.

A thread hands one question at a time to its process (``mathverify.py``) and passes the verdict on
to a future, so that neither a thread nor an event loop that waits for grades is ever blocked by
sympy. The processes start with the first environment that needs them and end with the program,
also after Ctrl-C; if the program is killed, they see the end of their input and leave.
"""

import asyncio
import atexit
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path

from envs.grading.answers import Verdict
from envs.grading.questions import Question

MAX_WORKERS = 4
"""Grading processes at most. One more than processors, so that a slow question on each of two
does not hold up the easy ones; the limit on processor time keeps that fair."""

_PROGRAM = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
_SCRIPT = str(Path(__file__).resolve().with_name("mathverify.py"))


class CheckerError(RuntimeError):
    """The grading processes could not be started, or were shut down during a question."""


def check(question: Question) -> Verdict:
    """Return the verdict of math-verify; "timeout" when it did not finish within its limits."""
    return _pool().submit(question).result()


async def check_async(question: Question) -> Verdict:
    return await asyncio.wrap_future(_pool().submit(question))


def start() -> None:
    """Start the grading processes in the background, where they do not run yet."""
    _pool()


def wait_until_ready() -> None:
    """Wait until a grading process takes questions, so that the first grade is not a slow one."""
    _pool().warm.result()


def shutdown() -> None:
    """Kill the grading processes; a later question starts new ones."""
    global _running
    with _lock:
        pool, _running = _running, None
    if pool is not None:
        pool.close()


_lock = threading.Lock()
_running: "_Pool | None" = None


def _pool() -> "_Pool":
    global _running
    with _lock:
        if _running is None:
            _running = _Pool(min(MAX_WORKERS, _processors() + 1))
        return _running


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _forget() -> None:
    """Leave the pool to the parent: a forked child has its pipes but not its threads."""
    global _running, _lock
    _running, _lock = None, threading.Lock()


atexit.register(shutdown)
os.register_at_fork(after_in_child=_forget)


class _Pool:
    def __init__(self, size: int):
        self.jobs: queue.SimpleQueue = queue.SimpleQueue()
        self.workers: set[_Worker] = set()
        self.lock = threading.Lock()
        self.closed = False
        # each thread takes one of these first, which starts its process
        warming = [self.submit(Question(("1",), ("1",))) for _ in range(size)]
        self.warm = warming[0]
        for _ in range(size):
            threading.Thread(target=self._work, name="grading", daemon=True).start()

    def submit(self, question: Question) -> "Future[Verdict]":
        future: Future[Verdict] = Future()
        with self.lock:
            if self.closed:
                raise CheckerError("grading was shut down")
            self.jobs.put((future, json.dumps(asdict(question)) + "\n"))
        return future

    def close(self) -> None:
        """Refuse what waits, kill what runs, and let the threads end."""
        with self.lock:
            self.closed = True
            self.jobs.put(None)
            workers, self.workers = self.workers, set()
        for worker in workers:
            worker.kill()

    def _work(self) -> None:
        worker = None
        while (job := self.jobs.get()) is not None:
            future, line = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                worker, verdict = self._ask(worker, line)
                future.set_result(verdict)
            except CheckerError as error:
                worker = None
                future.set_exception(error)
        self.jobs.put(None)

    def _ask(self, worker: "_Worker | None", line: str) -> "tuple[_Worker | None, Verdict]":
        """Return the verdict; a process that something else has killed is replaced once."""
        for _ in range(2):
            worker = worker or self._hire()
            verdict = worker.ask(line)
            if verdict is not None:
                return worker, verdict
            worker.kill()
            with self.lock:
                self.workers.discard(worker)
            worker = None
        return None, "timeout"

    def _hire(self) -> "_Worker":
        if self.closed:
            raise CheckerError("grading was shut down")
        worker = _Worker()
        with self.lock:
            if not self.closed:
                self.workers.add(worker)
                return worker
        worker.kill()
        raise CheckerError("grading was shut down")


class _Worker:
    def __init__(self):
        # a fixed hash seed makes sympy order its terms, and so its verdicts, the same in each run
        settings = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, _SCRIPT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd="/",  # where no file of the user's can pass for a module
                env={**os.environ, **settings},
                start_new_session=True,
                text=True,
                bufsize=1,
            )
        except OSError as error:
            raise CheckerError(f"the grading process did not start: {error}") from error
        if self.process.stdout.readline().strip() != "ready":
            self.kill()
            raise CheckerError(
                "the grading process did not start (its message is above); "
                "is math-verify installed? pip install math-verify"
            )

    def ask(self, line: str) -> Verdict | None:
        try:
            self.process.stdin.write(line)
            return self.process.stdout.readline().strip() or None
        except (OSError, ValueError):
            return None

    def kill(self) -> None:
        """End the process and the child it has forked: they are a session of their own."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
