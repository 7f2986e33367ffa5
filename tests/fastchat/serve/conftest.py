"""Tiny models and engines that the tests of this folder share."""

import pytest
import torch

from fastchat.model.model_adapter import load_model, load_tokenizer
from tests.tiny import save_tiny_model

SLIDING_QWEN2 = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """The directory of a random checkpoint of that family, built once."""
    built = {}

    def build(family="llama"):
        if family not in built:
            changes = SLIDING_QWEN2 if family == "qwen2" else {}
            directory = tmp_path_factory.mktemp(family) / f"tiny-{family}"
            built[family] = save_tiny_model(directory, family, **changes)
        return built[family]

    return build


@pytest.fixture(scope="session")
def model(checkpoint):
    return load_model(checkpoint(), device="cpu")


@pytest.fixture(scope="session")
def tokenizer(checkpoint):
    return load_tokenizer(checkpoint())
