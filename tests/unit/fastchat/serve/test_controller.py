"""The controller over HTTP, with bodies as FastChat 0.2.36's workers and clients write them.

python -m pytest tests/unit/fastchat/serve/test_controller.py
"""

import asyncio
import contextlib
import errno
import socket

import pytest
import requests
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from fastchat.client import http
from fastchat.constants import ErrorCode
from fastchat.serve import status
from fastchat.serve.controller import create_app
from tests.support.servers import frames, post, running


@pytest.fixture
def url():
    with running(create_app()) as address:
        yield address


@contextlib.contextmanager
def free_port():
    """A port that refuses connections."""
    with socket.socket() as sock:
        sock.bind(("localhost", 0))
        yield sock.getsockname()[1]


def register(url, worker, models=("m",), **changes):
    status = {"model_names": list(models), "speed": 1, "queue_length": 0}
    body = {"worker_name": worker, "check_heart_beat": True, "worker_status": status}
    return requests.post(f"{url}/register_worker", json={**body, **changes}, timeout=10)


def worker_app(delay=0.0, die_after=None):
    """A worker that streams three frames; `die_after` frames it breaks the connection."""
    app = FastAPI()

    @app.post("/worker_get_status")
    async def status():
        return {"model_names": ["m", "late"], "speed": 2, "queue_length": 5}

    @app.post("/worker_generate_stream")
    async def stream(request: Request):
        body = await request.json()

        async def parts():
            for i in range(3):
                if i == die_after:
                    raise ConnectionError("gone")
                await asyncio.sleep(delay)
                text = body["prompt"] + "." * i
                # Halves of a frame in separate chunks: the controller has to join them.
                yield f'{{"text": "{text}", '.encode()
                await asyncio.sleep(0)
                yield b'"error_code": 0}\0'

        return StreamingResponse(parts())

    return app


def test_register_list_and_address(url):
    assert requests.get(f"{url}/test_connection", timeout=10).json() == "success"
    assert post(f"{url}/list_models") == {"models": []}
    with running(worker_app()) as worker:
        assert register(url, worker).status_code == 200
        assert post(f"{url}/list_models") == {"models": ["m"]}
        assert post(f"{url}/list_language_models") == {"models": ["m"]}
        assert post(f"{url}/list_multimodal_models") == {"models": []}
        assert post(f"{url}/get_worker_address", {"model": "m"}) == {"address": worker}
        assert post(f"{url}/get_worker_address", {"model": "other"}) == {"address": ""}
        beat = {"worker_name": worker, "queue_length": 2}
        assert post(f"{url}/receive_heart_beat", beat) == {"exist": True}
        other = post(f"{url}/receive_heart_beat", {**beat, "worker_name": "http://x:1"})
        assert other == {"exist": False}
        status = {"model_names": ["m"], "speed": 1, "queue_length": 2}
        assert post(f"{url}/worker_get_status") == status


def test_the_status_counts_no_model_whose_worker_is_gone(url, capsys):
    with free_port() as port:
        assert register(url, f"http://localhost:{port}").status_code == 200
        status.main(["--controller-address", url])
    said = "0 models, 0 workers (no worker of m answers any more)"
    assert capsys.readouterr().out == f"{url}: {said}\n"


def test_a_worker_without_a_status_is_asked_for_it(url):
    with running(worker_app()) as worker:
        register(url, worker, worker_status=None)
        assert post(f"{url}/list_models") == {"models": ["late", "m"]}
    with free_port() as port:
        refused = register(url, f"http://localhost:{port}", worker_status=None)
        assert refused.status_code == 400


def test_refresh_asks_everyone_and_removes_the_dead(url):
    with running(worker_app()) as worker, free_port() as port:
        register(url, worker)
        register(url, f"http://localhost:{port}", models=["dead"])
        assert post(f"{url}/refresh_all_workers") is None
        assert post(f"{url}/list_models") == {"models": ["late", "m"]}


def test_a_worker_that_refuses_connections_is_out_at_the_first_address_lookup(url):
    with running(worker_app()) as worker, free_port() as port:
        register(url, f"http://localhost:{port}", models=["m", "only"])
        register(url, worker)
        addresses = {post(f"{url}/get_worker_address", {"model": "m"})["address"]}
        addresses |= {post(f"{url}/get_worker_address", {"model": "m"})["address"]}
        assert addresses == {worker}
        assert post(f"{url}/list_models") == {"models": ["m"]}


def test_no_worker_is_exactly_one_error_frame(url):
    messages = frames(f"{url}/worker_generate_stream", {"model": "none", "prompt": "hi"})
    assert [message["error_code"] for message in messages] == [ErrorCode.CONTROLLER_NO_WORKER]
    messages = frames(f"{url}/worker_generate_stream", {"prompt": "hi"})
    assert [message["error_code"] for message in messages] == [ErrorCode.VALIDATION_TYPE_ERROR]


def test_a_stream_passes_in_whole_frames_and_skips_a_dead_worker(url):
    with running(worker_app()) as worker, free_port() as port:
        register(url, f"http://localhost:{port}")
        register(url, worker)
        for _ in range(2):
            messages = frames(f"{url}/worker_generate_stream", {"model": "m", "prompt": "hi"})
            assert [message["text"] for message in messages] == ["hi", "hi.", "hi.."]


def test_only_a_refused_connection_takes_a_worker_out(url, monkeypatch):
    async def no_files(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    with running(worker_app()) as worker:
        register(url, worker)
        with monkeypatch.context() as patch:
            patch.setattr("aiohttp.connector.aiohappyeyeballs.start_connection", no_files)
            body = {"model": "m", "prompt": "hi"}
            (failed,) = frames(f"{url}/worker_generate_stream", body)
        assert failed["error_code"] == ErrorCode.CONTROLLER_WORKER_TIMEOUT
        assert "Too many open files" in failed["text"]
        assert frames(f"{url}/worker_generate_stream", body)[-1]["text"] == "hi.."


def test_a_name_with_several_addresses_refuses_when_all_of_them_do(monkeypatch):
    """As where localhost is 127.0.0.1 and ::1."""
    both = [(None, None, None, "", ("127.0.0.1", 0)), (None, None, None, "", ("127.0.0.2", 0))]

    async def ask(listening):
        async def found(_, port, **__):
            return [(*entry[:4], (entry[4][0], port)) for entry in both]

        with socket.socket() as sock, monkeypatch.context() as patch:
            sock.bind(("127.0.0.2", 0))
            if listening:
                sock.listen()
            patch.setattr(asyncio.get_running_loop(), "getaddrinfo", found, raising=False)
            return await http.accepts(f"http://worker:{sock.getsockname()[1]}")

    assert asyncio.run(ask(True)) and not asyncio.run(ask(False))


@pytest.mark.parametrize(("fault", "codes"), [({"die_after": 2}, [0, 0]), ({"delay": 3}, [])])
def test_a_worker_that_dies_or_hangs_ends_the_stream_with_an_error(monkeypatch, fault, codes):
    monkeypatch.setenv("FASTCHAT_WORKER_API_TIMEOUT", "0.3")
    with running(create_app()) as url, running(worker_app(**fault)) as worker:
        register(url, worker)
        messages = frames(f"{url}/worker_generate_stream", {"model": "m", "prompt": "hi"})
    codes = [*codes, ErrorCode.CONTROLLER_WORKER_TIMEOUT]
    assert [message["error_code"] for message in messages] == codes
