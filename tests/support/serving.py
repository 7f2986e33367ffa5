"""Tiny models and engines that the tests of serving share."""

import time

import openai
import pytest
import torch

from fastchat.model.model_adapter import load_model, load_tokenizer
from fastchat.serve import base_model_worker, controller, openai_api_server
from tests.support.served import started
from tests.support.servers import CONTEXT, KEY, register, running
from tests.support.tiny import save_tiny_model

WINDOWS = {
    "qwen2": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    "gemma2": {"sliding_window": 8},
    "gemma3": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
}
"""Of families in which some layers look back a few tokens only."""


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """The directory of a random checkpoint of that family, built once."""
    built = {}

    def build(family="llama"):
        if family not in built:
            directory = tmp_path_factory.mktemp(family) / f"tiny-{family}"
            built[family] = save_tiny_model(directory, family, **WINDOWS.get(family, {}))
        return built[family]

    return build


@pytest.fixture(scope="session")
def model(checkpoint):
    return load_model(checkpoint(), device="cpu")


@pytest.fixture(scope="session")
def tokenizer(checkpoint):
    return load_tokenizer(checkpoint())


@pytest.fixture(scope="module")
def worker(checkpoint):
    """A worker with a short context, on its own."""
    with started(checkpoint(), "--context-length", str(CONTEXT)) as worker:
        yield worker


@pytest.fixture(scope="module")
def worker_url(worker):
    with running(base_model_worker.create_app(worker)) as url:
        yield url


@pytest.fixture(scope="module")
def controller_url(worker, worker_url):
    """The controller of that worker."""
    with running(controller.create_app()) as url:
        register(url, worker_url, worker)
        yield url


@pytest.fixture(scope="module")
def api_url(controller_url):
    """The OpenAI server over that controller."""
    with running(openai_api_server.create_app(controller_url, ["other", KEY])) as url:
        yield url


@pytest.fixture
def client(api_url):
    with openai.OpenAI(base_url=f"{api_url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def slow_down(worker, monkeypatch):
    """Let a worker take its time, so that a client can hang up meanwhile."""
    forward = worker.engine.model.forward

    def slowly(*args):
        time.sleep(0.03)
        return forward(*args)

    monkeypatch.setattr(worker.engine.model, "forward", slowly)
