"""What the OpenAI server asks of workers: the length of answers, and what it waits for.

python -m pytest tests/unit/fastchat/serve/openai/test_requests.py
"""

import contextlib
import time

import requests

from fastchat.client import workers as client_workers
from fastchat.serve import controller
from fastchat.serve.openai_api_server import create_app, parse_args
from tests.support.fake_workers import EVERYWHERE, enter, fake_workers
from tests.support.servers import running

CONTEXT = 131_072
CHAT = ("chat/completions", {"messages": [{"role": "user", "content": "Hi"}]})
TEXT = ("completions", {"prompt": "Hi"})


@contextlib.contextmanager
def serving(workers, **options):
    """The OpenAI server over a controller with one of these workers."""
    with contextlib.ExitStack() as stack:
        workers_url = stack.enter_context(running(workers, host=EVERYWHERE))
        controller_url = stack.enter_context(running(controller.create_app()))
        enter(controller_url, workers_url, "m", 0)
        yield stack.enter_context(running(create_app(controller_url, **options)))


def send(url, kind, **fields):
    path, body = kind
    return requests.post(f"{url}/v1/{path}", json={"model": "m", **body, **fields}, timeout=100)


def test_a_chat_without_a_length_does_not_reserve_a_long_context():
    app = fake_workers(CONTEXT)
    with serving(app) as url:
        send(url, CHAT), send(url, CHAT, max_tokens=100_000), send(url, TEXT)
    length = parse_args(["--default-max-tokens", "7"]).default_max_tokens
    with serving(app, default_max_tokens=length) as url:
        send(url, CHAT)
    bodies = [body for _, path, body in app.state.asked if path == "worker_generate"]
    assert [body["max_new_tokens"] for body in bodies] == [4096, 100_000, 16, 7]


def test_a_worker_that_does_not_count_tokens_fails_the_request_soon(monkeypatch):
    monkeypatch.setattr(client_workers, "CONTROL_SECONDS", 2.0)
    app = fake_workers()
    app.state.hung.add(("m", "count_token"))
    with serving(app, silence=20) as url:
        began = time.monotonic()
        reply = send(url, TEXT)
        assert time.monotonic() - began < 10
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "worker_timeout"
