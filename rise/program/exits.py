"""How a call ends: its exit code and one line, whatever went wrong."""

import contextlib
import errno
import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from fastchat.utils import visible

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
BROKEN_PIPE = 128 + signal.SIGPIPE
"""What a shell says of a program that writes to a pipe which nobody reads any more."""


def run_program(main: Callable[[], int | str | None]) -> NoReturn:
    """Exit with the code that `main` returns, or quietly with 141 where nobody reads the output.

    A pipe into `head` ends like that, which is nobody's mistake. What an output cannot write (an
    ASCII terminal, half an emoji), and what in a model's answer or a server's words would move a
    terminal's cursor, is written as an escape.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        out = sys.stdout
        sys.stdout = _Visible(
            out.buffer, out.encoding, "backslashreplace", line_buffering=out.line_buffering
        )
    logging.setLogRecordFactory(_record)
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


class _Visible(io.TextIOWrapper):
    def write(self, text: str) -> int:
        return super().write(visible(text))

    def close(self) -> None:
        """Leave the buffer open: the stream that it was taken from has it, too."""
        if not self.buffer.closed:
            self.flush()


def _record(*args: Any, **more: Any) -> logging.LogRecord:
    record = logging.LogRecord(*args, **more)
    record.msg, record.args = visible(record.getMessage()), ()
    return record


@contextlib.contextmanager
def usage_errors(program: str = "") -> Iterator[None]:
    """Turn an error into one message on stderr and exit code 2, Ctrl-C into code 130.

    Errors of the operating system are those of files: a directory that cannot be written to, or a
    full disk, which is nobody's wrong usage: exit code 1.
    """
    try:
        with sigterm_as_interrupt():
            yield
    except KeyboardInterrupt as error:
        print("Interrupted: nothing was finished, the same command begins again.")
        raise SystemExit(INTERRUPTED) from error
    except BrokenPipeError:
        raise  # to `run_program`
    except (ValueError, OSError) as error:
        print(f"{program or Path(sys.argv[0]).name}: error: {said(error)}", file=sys.stderr)
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise SystemExit(FAILED if full else USAGE) from error


def exit_code(work: Callable[[], int], program: str = "") -> int:
    """What `work` returns; of an error, as in `usage_errors`, its exit code."""
    try:
        with usage_errors(program):
            return work()
    except SystemExit as end:
        return int(end.code or DONE)


@contextlib.contextmanager
def collecting(problems: list[str]) -> Iterator[None]:
    """Add what is wrong to the other problems, which are told together."""
    try:
        yield
    except ValueError as error:
        problems.append(str(error))


def said(error: Exception) -> str:
    """An error in words: one of a file names the file and what would help.

    >>> said(PermissionError(13, "Permission denied", "/root/log"))
    '/root/log: Permission denied; give a place that you may write to'
    >>> said(ValueError("--limit is 0"))
    '--limit is 0'
    """
    if not isinstance(error, OSError) or error.filename is None:
        return visible(str(error))
    forbidden = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    remedy = "; give a place that you may write to" if forbidden else ""
    return visible(f"{error.filename}: {error.strerror}{remedy}")


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
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
