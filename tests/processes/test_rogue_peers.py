"""What strangers send to the servers, and servers to their clients: nothing of it ends anything.

Every test speaks to a real server, or is one, on a port of this machine.

    python -m pytest tests/processes/test_rogue_peers.py
"""

import json
import logging
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from fastchat import conversation
from fastchat.constants import TOKEN_VARIABLE, ErrorCode
from fastchat.serve import base_model_worker, controller, model_worker, openai_api_server
from tests.support.pacing_worker import PacingWorker
from tests.support.servers import frames, post, running, wait_for
from tests.support.tiny import save_tiny_model, tiny_tokenizer

STATUS = {"model_names": ["m"], "speed": 1, "queue_length": 0}
DEEP = b"[" * 100_000


def worker_app():
    return base_model_worker.create_app(PacingWorker(["m"], 4, logging.getLogger("test")))


def raw(url, body, headers=None):
    kind = {"Content-Type": "application/json"}
    return requests.post(url, data=body, headers={**kind, **(headers or {})}, timeout=30)


def register(url, name, **status):
    body = {"worker_name": name, "worker_status": {**STATUS, **status}}
    return raw(f"{url}/register_worker", json.dumps(body))


@pytest.fixture(scope="module")
def url():
    with running(controller.create_app()) as address:
        yield address


@pytest.mark.parametrize(
    "name",
    [
        "http://a/path",
        "http://a:1/?next=b",
        "http://user:password@a:1",
        "http://a:1#b",
        "http://a:0",
        "http://a:65536",
        "ftp://a:1",
        "file:///etc/passwd",
        "http://" + "a" * 64 + ":1",
        "http://a..b:1",
        "http://[::1",
        "http://\ud800:1",
        "http://a\nb:1",
        "http://xn--\u0000:1",
        "http://" + "a." * 1000,
    ],
)
def test_a_worker_registers_with_scheme_host_and_port_only(url, name):
    reply = register(url, name)
    assert reply.status_code == 400 and reply.json()["error_code"] == 40001
    assert post(f"{url}/list_models") == {"models": []}


@pytest.mark.parametrize(
    "status",
    [
        {"model_names": ["\ud800"]},
        {"model_names": ["m" * 2000]},
        {"queue_length": 10**400},
        {"queue_length": float("nan")},
        {"queue_length": float("inf")},
        {"queue_length": -1},
        {"speed": float("inf")},
        {"speed": 1e308},
    ],
)
def test_one_odd_registration_is_refused_and_never_stored(url, status):
    assert register(url, "http://localhost:9", **status).status_code == 400
    beat = {"worker_name": "http://localhost:9", "queue_length": 0, **status}
    if "queue_length" in status:
        assert raw(f"{url}/receive_heart_beat", json.dumps(beat)).status_code == 400
    assert post(f"{url}/list_models") == {"models": []}
    assert post(f"{url}/worker_get_status")["queue_length"] == 0


@pytest.mark.parametrize(
    "body", [DEEP, b'{"model": ' + DEEP, b"\xff", b"1" * 5000, b'{"model": "\\ud800"}', b"{}", b""]
)
def test_a_body_that_is_none_gets_an_error_in_words(url, body):
    for path in ("register_worker", "receive_heart_beat", "get_worker_address"):
        reply = raw(f"{url}/{path}", body)
        assert reply.status_code == 400 and reply.json()["error_code"] == 40001
    reply = raw(f"{url}/worker_generate_stream", body).content
    assert json.loads(reply.removesuffix(b"\0"))["error_code"] == 40001


def test_pages_in_a_browser_cannot_post(url):
    """They may send text and forms to anybody, and bodies without a type, but no JSON."""
    body = json.dumps({"worker_name": "http://localhost:9", "worker_status": STATUS})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None):
        reply = raw(f"{url}/register_worker", body, {"Content-Type": kind})
        assert reply.status_code == 415 and "application/json" in reply.json()["text"]
    assert post(f"{url}/list_models") == {"models": []}


def test_a_shared_secret_keeps_strangers_from_the_controller(monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "secret")
    with running(controller.create_app()) as url:
        for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": "Bearer \xe9"}):
            reply = raw(f"{url}/list_models", b"{}", headers)
            assert reply.status_code == 401 and reply.json()["error_code"] == 40102
        worker = PacingWorker(["m"], 4, logging.getLogger("test"))
        # The workers and the OpenAI server of the same environment bring it.
        registration = base_model_worker.Registration(
            url, "http://localhost:9", worker.status, 9, worker.logger
        )
        with (
            running(base_model_worker.create_app(worker, registration)),
            running(openai_api_server.create_app(url)) as api,
        ):
            secret = {"Authorization": "Bearer secret"}
            wait_for(lambda: raw(f"{url}/list_models", b"{}", secret).json()["models"])
            listed = requests.get(f"{api}/v1/models", timeout=30).json()["data"]
            assert [card["id"] for card in listed] == ["m"]


def test_a_client_that_hangs_up_in_its_body_is_one_line(caplog):
    worker = PacingWorker(["m"], 4, logging.getLogger("rogue"))
    with running(base_model_worker.create_app(worker)) as url, caplog.at_level("INFO", "rogue"):
        for path in ("worker_generate", "count_token"):
            with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1]))) as peer:
                head = f"POST /{path} HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n"
                peer.sendall(head.encode() + b'{"prompt')
                time.sleep(0.1)
        lines = wait_for(lambda: len(caplog.records) > 1 and caplog.records)
    assert [line.message for line in lines] == [
        "a client hung up in its request to /worker_generate",
        "a client hung up in its request to /count_token",
    ]


@pytest.fixture(scope="module")
def model_url(tmp_path_factory):
    """A tiny model with four slots and a context of 200 tokens."""
    path = save_tiny_model(tmp_path_factory.mktemp("tiny"))
    options = ["--device", "cpu", "--context-length", "200", "--limit-worker-concurrency", "4"]
    args = model_worker.parse_args(["--model-path", str(path), *options])
    worker = model_worker.build_worker(args, logging.getLogger("test"))
    worker.engine.start()
    with running(base_model_worker.create_app(worker)) as address:
        yield address
    worker.engine.stop()


def test_a_long_text_is_refused_before_it_is_tokenized(model_url):
    text = "word " * 200_000
    bodies = {
        "worker_generate": [{"prompt": text}, {"messages": [{"role": "user", "content": text}]}]
    }
    for path, body in [
        *((p, b) for p, many in bodies.items() for b in many),
        ("count_token", {"prompt": text}),
    ]:
        began = time.monotonic()
        assert post(f"{model_url}/{path}", body)["error_code"] == ErrorCode.CONTEXT_OVERFLOW
        assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt_token_ids": [10**30]},
        {"prompt_token_ids": [399_999]},
        {"prompt_token_ids": [-1]},
        {"prompt": "a", "stop_token_ids": [2**31]},
        {"prompt": "a", "stop": ["a"] * 1000},
        {"prompt": "a", "stop": ["a" * 100_000]},
        {"prompt": "a", "seed": 10**30},
        {"prompt": "a", "top_k": 10**30},
        {"prompt": "a", "max_new_tokens": 10**30},
        {"messages": [{"role": "user", "content": "a"}] * 10_000},
    ],
)
def test_numbers_and_lists_out_of_range_are_bad_requests(model_url, fields):
    for path in ("worker_generate", "worker_generate_stream"):
        (reply,) = frames(f"{model_url}/{path}", fields)
        assert reply["error_code"] in (40001, 40302), reply


def test_a_small_request_does_not_wait_for_one_of_a_thousand_samples(model_url):
    large = {"prompt": "a", "n": 1024, "max_new_tokens": 190, "echo": False}
    with requests.post(f"{model_url}/worker_generate_stream", json=large, stream=True, timeout=30):
        wait_for(lambda: post(f"{model_url}/worker_get_status")["engine"]["running"] == 3)
        for _ in range(3):
            began = time.monotonic()
            reply = post(f"{model_url}/worker_generate", {"prompt": "b", "max_new_tokens": 5})
            assert reply["error_code"] == 0 and time.monotonic() - began < 2
    wait_for(lambda: post(f"{model_url}/worker_get_status")["engine"]["running"] == 0)


class SlowTokenizer(PacingWorker):
    """A long context, and a second for a long text."""

    context_length = 10_000

    def count_tokens(self, prompt):
        time.sleep(len(prompt) > 20_000)
        return len(prompt)


def test_a_text_that_takes_long_holds_up_nobody_else():
    worker = SlowTokenizer(["m"], 4, logging.getLogger("test"))
    with running(base_model_worker.create_app(worker)) as url, ThreadPoolExecutor(4) as pool:
        body = {"prompt": "a" * 30_000}
        long = [pool.submit(post, f"{url}/count_token", body) for _ in range(3)]
        time.sleep(0.2)
        began = time.monotonic()
        assert post(f"{url}/worker_get_status")["model_names"] == ["m"]
        assert post(f"{url}/count_token", {"prompt": "a"})["count"] == 1
        assert time.monotonic() - began < 0.7
        assert [each.result()["count"] for each in long] == [30_000] * 3


@pytest.mark.parametrize(
    ("app", "paths"),
    [
        (controller.create_app, {"/register_worker": "worker_name"}),
        (worker_app, {"/worker_generate": "messages", "/count_token": "prompt"}),
        (
            lambda: openai_api_server.create_app("http://localhost:9"),
            {"/v1/chat/completions": "messages", "/v1/completions": "prompt"},
        ),
    ],
)
def test_the_served_openapi_describes_the_bodies(app, paths):
    with running(app()) as url:
        described = requests.get(f"{url}/openapi.json", timeout=10).json()["paths"]
    for path, field in paths.items():
        body = described[path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert field in body["properties"] and "$ref" not in json.dumps(body)


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% include 'other.jinja' %}",
        "{% import '/etc/passwd' as other %}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ 1 / 0 }}",
        "{{ messages.role + 5 }}",
    ],
)
def test_a_template_that_loops_or_includes_is_one_error(tmp_path, monkeypatch, source):
    monkeypatch.setattr(conversation, "_FIRST_SECONDS", 1.0)
    path = tmp_path / "rogue.jinja"
    # The loop has to end, or it would slow all tests that follow.
    path.write_text(source.replace("99999", "9999"), encoding="utf-8")
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"rogue.jinja.*--chat-template"):
        conversation.ChatTemplate(tiny_tokenizer(), str(path))
    assert time.monotonic() - began < 10
