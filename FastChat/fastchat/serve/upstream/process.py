"""A server in a process of its own that lives as long as its worker."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import requests

from fastchat.serve.http import accepts

_POLL_SECONDS = 0.5
_PROGRESS_SECONDS = 10.0
_START_SECONDS = 3600.0
_STOP_SECONDS = 10.0
_TAIL_LINES = 15
_REFUSALS = 3
"""Refused connections in a row after which a server that nobody here started is gone."""
_PR_SET_PDEATHSIG = 1


class ServerEnded(Exception):
    """A server did not become ready; the message has the end of its log."""


class UpstreamServer:
    """A child process, in a process group of its own, that answers GET /health once it is ready.

    Args:
        command: the command line.
        url: of the server, without a path.
        log: file for what the process prints; it is appended to.
    """

    def __init__(self, command: list[str], url: str, log: Path, logger: logging.Logger):
        self.url = url
        self.log = log
        self.logger = logger
        libc = ctypes.CDLL(None)

        def end_with_parent() -> None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # A worker that is killed cannot stop its server any more.
                preexec_fn=end_with_parent if hasattr(libc, "prctl") else None,
            )

    def wait(self) -> None:
        """Return when the server is healthy; say every ten seconds that it is not yet.

        Raises:
            ServerEnded: the process ended, or took longer than an hour.
        """
        began = said = time.monotonic()
        while not self._is_healthy():
            complaint = self.complaint()
            if complaint:
                raise ServerEnded(complaint)
            now = time.monotonic()
            if now - began > _START_SECONDS:
                raise ServerEnded(f"the server is not ready after an hour; see {self.log}")
            if now - said > _PROGRESS_SECONDS:
                said = now
                last = (self._tail() or ["nothing yet"])[-1]
                self.logger.info("waiting for the server, %.0f s; it says: %s", now - began, last)
            time.sleep(_POLL_SECONDS)
        self.logger.info("the server is ready after %.0f s", time.monotonic() - began)

    def complaint(self) -> str | None:
        """How the process ended and what it printed last, None while it runs."""
        if self._process.poll() is None:
            return None
        tail = "\n".join(f"    {line}" for line in self._tail())
        code = self._process.returncode
        return f"the server ended with code {code}; {self.log} ends with:\n{tail}"

    def stop(self) -> None:
        """End the process and all that it started."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        # What is left of the group would keep the accelerator's memory.
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _is_healthy(self) -> bool:
        try:
            return requests.get(f"{self.url}/health", timeout=5).ok
        except requests.RequestException:
            return False

    def _tail(self) -> list[str]:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line for line in lines if line.strip()][-_TAIL_LINES:]


class Watch:
    """Ends this process when the server behind it is gone, so that no client is sent here.

    Args:
        url: of the server.
        server: the child process; None for a server that somebody else started.
    """

    def __init__(self, url: str, server: UpstreamServer | None, logger: logging.Logger):
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
            if self._closed.wait(_POLL_SECONDS):
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


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]
