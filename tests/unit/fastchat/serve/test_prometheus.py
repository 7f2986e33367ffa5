"""What Prometheus reads from a server, and what the counters say about reuse.

python -m pytest tests/unit/fastchat/serve/test_prometheus.py
"""

import logging
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from fastapi import FastAPI

from fastchat.serve.base_model_worker import create_app
from fastchat.serve.model_worker import build_worker, parse_args
from fastchat.serve.prometheus import Metrics
from tests.support.servers import frames, post, running, scrape, wait_for


def test_counts_and_readings_are_exposed_by_name():
    metrics, app, held = Metrics("test"), FastAPI(), [3]
    metrics.read("held", "Numbers kept elsewhere", lambda: len(held))
    metrics.read("steps", "Steps so far", lambda: 7, grows=True)
    metrics.add_route(app)
    metrics.count_request("/answer", 0, {"prompt_tokens": 40, "completion_tokens": 5})
    metrics.count_request("/answer", 0, {"prompt_tokens": 2, "completion_tokens": 1})
    metrics.count_request("/answer", 40303)
    held.append(4)
    with running(app) as url:
        assert scrape(url) == {
            "rise_test_requests_total{0}{/answer}": 2,
            "rise_test_requests_total{40303}{/answer}": 1,
            "rise_test_prompt_tokens_total": 42,
            "rise_test_generated_tokens_total": 6,
            "rise_test_held": 2,
            "rise_test_steps_total": 7,
        }


def test_two_servers_in_one_process_count_apart():
    one, other = Metrics("worker"), Metrics("worker")
    one.count_request("/answer", 0)
    assert b'requests_total{code="0",path="/answer"} 1.0' in one.text()
    assert b'code="0"' not in other.text()


@pytest.fixture(scope="module")
def worker(checkpoint):
    """A real worker whose model writes only letters that its tokenizer never joins."""
    args = parse_args(["--model-path", str(checkpoint()), "--device", "cpu"])
    worker = build_worker(args, logging.getLogger("test"))
    letters = [worker.tokenizer.convert_tokens_to_ids(c) for c in "JKQVXZ#$%&*@^~"]
    head = worker.engine.model.model.get_output_embeddings().weight
    with torch.no_grad():
        head[[i for i in range(len(head)) if i not in letters]] = 0
        head *= 10
    worker.engine.start()
    yield worker
    worker.engine.stop()


def test_a_worker_shows_requests_tokens_queue_and_engine(worker):
    hello = {"prompt": "Hello there", "max_new_tokens": 6, "n": 2}
    with running(create_app(worker)) as url:
        replies = [post(f"{url}/worker_generate", hello) for _ in range(2)]
        frames(f"{url}/worker_generate_stream", hello)
        post(f"{url}/worker_generate", {**hello, "prompt_token_ids": [5]})
        # An answer may arrive a moment before its places in the engine are given back.
        wait_for(lambda: scrape(url)["rise_worker_engine_running"] == 0)
        numbers, engine = scrape(url), post(f"{url}/worker_get_status")["engine"]
    prompt = replies[0]["usage"]["prompt_tokens"]
    assert numbers["rise_worker_requests_total{0}{/worker_generate}"] == 2
    assert numbers["rise_worker_requests_total{0}{/worker_generate_stream}"] == 1
    assert numbers["rise_worker_requests_total{40001}{/worker_generate}"] == 1
    assert numbers["rise_worker_prompt_tokens_total"] == 3 * prompt
    assert numbers["rise_worker_generated_tokens_total"] == 3 * 2 * 6
    assert numbers["rise_worker_queue_length"] == numbers["rise_worker_engine_running"] == 0
    for count in ("prefill_tokens", "reused_tokens", "generated_tokens", "decode_steps"):
        assert numbers[f"rise_worker_engine_{count}_total"] == engine[count]
    assert numbers["rise_worker_engine_decode_steps_total"] > 0


@pytest.mark.parametrize(("window", "bar"), [(None, 0.25), (2, 0.4)])
def test_episodes_over_http_compute_a_part_of_their_prompts(worker, window, bar):
    """Five turns as a driver sends them: 400 tokens of question, feedback of 85, interleaved.

    A window of 2 shows the last answer without those that it was written after, so that nothing
    computed for it fits: only the question is found again.
    """
    preamble = "Solve the problem. " * 16

    def episode(i):
        rng = random.Random(f"{window} {i}")
        question = preamble + "".join(rng.choice("JKQVXZ") for _ in range(90))
        said = []
        for turn in range(5):
            shown = said if window is None else said[-2 * (window - 1) :]
            body = {
                "messages": [{"role": "user", "content": question}, *shown],
                "max_new_tokens": rng.randrange(100, 180),
                "seed": turn,
                "echo": False,
            }
            reply = post(f"{url}/worker_generate", body)
            assert reply["error_code"] == 0
            said.append({"role": "assistant", "content": reply["text"]})
            said.append({"role": "user", "content": "#" * 75})

    with running(create_app(worker)) as url, ThreadPoolExecutor(12) as pool:
        before = post(f"{url}/worker_get_status")["engine"]
        list(pool.map(episode, range(12)))
        after = post(f"{url}/worker_get_status")["engine"]
    spent = {key: after[key] - before[key] for key in before}
    assert spent["prefill_tokens"] + spent["reused_tokens"] == spent["prompt_tokens"] > 12 * 5 * 400
    assert spent["prefill_tokens"] / spent["prompt_tokens"] < bar
