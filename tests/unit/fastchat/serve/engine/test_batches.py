"""Memory that is too short for all rows costs a few more passes, and changes no answer.

python -m pytest tests/unit/fastchat/serve/engine/test_batches.py
"""

import logging

import pytest
import torch

from fastchat.constants import ErrorCode, RequestError
from fastchat.serve.engine.engine import SlotEngine
from fastchat.serve.engine.request import EngineRequest, SamplingParams

ROWS = 16
STEPS = 30


class Memory:
    """Stands for a GPU's: passes of more tokens than `room`, or with `huge`, find none."""

    def __init__(self, engine, monkeypatch, room):
        self.room = room
        self.huge = None
        self.sizes = []
        """Tokens of the passes that were computed, padding included."""
        self.failures = 0
        self._forward = engine.model.forward
        monkeypatch.setattr(engine.model, "forward", self.forward)

    def forward(self, pool, span, tokens):
        size = len(tokens) * span.width
        if size > self.room or any(self.huge in row for row in tokens):
            self.failures += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.sizes.append(size)
        return self._forward(pool, span, tokens)


@pytest.fixture
def engine(model, tokenizer):
    return SlotEngine(model, tokenizer, max_rows=ROWS, max_length=128)


def ask(engine, steps=STEPS):
    requests = [EngineRequest([5, 6, 7 + i], SamplingParams(), steps, seed=i) for i in range(ROWS)]
    for request in requests:
        engine.submit(request)
    return requests


def answers(engine):
    requests = ask(engine)
    while engine.step():
        pass
    return [request.done.result(0).samples[0].tokens for request in requests]


@pytest.mark.parametrize(("room", "parts"), [(ROWS - 1, 2), (5, 4), (1, ROWS)])
def test_the_size_that_fits_is_found_once_and_kept(
    engine, model, tokenizer, monkeypatch, caplog, room, parts
):
    expected = answers(SlotEngine(model, tokenizer, max_rows=ROWS, max_length=128))
    requests = ask(engine)
    engine.step()
    memory = Memory(engine, monkeypatch, room)
    while engine.step():
        pass
    assert [request.done.result(0).samples[0].tokens for request in requests] == expected
    # Halves, quarters and so on fail once each.
    assert memory.failures == parts.bit_length() - 1
    assert len(memory.sizes) == parts * (STEPS - 2)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"at most {ROWS // parts} tokens are computed at a time" in record.getMessage()


def test_prompts_are_computed_in_parts_that_fit_too(engine, monkeypatch, caplog):
    expected = answers(engine)
    engine._table.clear()  # So that nothing is copied from the first round.
    memory = Memory(engine, monkeypatch, ROWS)
    assert answers(engine) == expected
    # 16 prompts of 3 tokens and their halves: 24 tokens are too many, 12 are not.
    assert memory.failures == 2
    assert memory.sizes[:4] == [12] * 4 and set(memory.sizes[4:]) == {ROWS}
    assert len(caplog.records) == 1


def test_memory_that_comes_back_is_used_again(engine, monkeypatch, caplog):
    monkeypatch.setattr("fastchat.serve.engine.batches._HALVINGS_UNTIL_RETRY", 3)
    ask(engine)
    engine.step()
    memory = Memory(engine, monkeypatch, ROWS - 1)
    for _ in range(9):
        engine.step()
    # Two tries in vain, and no further word of a limit that was named.
    assert memory.failures == 3 and len(caplog.records) == 1
    memory.room = ROWS
    memory.sizes.clear()
    for _ in range(6):
        engine.step()
    assert memory.sizes[-3:] == [ROWS] * 3 and memory.failures == 3


def test_a_row_that_never_fits_fails_alone_and_limits_nobody(engine, monkeypatch, caplog):
    huge = EngineRequest([5, 299], SamplingParams(temperature=0.0), 9)
    engine.submit(huge)
    memory = Memory(engine, monkeypatch, 1000)
    memory.huge = 299
    others = [EngineRequest([5, 6 + i], SamplingParams(temperature=0.0), 9) for i in range(3)]
    for request in others:
        engine.submit(request)
    engine.step()
    with pytest.raises(RequestError, match="OutOfMemoryError") as failed:
        huge.done.result(0)
    assert failed.value.code == ErrorCode.CUDA_OUT_OF_MEMORY
    memory.huge = None
    memory.sizes.clear()
    while engine.step():
        pass
    assert set(memory.sizes) == {3}
    assert all(len(request.done.result(0).samples[0].tokens) == 9 for request in others)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
