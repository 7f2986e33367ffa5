"""Engine and trainer on a device that is not the CPU: torch's meta device, whose tensors are empty.

What is left on the CPU, or has another dtype than what it meets, is an error as it is on a GPU.
Whoever asks such a tensor for a number gets 0.

python -m pytest tests/unit/fastchat/test_device.py
"""

import pytest
import torch
from transformers import AutoModelForCausalLM

from fastchat.serve.engine.engine import SlotEngine
from fastchat.serve.engine.model import EngineModel
from fastchat.serve.engine.request import EngineRequest, SamplingParams
from fastchat.train.arguments import TrainingArguments
from tests.support.serving import WINDOWS
from tests.support.tiny import tiny_config
from tests.support.training_data import make_case
from tests.support.training_steps import make_trainer

DEVICE = torch.device("meta")


def model_of(config):
    with DEVICE:
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()


def zeros(tensor):
    nested = 0.0 if tensor.dtype.is_floating_point else 0
    for size in reversed(tensor.shape):
        nested = [nested] * size
    return nested


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gemma3"])
def test_the_engine_leaves_nothing_on_the_cpu(monkeypatch, family):
    monkeypatch.setattr(EngineModel, "check", lambda *_: None)
    monkeypatch.setattr(torch.Tensor, "tolist", zeros)
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda _: False)
    kinds = [
        SamplingParams(0.0),
        SamplingParams(0.7),
        SamplingParams(top_p=0.9, top_k=5),
        SamplingParams(repetition_penalty=1.3, presence_penalty=0.5),
    ]
    asked = [
        EngineRequest([5] * (20 + 25 * i), kinds[i % 4], 2 + i, n=1 + i % 2, logprobs=i or None)
        for i in range(6)
    ]
    asked += [EngineRequest([5] * 40, kinds[0], 1, logprobs=2, scores_prompt=True)]
    model = model_of(tiny_config(family, **WINDOWS.get(family, {})))
    engine = SlotEngine(model, None, max_rows=4, max_length=256, prefill_tokens=32)
    for request in asked:
        engine.submit(request)
    while engine.step():
        pass
    assert engine.pool.keys[0].device == DEVICE
    assert [request.done.result(0) for request in asked] == asked


@pytest.mark.parametrize("batching", ["tree", "padded"])
def test_the_trainer_leaves_nothing_on_the_cpu(monkeypatch, tmp_path, batching):
    case = (*make_case(tmp_path), tmp_path)
    trainer = make_trainer(case, batching=batching, per_device_train_batch_size=10)
    (batch,) = next(iter(trainer.get_train_dataloader()))["passes"]
    monkeypatch.setattr(TrainingArguments, "device", DEVICE)
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda _: True)
    trainer.model = model_of(trainer.model.config).train()
    inputs = trainer._prepare_inputs(batch)
    loss = trainer.compute_loss(trainer.model, inputs, num_items_in_batch=10)
    loss.backward()
    assert (loss.device, loss.dtype) == (DEVICE, torch.float32)
