"""The controller as a process, with workers that die, hang and come back, and 1,000 streams.

python -m pytest tests/processes/test_controller_processes.py
"""

import asyncio
import contextlib
import json
import resource
import signal

import aiohttp
import requests

from fastchat.constants import ErrorCode
from fastchat.utils import raise_file_limit
from tests.support.servers import frames, free_port, post, process, scrape, wait_for

STREAMS = 1000


@contextlib.contextmanager
def controller(*options, **how):
    port = free_port()
    with process("fastchat.serve.controller", "--port", port, *options, **how):
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: requests.get(f"{url}/test_connection", timeout=5).ok)
        yield url


def pacing_worker(url, names, **how):
    """A worker process that registers at the controller; it takes all requests at once."""
    options = ["--port", 0, "--controller-address", url, "--model-names", names]
    options += ["--limit-worker-concurrency", 2 * STREAMS]
    return process("tests.support.pacing_worker", *options, **how)


def models(url):
    return post(f"{url}/list_models")["models"]


def soft_limit():
    """What most systems allow a process: fewer files than 1,000 streams take."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))


def test_workers_that_hang_expire_return_and_leave_when_killed():
    expiry = {"FASTCHAT_CONTROLLER_HEART_BEAT_EXPIRATION": "1"}
    with (
        controller(environment=expiry) as url,
        pacing_worker(url, "both,one"),
        pacing_worker(url, "both,other") as other,
    ):
        everything = ["both", "one", "other"]
        wait_for(lambda: models(url) == everything)
        other.send_signal(signal.SIGSTOP)
        wait_for(lambda: models(url) == ["both", "one"])
        other.send_signal(signal.SIGCONT)
        wait_for(lambda: models(url) == everything)
        held = {"model": "other", "prompt": "a", "n": 3, "top_k": 9}
        stream = requests.post(
            f"{url}/worker_generate_stream", json=held, stream=True, timeout=30
        ).iter_lines(delimiter=b"\0")
        assert json.loads(next(stream))["text"] == "a."
        other.kill()
        broken = [json.loads(line) for line in stream if line]
        assert [m["error_code"] for m in broken] == [ErrorCode.CONTROLLER_WORKER_TIMEOUT]
        free = {"model": "both", "prompt": "a", "n": 3}
        for _ in range(3):
            assert frames(f"{url}/worker_generate_stream", free)[-1]["text"] == "a..."
        (nobody,) = frames(f"{url}/worker_generate_stream", {**free, "model": "other"})
        assert nobody["error_code"] == ErrorCode.CONTROLLER_NO_WORKER
        assert models(url) == ["both", "one"]
        codes = scrape(url)
        path = "{/worker_generate_stream}"
        assert codes[f"rise_controller_requests_total{{0}}{path}"] == 3
        assert codes[f"rise_controller_requests_total{{50006}}{path}"] == 1
        assert codes["rise_controller_workers"] == 1


def test_a_thousand_streams_at_a_time_pass_through():
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(controller(before=soft_limit))
        stack.enter_context(pacing_worker(url, "m", before=soft_limit))
        wait_for(lambda: scrape(url)["rise_controller_workers"] == 1)
        answers = asyncio.run(stream_all(url))
        assert answers == [f"{i}..." for i in range(STREAMS)]
        numbers = scrape(url)
    done = "rise_controller_requests_total{0}{/worker_generate_stream}"
    assert numbers[done] == STREAMS and numbers["rise_controller_streams"] == 0


async def stream_all(url):
    """The last texts of many streams; an error anywhere is raised."""
    raise_file_limit()

    async def one(i):
        body = {"model": "m", "prompt": str(i), "n": 3, "top_k": STREAMS}
        async with session.post(f"{url}/worker_generate_stream", json=body) as reply:
            messages = (await reply.read()).split(b"\0")[:-1]
        assert len(messages) == 3
        return json.loads(messages[-1])["text"]

    timeout = aiohttp.ClientTimeout(total=100)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        return await asyncio.gather(*(one(i) for i in range(STREAMS)))
