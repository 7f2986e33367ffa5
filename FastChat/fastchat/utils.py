"""What every program does: its command line, its files, its threads, its port."""

import argparse
import contextlib
import ctypes
import difflib
import json
import logging
import math
import os
import re
import resource
import shlex
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar

T = TypeVar("T")
GO_TOGETHER = "These arguments go together; nothing was started."
"""What --check says."""
WILDCARDS = ("0.0.0.0", "::", "")
"""Hosts that stand for every address of this machine."""
LFS_POINTER = "version https://git-lfs.github.com/spec/"
"""How a file begins that git-lfs has not fetched."""
_OPEN_FILES = 65536
_LAST_PORT = 65535
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES = 2**30
"""Of malloc.h, and more than any block of a step."""


def build_logger(name: str) -> logging.Logger:
    """A logger that writes one line per event to stderr, ready for a log file."""
    logger = logging.getLogger(f"fastchat.{name}")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        pattern = f"%(asctime)s {name} %(levelname)s %(message)s"
        handler.setFormatter(_Visible(pattern, "%Y-%m-%d %H:%M:%S"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    return logger


_UNSEEN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    r"""A text with an escape for all that would move a terminal's cursor, colour it or turn it.

    >>> print(visible("a \x1b[2Jc\r \u202ed"))
    a \x1b[2Jc\r \u202ed
    """
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def first_line(error: BaseException) -> str:
    """What an exception says, as far as its first line; its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class _Visible(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        return visible(super().formatMessage(record))


def within(seconds: float, work: Callable[[], T]) -> T:
    """What `work` returns; futures.TimeoutError after so long, its thread is left behind then."""
    outcome: futures.Future[T] = futures.Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return outcome.result(seconds)


def own_cores() -> int:
    """Cores that this process may use: of its affinity and its control group's quota, at least 1.

    torch looks at neither the quota nor at other processes: threads that wait for each other on
    busy cores cost several times the work.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(count or 1, int(quota) // int(period)))
    except (OSError, ValueError):  # no control group, or no quota ("max")
        return count or 1


def threads_of(processes: int = 1) -> int:
    """CPU threads for one of so many processes: OMP_NUM_THREADS, or an even share of the cores."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) else max(1, own_cores() // processes)


def keep_freed_memory() -> None:
    """Have glibc use large freed blocks again, where there is one.

    By default they go back to the system, and the pages of the next step's logits come one fault
    at a time.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
            libc.mallopt(option, _KEPT_BYTES)


def byte_count(text: str) -> int:
    """A memory size such as 4GiB, 512M or 1.5g, as an argparse type.

    >>> byte_count("4GiB"), byte_count("1.5g"), byte_count("100M")
    (4294967296, 1610612736, 104857600)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt])(?:i?b)?", text.strip(), re.IGNORECASE)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give one such as 4GiB or 512M")
    return int(float(found[1]) * 1024 ** ("kmgt".index(found[2].lower()) + 1))


def listen(host: str, port: int) -> socket.socket:
    """A bound TCP socket; port 0 takes a free port.

    ValueError if the port is taken, or the host is none of this machine's addresses.
    """
    if not 0 <= port <= _LAST_PORT:
        # getaddrinfo would take the number modulo 65536.
        raise ValueError(f"--port {port} is no port: give a number from 0 to {_LAST_PORT}")
    kind, passive = socket.SOCK_STREAM, socket.AI_PASSIVE
    try:
        found = socket.getaddrinfo(host or None, port, type=kind, flags=passive)
    except (socket.gaierror, OverflowError, UnicodeError) as error:
        raise ValueError(f"--host {host!r} --port {port} is no address: {error}") from error
    # "localhost" may resolve to ::1 first, where a client that says 127.0.0.1 is refused.
    family, *_, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    sock = socket.socket(family, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
        sock.listen(2048)
    except OSError as error:
        sock.close()
        remedy = "stop the process that uses the port, or choose another one with --port"
        raise ValueError(f"cannot listen on {host}:{port}: {error.strerror}; {remedy}") from error
    return sock


def url_of(host: str, sock: socket.socket) -> str:
    """The URL under which others on this machine reach a listening socket."""
    name = "127.0.0.1" if host in WILDCARDS else host
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{sock.getsockname()[1]}"


def tell_if_open(host: str, logger: logging.Logger, remedy: str) -> None:
    """Say what it means to listen on every address, where that is asked for."""
    if host in WILDCARDS:
        logger.warning(
            "--host %s listens on every address of this machine: whoever reaches one of them may "
            "ask this server for anything; %s",
            host,
            remedy,
        )


def raise_file_limit() -> None:
    """Lift the soft limit of open files, often 1,024: a stream through the proxy takes two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if 0 <= soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def serve(app: Any, sock: socket.socket) -> None:
    """Run an ASGI application on `sock` until SIGTERM, or until SIGINT: then exit with 130."""
    import uvicorn

    raise_file_limit()
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=2, backlog=2048
    )
    try:
        uvicorn.Server(config).run(sockets=[sock])
    except KeyboardInterrupt:
        sys.exit(130)


def normal_url(text: str) -> str:
    """A controller's or worker's address: a URL, `host:port` or a bare port, as a URL."""
    text = text.strip().rstrip("/")
    if text.isdigit():
        return f"http://localhost:{text}"
    return text if "://" in text else f"http://{text}"


def positive_int(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number above 0")
    return int(text)


def fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number above 0 and at most 1")
    return value


def words(text: str) -> str:
    """An argparse type: the arguments of another program in one text, as a shell would read it."""
    try:
        shlex.split(text)
    except ValueError as error:
        reason = str(error).lower()
        raise argparse.ArgumentTypeError(f"{text!r} has {reason}: give it one") from error
    return text


class Parser(argparse.ArgumentParser):
    """argparse's parser; errors are one line with the nearest flag, and flags are given in full.

    A shortened flag would mean something else, or nothing, once there is a second such flag. The
    description keeps its line breaks. `elsewhere` says of flags that other programs have, or of
    their beginnings, what to do instead; `also` are flags of the program that hands its own rest
    on to this parser.
    """

    def __init__(
        self,
        elsewhere: Mapping[str, str] | None = None,
        also: Iterable[str] = (),
        **settings: Any,
    ):
        self._elsewhere, self._also = elsewhere or {}, also
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        settings.setdefault("allow_abbrev", False)
        super().__init__(**settings)

    def read(self, argv: list[str] | None) -> argparse.Namespace:
        """The arguments; their `error` ends the program as this parser does."""
        args = self.parse_args(argv)
        args.error = self.error
        return args

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._given = sys.argv[1:] if args is None else args
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        line = " ".join(message.split())
        self.exit(2, f"{self.prog}: error: {line}{self._nearest(line)} (--help lists the flags)\n")

    def _nearest(self, message: str) -> str:
        """What to do about flags that are not known, or the nearest known ones, in words."""
        is_missing = message.startswith("the following arguments are required: ")
        if not is_missing and not message.startswith("unrecognized arguments: "):
            return ""
        known = [*self._option_string_actions, *self._also]
        flags = [word.partition("=")[0] for word in self._given if word.startswith("--")]
        flags = [flag for flag in flags if flag not in known and " " not in flag]
        for start, remedy in self._elsewhere.items():
            if start and any(flag.startswith(start) for flag in flags):
                return f": {remedy}"
        more = self._elsewhere.get("", "") if flags else ""
        if not (near := " ".join(filter(None, (nearest(flags, known), more)))):
            return ""
        return f"; {' '.join(flags)} is unknown, {near}" if is_missing else f": {near}"


def nearest(flags: Iterable[str], known: Sequence[str]) -> str:
    """The known flags that are meant, as a question; "" where none is near."""
    near = [name for flag in flags for name in difflib.get_close_matches(flag, known, n=1)]
    return f"did you mean {', '.join(near)}?" if near else ""


_OTHER_FILES = {
    rf"(\xef\xbb\xbf)?{LFS_POINTER}": "a pointer of Git LFS and not the file: "
    "`git lfs pull` fetches it",
    r"\x1f\x8b|BZh|\xfd7zXZ|\(\xb5/\xfd|PK\x03\x04": "compressed, so unpack it",
    r"\xff\xfe|\xfe\xff|.?\x00": "UTF-16 or no text at all: save it as UTF-8",
    r"PAR1|ARROW1": "a table of Parquet or Arrow: write its rows as JSON",
    r"\s*<(?i:!doctype|html)": "a web page and not the file: download the raw file",
}


def no_json(path: Path) -> str | None:
    """What a file is, by its first bytes, that was not fetched or not unpacked; None for others."""
    with open(path, "rb") as file:
        start = file.read(100).decode("latin-1")
    return next((what for form, what in _OTHER_FILES.items() if re.match(form, start)), None)


def similar(path: str | Path) -> str:
    """What lies beside a path that is not there and has nearly its name, as a question; else ""."""
    folder, name = Path(path).parent, Path(path).name
    there = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    # train.jsonl is no slip for test.jsonl, tri is one for try.
    found = difflib.get_close_matches(name, there, n=1, cutoff=0.85 if len(name) > 4 else 0.65)
    return f" (did you mean {folder / found[0]}?)" if found else ""


def new_file(path: Path, mode: str = "") -> IO[Any]:
    """A file of our own to write, text unless the mode is b.

    What stands in its place goes, and a link that somebody put there is not followed.
    """
    path.unlink(missing_ok=True)
    return open(path, f"x{mode}", encoding=None if mode else "utf-8")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[str]]:
    """A file to write that takes the place of `path` when it is complete, and is gone otherwise."""
    draft = path.with_name(f"{path.name}.tmp")
    try:
        with new_file(draft) as file:
            yield file
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> Path:
    """Write JSON so that a reader sees the old file or the new one; NaN and infinity are null."""
    text = json.dumps(_strict(value), indent=2, ensure_ascii=False, allow_nan=False)
    with replacing(path) as file:
        file.write(text + "\n")
    return path


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_or_none(path: Path) -> Any:
    """The content of a JSON file; None if it is missing or torn."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
