"""The worker in front of `transformers serve`, which takes messages only.

python -m pytest tests/processes/test_transformers_serve.py
"""

import importlib.util
import json
import subprocess
import sys

import pytest
import requests
import torch

from fastchat.constants import ErrorCode
from fastchat.model.model_adapter import load_model
from fastchat.serve import base_model_worker
from tests.support.servers import (
    ASK,
    ENVIRONMENT,
    frames,
    free_port,
    in_front_of,
    post,
    running,
    wait_for,
)
from tests.support.tiny import save_tiny_model

NEEDED = ("openai", "typer", "rich")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]


@pytest.mark.skipif(bool(MISSING), reason=f"transformers serve needs {', '.join(MISSING)}")
def test_transformers_serve_is_served(tmp_path):
    directory = save_tiny_model(tmp_path / "tiny")
    config = directory / "generation_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "do_sample": True}))
    port = free_port()
    serve = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(directory)]
    command = [*serve, "--device", "cpu", "--port", str(port)]
    environment = {**ENVIRONMENT, "HF_HOME": str(tmp_path / "hub")}
    log = (tmp_path / "serve.log").open("w")
    server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        base_url = f"http://localhost:{port}/v1"
        health = f"http://localhost:{port}/health"
        wait_for(lambda: server.poll() is not None or requests.get(health, timeout=5).ok)
        worker = in_front_of(base_url, directory)
        assert not worker.abilities.takes_ids and worker.context_length == 2048
        with running(base_model_worker.create_app(worker)) as url:
            compare(url, worker.template, directory)
    finally:
        server.kill()
        server.wait()
        log.close()


def compare(url, template, directory):
    """Greedy answers through the server are those of `generate`; seeds repeat."""
    greedy = {**ASK, "temperature": 0, "max_new_tokens": 20}
    ids = template.prompt_ids(ASK["messages"])
    expected = load_model(directory, device="cpu").generate(
        torch.tensor([ids]), max_new_tokens=20, do_sample=False
    )[0, len(ids) :]
    text = template.tokenizer.decode(expected, skip_special_tokens=True)
    reply = post(f"{url}/worker_generate", greedy)
    assert reply["text"] == text
    assert reply["completion_tokens"] == [len(expected)]
    assert reply["usage"]["prompt_tokens"] == len(ids)
    assert frames(f"{url}/worker_generate_stream", greedy)[-1] == reply
    stop = text[4:6]
    cut = post(f"{url}/worker_generate", {**greedy, "stop": stop})
    assert cut["text"] == text[: text.index(stop)] and cut["finish_reason"] == "stop"
    seeded = {**ASK, "seed": 3}
    one = post(f"{url}/worker_generate", seeded)
    assert one == post(f"{url}/worker_generate", seeded)
    assert one["text"] != post(f"{url}/worker_generate", {**ASK, "seed": 4})["text"]
    several = post(f"{url}/worker_generate", {**ASK, "n": 2, "seed": 3})
    assert len(several["text"]) == 2 and several["usage"]["completion_tokens"] > 2
    refused = post(f"{url}/worker_generate", {**ASK, "top_k": 5})
    assert refused["error_code"] == ErrorCode.VALIDATION_TYPE_ERROR and "top_k" in refused["text"]
