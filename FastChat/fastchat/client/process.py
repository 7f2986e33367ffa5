"""A server in a process of its own, which ends with this process, also when that is killed."""

import asyncio
import contextlib
import ctypes
import http.client
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from fastchat.client.http import accepts
from fastchat.constants import MAX_REPLY_BYTES

STOP_SECONDS = 10.0
"""Between the request to stop and the kill."""
POLL_SECONDS = 0.1
PROGRESS_SECONDS = 10.0
TAIL_LINES = 15
"""Lines of a dead process's log that the error shows."""
_REFUSALS = 3
"""Refused connections in a row after which a server that nobody here started is gone."""
_WATCH_SECONDS = 0.5
_USAGE = 2
"""The exit code of a program that cannot do what its arguments say."""
_PR_SET_PDEATHSIG = 1
_PORTS = range(22_000, 32_768)
"""Above FastChat's own ports, below the default of net.ipv4.ip_local_port_range."""


class ServerEnded(Exception):
    """A server did not become ready; the message has the end of its log."""


class Child:
    """A child process in a process group of its own.

    What it prints is appended to `log`; `at_our_death` is the signal that it gets when this process
    ends, None lets it live on. Nobody would follow up on a SIGTERM that it does not heed.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        at_our_death: signal.Signals | None = signal.SIGKILL,
    ):
        self.name = name
        self.command = list(command)
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches this process first, which then stops it
                preexec_fn=_die_with_parent(at_our_death),
            )
        self.pid = self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._process.poll()

    def complaint(self) -> str | None:
        """How the process ended and what it printed last, None while it runs."""
        if self.code is None:
            return None
        tail = "\n".join(f"    {line}" for line in self.tail())
        return f"{self.name} ended with code {self.code}; {self.log} ends with:\n{tail}"

    def refusal(self) -> str | None:
        """What is wrong with its arguments, in its own words; None where nothing is."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        _, marked, said = text.rpartition(" error: ")
        if self.code != _USAGE or not marked:
            return None
        return " ".join(said.split()).removesuffix(" (--help lists the flags)")

    def tail(self) -> list[str]:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line for line in lines if line.strip()][-TAIL_LINES:]

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def wait(self, seconds: float | None = None) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)


def stop(children: Iterable[Child], seconds: float = STOP_SECONDS) -> None:
    """End children and all that they started; safe to call twice."""
    children = list(children)
    for child in children:
        child.send(signal.SIGTERM)
    deadline = time.monotonic() + seconds
    for child in children:
        child.wait(max(0.0, deadline - time.monotonic()))
        # What is left of the group would keep the accelerator's memory.
        child.send(signal.SIGKILL)
        child.wait()


def wait_until(
    ready: Callable[[], bool],
    children: Sequence[Child],
    seconds: float,
    say: Callable[[str], object] | None = None,
) -> None:
    """Return when servers are ready; say every ten seconds what the last one is at.

    ServerEnded if one of them ended, or they took longer than that.
    """
    began = said = time.monotonic()
    while not ready():
        if complaint := next(filter(None, (child.complaint() for child in children)), None):
            raise ServerEnded(complaint)
        now = time.monotonic()
        if now - began > seconds:
            logs = ", ".join(str(child.log) for child in children)
            raise ServerEnded(f"not ready within {seconds:g} s: see {logs}")
        if now - said > PROGRESS_SECONDS:
            said = now
            last = (children[-1].tail() or ["nothing yet"])[-1]
            tell = say or (lambda text: print(text, file=sys.stderr, flush=True))
            tell(f"waiting for {children[-1].name}, {now - began:.0f} s; it says: {last}")
        time.sleep(POLL_SECONDS)


class Watch:
    """Ends this process when the server behind it is gone, so that no client is sent here.

    `server` is None for one that somebody else started.
    """

    def __init__(self, url: str, server: Child | None, logger: logging.Logger):
        self.gone = False
        self._url = url
        self._server = server
        self._logger = logger
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def close(self) -> None:
        """Watch no longer: a server that is being stopped must not look like one that died."""
        self._closed.set()

    def _run(self) -> None:
        refusals = 0
        while refusals < _REFUSALS:
            if self._closed.wait(_WATCH_SECONDS):
                return
            complaint = self._server.complaint() if self._server else None
            if complaint:
                self._logger.error("%s", complaint)
                break
            refusals = 0 if asyncio.run(accepts(self._url)) else refusals + 1
        else:
            self._logger.error("nothing listens at %s any more", self._url)
        self.gone = True
        os.kill(os.getpid(), signal.SIGTERM)


def asked(
    url: str,
    body: bytes | None = None,
    seconds: float = 5.0,
    headers: Mapping[str, str] | None = None,
) -> bytes | None:
    """What a server of this machine answers to a GET, or to a POST of JSON; None while it does not.

    A proxy of the environment does not know this machine's loopback address.
    """
    kind = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, body, {**kind, **(headers or {})})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=seconds) as reply:
            return reply.read(MAX_REPLY_BYTES)
    except (OSError, http.client.HTTPException):
        return None


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address on which nobody listens.

    None of those that Linux gives to connections, which one may get before the server listens.
    """
    with contextlib.ExitStack() as stack:
        ports: list[int] = []
        # By the system's chance: processes with one seed would draw the same ports.
        for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
            try:
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
            if len(ports) == count:
                return ports
    raise OSError(f"fewer than {count} ports of {_PORTS.start} to {_PORTS.stop - 1} are free")


def _die_with_parent(number: signal.Signals | None) -> Callable[[], None] | None:
    """A hook that makes Linux signal the child when this process ends, even by SIGKILL."""
    if number is None or not sys.platform.startswith("linux"):
        return None
    # The library is loaded here, since a forked child should do as little as possible.
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it ended before the kernel was asked
            os._exit(1)

    return arrange
