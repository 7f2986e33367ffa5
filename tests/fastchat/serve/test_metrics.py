"""What Prometheus reads from a server.

python -m pytest tests/fastchat/serve/test_metrics.py
"""

import requests
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from fastchat.serve.metrics import Metrics
from tests.fastchat.serve.servers import running


def scrape(url):
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
