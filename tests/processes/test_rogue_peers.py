"""What strangers send to the servers, and servers to their clients: nothing of it ends anything.

Every test speaks to a real server, or is one, on a port of this machine.

    python -m pytest tests/processes/test_rogue_peers.py
"""

import json
import logging
import socket
import time

import pytest
import requests

from fastchat.constants import TOKEN_VARIABLE
from fastchat.serve import base_model_worker, controller, openai_api_server
from tests.support.pacing_worker import PacingWorker
from tests.support.servers import post, running, wait_for

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
