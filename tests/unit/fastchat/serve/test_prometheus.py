"""What Prometheus reads from a server, and what the counters say about reuse.

python -m pytest tests/unit/fastchat/serve/test_prometheus.py
"""

from fastapi import FastAPI

from fastchat.serve.base_model_worker import create_app
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


def test_a_worker_shows_requests_tokens_queue_and_engine(worker):
    hello = {"prompt": "Hello there", "max_new_tokens": 6, "n": 2, "temperature": 0}
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
