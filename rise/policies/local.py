"""A controller and the workers of checkpoints, started for one run and ended with it, however.

On a machine with several GPUs each has a worker; the driver shares its requests among them. The
processes listen on free ports of 127.0.0.1 and write to `<run directory>/serving/*.log`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastchat.client.process import Child, ServerEnded, asked, free_ports, stop, wait_until
from fastchat.constants import controller_headers
from fastchat.model import hub
from fastchat.utils import threads_of
from rise.policies import gpus

log = logging.getLogger(__name__)

START_LIMIT = 1800.0
"""Seconds for a worker to load its model: large ones come from slow disks."""
STOP_LIMIT = 3.0
"""Seconds between the request to stop and the kill."""
HOST = "127.0.0.1"
WORKER = "model_worker"
MEMORY_OPTION = "--gpu-memory-fraction"
THREADS = "--num-threads"
CHOSEN = ("--device", "--gpus", "--num-gpus")
"""Who names GPUs in --worker_args has chosen."""


class ServingError(RuntimeError):
    """A process that should serve did not start; `refused`: it cannot do what it was asked."""

    def __init__(self, message: str, *, refused: bool = False):
        super().__init__(message)
        self.refused = refused


class LocalServing:
    """A controller and a worker per checkpoint (a directory, or hf:ORG/NAME) inside the block.

    `concurrency` is the requests that a worker accepts at the same time.
    """

    def __init__(
        self,
        checkpoints: Sequence[str],
        log_dir: Path,
        *,
        concurrency: int = 64,
        worker_args: Sequence[str] = (),
    ):
        self.model_names = {name: f"checkpoint-{i}" for i, name in enumerate(checkpoints)}
        self.log_dir = log_dir
        self._options = ["--limit-worker-concurrency", str(concurrency), *worker_args]
        self._children: dict[str, Child] = {}
        self.controller = ""
        self.engines: dict[str, str] = {}
        """What generates for each checkpoint, such as "embedded" or "vllm 0.32.0"."""

    def __enter__(self) -> LocalServing:
        try:
            if self.model_names:
                self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def addresses(self) -> dict[str, tuple[str, str]]:
        """(controller URL, name of the model there) of each checkpoint."""
        return {name: (self.controller, model) for name, model in self.model_names.items()}

    def complaint(self) -> str | None:
        """What a process that has ended wrote last; None while all of them run."""
        return next(filter(None, (each.complaint() for each in self._children.values())), None)

    def _refusal(self) -> str | None:
        names = {model: name for name, model in self.model_names.items()}
        for name, child in self._children.items():
            if error := child.refusal():
                here = " (here: --worker_args '--chat-template NAME')"
                error += here if "--chat-template" in error else ""
                return f"cannot serve {names.get(name.partition('.')[0], name)}: {error}"
        return None

    def stop(self) -> None:
        stop(self._children.values(), STOP_LIMIT)
        self._children.clear()

    def _start(self) -> None:
        self.log_dir.mkdir(parents=True, exist_ok=True)
        devices = [] if self._has_option(*CHOSEN) else gpus.visible_gpus()
        places = gpus.placement(len(self.model_names), devices)
        shares = {} if self._has_option(MEMORY_OPTION, "--max-gpu-memory") else gpus.shares(places)
        count = sum(map(len, places))
        threads = [] if self._has_option(THREADS) else [THREADS, str(threads_of(count))]
        ports = free_ports(1 + count)
        self.controller = f"http://{HOST}:{ports[0]}"
        self._launch("controller", "controller", ["--port", str(ports[0])])
        checkpoints: dict[str, str] = {}
        each = iter(ports[1:])
        for (checkpoint, model), workers in zip(self.model_names.items(), places, strict=True):
            for number, gpu in enumerate(workers):
                port, name = next(each), f"{model}.{number}" if number else model
                address = f"http://{HOST}:{port}"
                checkpoints[address] = checkpoint
                arguments = ["--port", str(port), "--worker-address", address]
                arguments += ["--controller-address", self.controller, "--model-names", model]
                arguments += ["--vllm-log", str(self.log_dir / f"{name}.vllm.log")]
                arguments += ["--model-path", checkpoint.removeprefix("hf:")]
                arguments += [*self._options, *threads]
                arguments += [MEMORY_OPTION, f"{shares[gpu]:.4g}"] if gpu in shares else []
                self._launch(name, WORKER, arguments, gpu)
        names = ", ".join(self.model_names)
        print(f"loading {names}; the logs are in {self.log_dir}", file=sys.stderr, flush=True)
        try:
            children = list(self._children.values())
            wait_until(lambda: self._all_serve(checkpoints), children, START_LIMIT)
        except ServerEnded as error:
            if refusal := self._refusal():
                raise ServingError(refusal, refused=True) from error
            raise ServingError(f"cannot serve {names}: {error}") from error
        for checkpoint, engine in self.engines.items():
            log.info("%s: answers are generated by %s", checkpoint, engine)

    def _has_option(self, *names: str) -> bool:
        return any(word.split("=")[0] in names for word in self._options)

    def _launch(self, name: str, module: str, arguments: list[str], gpu: str | None = None) -> None:
        command = [sys.executable, "-m", f"fastchat.serve.{module}", "--host", HOST, *arguments]
        environment = _environment()
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        if any(path.startswith("hf:") for path in self.model_names) and hub.unreachable():
            # The checkpoint is in the cache; the worker need not find out that nobody answers.
            environment["HF_HUB_OFFLINE"] = "1"
        self._children[name] = Child(name, command, self.log_dir / f"{name}.log", environment)

    def _all_serve(self, workers: dict[str, str]) -> bool:
        """Whether all answer; `workers` are their URLs, each with its checkpoint."""
        served = _ask(f"{self.controller}/list_models", controller_headers()).get("models", [])
        if not set(self.model_names.values()) <= set(served):
            return False
        for worker, checkpoint in workers.items():
            status = _ask(f"{worker}/worker_get_status")
            if not status:
                return False
            self.engines[checkpoint] = str(status.get("served_by", "embedded"))
        return True


def refused(worker_args: Sequence[str]) -> list[str]:
    """What a worker says of arguments that it does not take."""
    from fastchat.serve import model_worker  # a worker's flags are known to the worker alone

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            model_worker.parse_args(["--model-path", "M", *worker_args])
    except SystemExit:
        error = said.getvalue().rpartition(" error: ")[2].partition(" (--help")[0]
        return [f"--worker_args: {error or 'these start no worker'}"]
    return []


def _ask(url: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    try:
        return json.loads(asked(url, b"{}", STOP_LIMIT, headers) or b"{}")
    except ValueError:
        return {}


def _environment() -> dict[str, str]:
    spec = importlib.util.find_spec("fastchat")
    if spec is None or spec.origin is None:
        raise ServingError("fastchat is not installed: run `pip install -e ./FastChat`")
    paths = [str(Path(spec.origin).parent.parent), os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(filter(None, paths))
    return os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
