"""What servers accept: bodies up to a limit, and this machine's clients.

python -m pytest tests/unit/fastchat/serve/test_limits.py
"""

import contextlib
import logging
import socket

import pytest
import requests

from fastchat import utils
from fastchat.constants import MAX_BODY_BYTES
from fastchat.serve import base_model_worker, controller, model_worker
from tests.support.pacing_worker import PacingWorker
from tests.support.servers import running, scrape, wait_for

WORKER = ["worker_generate", "worker_generate_stream", "count_token"]
CONTROLLER = ["register_worker", "receive_heart_beat", "get_worker_address"]
UNREAD = ["worker_get_status"]


def worker_app():
    return base_model_worker.create_app(PacingWorker(["m"], 4, logging.getLogger("test")))


def pieces():
    for _ in range(MAX_BODY_BYTES // 2**20 + 1):
        yield b" " * 2**20


@pytest.mark.parametrize(
    ("app", "paths"),
    [
        (worker_app, [*WORKER, "worker_get_conv_template", "model_details"]),
        (controller.create_app, [*CONTROLLER, "worker_generate_stream", "list_models"]),
    ],
)
def test_bodies_over_the_limit_are_refused_by_every_endpoint(app, paths):
    with running(app()) as url:
        for path in paths + UNREAD:
            body = b" " * (MAX_BODY_BYTES + 1)
            reply = requests.post(f"{url}/{path}", data=body, timeout=30)
            assert reply.status_code == 413 and reply.json()["error_code"] == 40001
        for path in {*WORKER, *CONTROLLER} & set(paths):
            # Nothing says how long this body is, so that it is counted while it comes.
            reply = requests.post(f"{url}/{path}", data=pieces(), timeout=30)
            assert '"error_code": 40001' in reply.text.replace('":40001', '": 40001')
            assert "larger than" in reply.text


def test_servers_listen_on_this_machine_only():
    for parse in (controller.parse_args, model_worker.parse_args):
        args = parse(["--model-path", "m"] if parse is model_worker.parse_args else [])
        with utils.listen(args.host, 0) as sock:
            assert sock.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize("path", ["worker_generate", "worker_generate_stream"])
def test_clients_that_hang_up_in_the_queue_leave_it(path):
    """One request holds the only place; those that wait behind it have sent nothing yet."""
    worker = PacingWorker(["m"], 1, logging.getLogger("test"))
    body = b'{"prompt": "a", "n": 2, "top_k": 99}'
    head = f"POST /{path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    head = f"{head}Content-Length: {len(body)}\r\n\r\n".encode()
    with running(base_model_worker.create_app(worker)) as url, contextlib.ExitStack() as stack:
        port = int(url.rsplit(":", 1)[1])
        for _ in range(4):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.sendall(head + body)
        wait_for(lambda: worker.in_flight == 4)
        stack.close()
        wait_for(lambda: worker.in_flight == 0)
        counts = scrape(url)
    assert counts[f"rise_worker_requests_total{{hung_up}}{{/{path}}}"] == 4
