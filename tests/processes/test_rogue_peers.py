"""What strangers send to the servers, and servers to their clients: nothing of it ends anything.

Every test speaks to a real server, or is one, on a port of this machine.

    python -m pytest tests/processes/test_rogue_peers.py
"""

import asyncio
import contextlib
import csv
import errno
import gzip
import io
import json
import logging
import os
import signal
import socket
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from aiohttp import web

import workflow_convert
from fastchat import conversation, utils
from fastchat.client import http as client_http
from fastchat.constants import TOKEN_VARIABLE, ErrorCode, RequestError
from fastchat.protocol.controller_protocol import WorkerStatus
from fastchat.serve import base_model_worker, controller, openai_api_server
from fastchat.serve.upstream.client import Completion, UpstreamClient
from rise.metrics import tables
from rise.policies.policy import PolicyError, Retries
from rise.policies.worker import WorkerPolicy
from rise.report import __main__ as report
from tests.support import scripted_servers
from tests.support.pacing_worker import PacingWorker
from tests.support.served import started
from tests.support.servers import frames, post, running, wait_for
from tests.support.stages import command, environment, run_program
from tests.support.tiny import save_tiny_model, tiny_tokenizer
from tests.unit.rise.policies.test_replies import ask

STATUS = {"model_names": ["m"], "speed": 1, "queue_length": 0}
DEEP = b"[" * 100_000


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
        *("localhost", "http://", "http://host:port", "http://a/path", "http://a:1/?next=b"),
        *("http://user:password@a:1", "http://a:1#b", "http://a:0", "http://a:65536", "ftp://a:1"),
        *("file:///etc/passwd", f"http://{'a' * 64}:1", "http://a..b:1", "http://[::1"),
        *("http://\ud800:1", "http://a\nb:1", "http://xn--\u0000:1", "http://" + "a." * 1000),
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
    "body",
    [
        *(DEEP, b'{"model": ' + DEEP, b"\xff", b"1" * 5000, b'{"model": "\\ud800"}'),
        *(b'{"model": 5, "worker_name": 5}', b"[1]", b"null", b"{}", b""),
    ],
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
    # An empty body needs no type: aiohttp sends such for stock FastChat's OpenAI server.
    for kind in ("application/octet-stream", None):
        assert raw(f"{url}/list_models", b"", {"Content-Type": kind}).json() == {"models": []}


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
    options = ("--context-length", "200", "--limit-worker-concurrency", "4")
    with started(path, *options) as worker, running(base_model_worker.create_app(worker)) as url:
        yield url


def test_a_long_text_is_refused_before_it_is_tokenized(model_url):
    text = "word " * 200_000
    messages = {"messages": [{"role": "user", "content": text}]}
    for path, body in (
        ("worker_generate", {"prompt": text}),
        ("worker_generate", messages),
        ("count_token", {"prompt": text}),
    ):
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
    "source",
    [
        # The loop has to end, or it would slow all tests that follow.
        "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
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
    path.write_text(source, encoding="utf-8")
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"rogue.jinja.*--chat-template"):
        conversation.ChatTemplate(tiny_tokenizer(), str(path))
    assert time.monotonic() - began < 10


BOMB = gzip.compress(b" " * 2**20) * 400
"""400 MB of blanks in 400 kB."""
ODD = [
    DEEP,
    b"null",
    b"\xff",
    b'"' + b"1" * 5000,
    b'{"text": 5, "error_code": 0}',
    b'{"text": "a", "error_code": NaN}',
    b'{"text": "a", "error_code": "none"}',
    b'{"text": "a", "error_code": 1e400}',
    b'{"text": "a", "error_code": 0, "usage": []}',
    b'{"text": "a", "error_code": 0, "usage": {"completion_tokens": -1}}',
    b'{"text": "a", "error_code": 0, "finish_reason": {}}',
    b'{"text": "a", "error_code": 0, "finish_reason": "stop", "completion_tokens": "many"}',
    b'{"text": ["a", "b"], "error_code": 0, "finish_reason": "stop"}',
    b'{"text": "a", "error_code": 0, "finish_reason": "stop", "token_ids": [[1e30]]}',
    b'{"choices": 5}',
    b'{"choices": [5]}',
    b'{"choices": [{"message": [1], "finish_reason": {}}]}',
    b'{"choices": [{"message": {"content": 5}}], "usage": "many"}',
    b'{"choices": [{"index": -1, "text": 5}]}',
    b'{"choices": [], "error": {"message": {"message": [[[]]]}, "code": NaN}}',
]


def reply_with(raw, **headers):
    return lambda _: web.Response(body=raw, content_type="application/json", headers=headers)


async def asked(policy, n=1):
    try:
        return await policy.sample(
            [{"role": "user", "content": "2 + 2?"}],
            n=n,
            seed=1,
            temperature=1.0,
            top_p=1.0,
            max_new_tokens=5,
            problem={},
        )
    except PolicyError as error:
        return error


QUICK = Retries(attempts=3, first_wait=0.01, longest_wait=0.02)


@pytest.mark.parametrize("raw", ODD, ids=range(len(ODD)))
def test_an_odd_reply_is_a_typed_error(raw):
    with scripted_servers.OpenAI(reply_with(raw)) as server:
        found, _ = ask(server, retries=QUICK)
        assert isinstance(found, PolicyError) and found.kind in ("server", "bad_request")

        async def choices():
            client = UpstreamClient(f"{server.url}/v1")
            try:
                return (await client.ask("/chat/completions", Completion, {})).choices
            except RequestError:
                return []
            finally:
                await client.close()

        # What has no choices is no answer either, which `UpstreamJob.reply` says.
        assert not asyncio.run(choices())


@pytest.mark.parametrize("raw", ODD, ids=range(len(ODD)))
def test_one_odd_worker_beside_a_healthy_one_ends_nothing(url, raw):
    good = scripted_servers.Wire(lambda _: scripted_servers.wire_reply("4"), ("both",))
    with good, scripted_servers.Wire(reply_with(raw), ("both",)) as odd:
        for server in (good, odd):
            register(url, server.url, model_names=["both"])
        policy = WorkerPolicy("both", url, retries=QUICK)

        async def all_of_them():
            try:
                return await asyncio.gather(*(asked(policy) for _ in range(6)))
            finally:
                await policy.close()

        try:
            assert [found[0].text for found in asyncio.run(all_of_them())] == ["4"] * 6
        finally:
            for server in (good, odd):
                register(url, server.url, model_names=[])


def sending(part, pause=0.0, times=300, headers=None):
    """A handler that answers with a part again and again."""

    async def send(request):
        reply = web.StreamResponse(headers=headers)
        await reply.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(times):
                await reply.write(part)
                await asyncio.sleep(pause)
        return reply

    return send


@contextlib.contextmanager
def little_memory():
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200e6


def answering(kind, handler):
    server = kind(None)
    server._generate = handler
    return server


def asked_of(handler, **options):
    """What a policy says of a server that answers so."""
    with answering(scripted_servers.OpenAI, handler) as server:
        found, _ = ask(server, retries=Retries(attempts=1, timeouts=1), **options)
    assert isinstance(found, PolicyError), found
    return found.kind


@pytest.mark.parametrize("packed", [None, "gzip", "br", "gzip, gzip"])
def test_a_reply_without_end_costs_little_memory(packed):
    handler = sending(b" " * 2**20)
    if packed:
        handler = sending(BOMB, times=1, headers={"Content-Encoding": packed})
    with little_memory():
        assert asked_of(handler) == "server"


def test_a_byte_now_and_then_is_no_answer():
    began = time.monotonic()
    assert asked_of(sending(b" ", 0.1, 100), request_timeout=1.0) == "timeout"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("part", "pause", "silence", "kind"),
    [(b" " * 2**20, 0.0, 60.0, "malformed"), (b" ", 0.1, 1.0, "timeout")],
)
def test_a_workers_reply_that_never_ends_is_an_error_of_that_worker(part, pause, silence, kind):
    async def answer(url):
        async with client_http.open_session(silence=silence) as session:
            await client_http.post(session, url, {}, WorkerStatus)

    with (
        little_memory(),
        answering(scripted_servers.Wire, sending(part, pause)) as worker,
        pytest.raises(client_http.PeerError) as caught,
    ):
        asyncio.run(asyncio.wait_for(answer(f"{worker.url}/worker_generate"), 60))
    assert caught.value.kind == kind


def test_what_a_model_writes_moves_no_cursor(tmp_path):
    """Neither its answers nor an error's words, with --verbose and without."""
    words = "\x1b[2J\x1b]0;owned\x07\r\x9b31m\u202e"

    def answer(body):
        if "5 apples" in json.dumps(body):
            return web.json_response({"error": {"message": words}}, status=400)
        return scripted_servers.chat_reply(f"{words} #### {words}")

    problems = [{"question": q, "answer": "#### 4"} for q in (f"2 + 2? {words}", "5 apples?")]
    (tmp_path / "problems.jsonl").write_text("\n".join(map(json.dumps, problems)))
    with scripted_servers.OpenAI(answer) as server:
        name = f"teacher@{server.url}/v1"
        words = command("workflow_gen.py", "--max_turns", 2, "--models", name, name)
        for more, code, shown in (("--dry-run", 0, "\\x1b[2J"), ("--verbose", 1, "failed")):
            how = {"cwd": tmp_path, "env": environment(), "code": code}
            ran = run_program(*words, "--log_dir", "log", more, **how)
            assert shown in ran.stdout + ran.stderr
            assert not set(ran.stdout + ran.stderr) & set(words) - set("[2J]0;owned31m\\")


def signalled(number):
    os.kill(os.getpid(), number)
    time.sleep(5)


def full_disk():
    raise OSError(errno.ENOSPC, "No space left on device", "out")


@pytest.mark.parametrize("module", [report, workflow_convert], ids=["report", "convert"])
@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (lambda: signalled(signal.SIGINT), 130),
        (lambda: signalled(signal.SIGTERM), 130),
        (full_disk, 1),
    ],
    ids=["SIGINT", "SIGTERM", "full disk"],
)
def test_report_and_convert_end_as_the_others_do(monkeypatch, capsys, module, trouble, code):
    monkeypatch.setattr(module, "run", lambda _: trouble())
    options = {report: ["run"], workflow_convert: ["--filepath", "a", "--output", "b"]}[module]
    assert module.main(options) == code
    assert len("".join(capsys.readouterr()).splitlines()) == 1


def test_no_link_of_somebody_else_is_written_through(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine", encoding="utf-8")
    (tmp_path / "out.json.tmp").symlink_to(victim)
    utils.write_json(tmp_path / "out.json", {"a": 1})
    assert victim.read_text(encoding="utf-8") == "mine"
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")) == {"a": 1}


def test_a_name_in_a_table_is_a_name():
    header, rows = ["run", "m1@t1"], [["=cmd|' /C calc'!A0\n[x](http://h) <b>", "-1.0"]]
    (_, line) = csv.reader(io.StringIO(tables.comma_separated(header, rows)))
    assert line == ["'" + rows[0][0], "-1.0"]
    last = tables.markdown(header, rows).splitlines()[-1]
    assert last == r"| =cmd\|' /C calc'\!A0 \[x\](http://h) \<b\> | -1.0 |"
    assert (
        tables.latex(header, [[r"\input{/etc/passwd}", "1"]]).count(r"\textbackslash{}input") == 1
    )


def test_a_stream_that_is_cut_ends_with_an_error_event(url):
    """A worker that breaks off, at once or within a frame, is no [DONE]."""
    frame = json.dumps({"text": "4", "error_code": 0, "finish_reason": None}).encode() + b"\0"

    class Cut(scripted_servers.Wire):
        def routes(self):
            return [*super().routes(), web.post("/worker_generate_stream", self.stream)]

        async def stream(self, request):
            reply = web.StreamResponse()
            await reply.prepare(request)
            await reply.write(self.answer)
            return reply

    for sent in (frame, frame + frame[:9], frame + b"{}\0", frame + b"[" * 99_999 + b"\0"):
        with Cut(sent, ("cut",)) as worker, running(openai_api_server.create_app(url)) as api:
            register(url, worker.url, model_names=["cut"])
            body = {"model": "cut", "messages": [{"role": "user", "content": "a"}], "stream": True}
            events = requests.post(f"{api}/v1/chat/completions", json=body, timeout=30).text
            register(url, worker.url, model_names=[])
        assert "[DONE]" not in events and '"error"' in events.splitlines()[-2], events
