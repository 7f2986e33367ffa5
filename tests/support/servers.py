"""Servers for the tests: applications on free ports, and the HTTP that a client would write."""

import contextlib
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests
import uvicorn
from prometheus_client.parser import text_string_to_metric_families

from fastchat.client.process import free_ports
from fastchat.conversation import ChatTemplate
from fastchat.model.model_adapter import load_tokenizer
from fastchat.serve import vllm_worker
from fastchat.serve.upstream.worker import UpstreamWorker
from fastchat.utils import listen
from tests.support.stages import environment

ENVIRONMENT = environment(HF_HUB_OFFLINE="1", FASTCHAT_WORKER_HEART_BEAT_INTERVAL="0.2")
"""What server processes run with."""
CONTEXT = 200
"""Tokens of the context of the worker that the fixtures serve."""
CHAT = {"model": "tiny-llama", "messages": [{"role": "user", "content": "2 + 2?"}]}
TEXT = {"model": "tiny-llama", "prompt": "Hello there"}
ASK = {"messages": CHAT["messages"], "echo": False, "max_new_tokens": 12}
"""As `CHAT`, to a worker."""
KEY = "right key"
"""A key of the OpenAI server that the fixtures serve."""


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    return free_ports(1)[0]


@contextlib.contextmanager
def process(
    module: str,
    *options: object,
    environment: dict[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """Run a module as a process until the block ends; `before` runs in it first."""
    child = subprocess.Popen(
        [sys.executable, "-m", module, *map(str, options)],
        env={**ENVIRONMENT, **(environment or {})},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=before,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


@contextlib.contextmanager
def running(app: Any, port: int = 0, host: str = "localhost") -> Iterator[str]:
    """Serve an ASGI application from a thread; yields its URL."""
    sock = listen(host, port)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    wait_for(lambda: server.started)
    try:
        yield f"http://localhost:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        sock.close()


def register(controller_url: str, worker_url: str, worker: Any) -> None:
    """Make a worker known to a controller, which hears no more of it."""
    body = {"worker_name": worker_url, "worker_status": worker.status(), "check_heart_beat": False}
    requests.post(f"{controller_url}/register_worker", json=body, timeout=10).raise_for_status()


def post(url: str, body: Any = None) -> Any:
    """The JSON answer to a JSON body."""
    return requests.post(url, json=body, timeout=120).json()


def frames(url: str, body: Any) -> list[dict[str, Any]]:
    """All messages of a stream, split at the zero bytes as FastChat's clients do."""
    reply = requests.post(url, json=body, stream=True, timeout=120)
    chunks = reply.iter_lines(decode_unicode=False, delimiter=b"\0")
    return [json.loads(chunk) for chunk in chunks if chunk]


def scrape(url: str) -> dict[str, float]:
    """All samples under /metrics: {name or name{label value}: number}."""
    reply = requests.get(f"{url}/metrics", timeout=10)
    assert reply.headers["content-type"].startswith("text/plain")
    return {
        sample.name
        + "".join(f"{{{value}}}" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """Poll until `condition()` is true and return its value; a server need not answer yet."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(requests.RequestException):
            if value := condition():
                return value
        time.sleep(0.02)
    raise AssertionError(f"not reached within {seconds} s")


def alive(pid: int | str) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def in_front_of(base_url: str, path: Path, *options: str) -> UpstreamWorker:
    """A worker of vllm_worker.py for a checkpoint, in front of a running server."""
    command = ["--model-path", str(path), "--base-url", base_url, *options]
    args = vllm_worker.parse_args(command)
    template = ChatTemplate(load_tokenizer(args.model_path))
    return vllm_worker.build_worker(args, base_url, template, logging.getLogger("test"))
