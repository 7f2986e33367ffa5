r"""The grading process: math-verify behind a time limit, a memory limit and a process to kill.

``checker.py`` runs this file as a program of its own; nothing imports it. The process imports
math-verify once and then forks a child that does the comparing. The child carries kernel timers:
when a comparison runs out of time the kernel kills it, whatever Python is doing, and the next one
is forked in milliseconds. Requests are lines of JSON, replies lines with one word; the end of the
input ends both processes.
"""

import contextlib
import json
import logging
import os
import resource
import signal
import sys
from pathlib import Path
from typing import IO, Any

from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify
from sympy import Abs, Basic, Dummy, Eq, Expr, I, Limit, Pow, Product, Sum, cancel, expand_log, log

CPU_SECONDS = 1.5
"""Processor time for one comparison, so that a busy machine does not turn right into timeout."""
WALL_SECONDS = 10.0
"""Time on the clock after which a comparison is killed even when it had no processor: long, as
others may have the processors, and right must not turn into timeout for that."""
GROWTH_BYTES = 180 << 20
"""Memory that a child may add to the 60 MB of the libraries; powers and factorials ask for all."""
FULL_BYTES = 120 << 20
"""A child that has added so much is replaced, and its "wrong" may be for want of memory."""
COMPARISONS_PER_CHILD = 500
"""A child is replaced after this many comparisons, because sympy's caches only grow."""
EXTRACTION = LatexExtractionConfig(
    # as by default but for the units: they would take the c of 6-5c, and units.py drops real ones
    normalization_config=NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all"
    )
)


def main() -> None:
    """Answer each line ``{"candidate", "reference", "ordered"}`` with right, wrong or timeout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    _silence()
    replies.write("ready\n")
    child = None
    for count, line in enumerate(sys.stdin):
        if child is None or count % COMPARISONS_PER_CHILD == 0:
            child = _replace(child)
        verdict = child.ask(line)
        if verdict is None:
            child, verdict = _replace(child), "timeout"
        elif child.is_full():
            child, verdict = _replace(child), "timeout" if verdict == "wrong" else verdict
        replies.write(verdict + "\n")


def _silence() -> None:
    """Send what sympy and the LaTeX parser print nowhere: standard output carries the replies."""
    logging.disable(logging.CRITICAL)
    same("x", "2x/2")  # warms up while an error can still be seen
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def same(candidate: str, reference: str) -> bool:
    """Whether math-verify holds two LaTeX expressions for equal; unreadable ones never are."""
    found, wanted = map(_read, (candidate, reference))
    return bool(found and wanted) and (
        verify(wanted, found, float_rounding=12, allow_set_relation_comp=True, timeout_seconds=None)
        or _are_equal_where_positive(found[0], wanted[0])
        or _are_multiples(found[0], wanted[0])
    )


def _are_equal_where_positive(a: Any, b: Any) -> bool:
    r"""Whether two expressions are equal where all variables are positive: ln x + ln y, \sqrt{xy}.

    Not where a sign would get lost: \sqrt{x^2} is no x.
    """
    if not (isinstance(a, Expr) and isinstance(b, Expr)):
        return False
    difference = a - b
    if difference.has(log):
        return expand_log(difference, force=True).simplify() == 0
    roots = [p for p in difference.atoms(Pow) if p.exp.is_Rational and p.exp.q > 1]
    squares = [
        power.exp
        for root in roots
        if root.exp.q % 2 == 0
        for power in root.base.atoms(Pow)
        if power.exp.is_even
    ]
    if squares or difference.has(Abs) or not any(root.free_symbols for root in roots):
        return False
    positive = {symbol: Dummy(positive=True) for symbol in difference.free_symbols}
    return difference.subs(positive).simplify() == 0


def _are_multiples(a: Any, b: Any) -> bool:
    """Whether two equations differ by a factor: 2x^2 - 8 = 0 and x^2 = 4."""
    if not (isinstance(a, Eq) and isinstance(b, Eq)):
        return False
    left, right = ((side.lhs - side.rhs).expand() for side in (a, b))
    ratio = cancel(left / right) if left != 0 and right != 0 else None
    return ratio is not None and bool(ratio.is_number) and ratio != 0


def _read(text: str) -> list:
    """Return what math-verify reads; i, which it takes for a variable, is the number."""
    parsed = parse(
        f"${text}$",
        extraction_config=[EXTRACTION],
        fallback_mode="no_fallback",
        parsing_timeout=None,
    )
    return [_carried_out(part) if isinstance(part, Basic) else part for part in parsed]


def _carried_out(expression: Basic) -> Basic:
    """Return sums and limits as what they come to, and i as the imaginary unit."""
    if expression.has(Sum, Product, Limit):
        expression = expression.doit()
    units = [symbol for symbol in expression.free_symbols if symbol.name == "i"]
    return expression.subs(dict.fromkeys(units, I)) if units else expression


def same_members(candidate: list[str], reference: list[str], ordered: bool) -> bool:
    """Whether the members are equal one by one, or as partners in any order."""
    if ordered:
        return all(map(same, candidate, reference))
    left = list(reference)
    for text in candidate:
        partner = next((other for other in left if same(text, other)), None)
        if partner is None:
            return False
        left.remove(partner)
    return True


class _Child:
    """A forked process that compares until it is killed or its input ends."""

    def __init__(self):
        job_read, job_write = os.pipe()
        reply_read, reply_write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(job_write)
            os.close(reply_read)
            os.close(0)
            try:
                _serve(os.fdopen(job_read), os.fdopen(reply_write, "w", buffering=1))
            finally:
                os._exit(0)
        os.close(job_read)
        os.close(reply_write)
        self.jobs = os.fdopen(job_write, "w", buffering=1)
        self.replies = os.fdopen(reply_read)

    def ask(self, line: str) -> str | None:
        try:
            self.jobs.write(line)
        except BrokenPipeError:
            return None
        return self.replies.readline().strip() or None

    def is_full(self) -> bool:
        with contextlib.suppress(OSError):
            return _memory(self.pid, "VmPeak") > _memory(os.getpid(), "VmSize") + FULL_BYTES
        return False

    def close(self) -> None:
        self.replies.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        with contextlib.suppress(BrokenPipeError):
            self.jobs.close()


def _replace(child: _Child | None) -> _Child:
    if child is not None:
        child.close()
    return _Child()


def _serve(jobs: IO[str], replies: IO[str]) -> None:
    for number in (signal.SIGPROF, signal.SIGALRM):
        # both may have been ignored or blocked by the program that started us
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGPROF, signal.SIGALRM))
    with contextlib.suppress(ValueError, OSError):  # macOS has no /proc and refuses this limit
        limit = _memory(os.getpid(), "VmSize") + GROWTH_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for line in jobs:
        job = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
        verdict = _verdict(job["candidate"], job["reference"], job["ordered"])
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        replies.write(verdict + "\n")


def _memory(pid: int, name: str) -> int:
    """Return VmSize, or another line of /proc, in bytes; raises OSError where there is no /proc."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) << 10


def _verdict(candidate: list[str], reference: list[str], ordered: bool) -> str:
    try:
        return "right" if same_members(candidate, reference, ordered) else "wrong"
    except MemoryError:
        return "timeout"
    except Exception:
        # sympy and the parser raise all kinds of errors on nonsense, and nonsense is wrong
        return "wrong"


if __name__ == "__main__":
    main()
