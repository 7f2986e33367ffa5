"""Prompts copy what other slots already hold, and answers stay the same.

python -m pytest tests/unit/fastchat/serve/engine/test_prefix_reuse.py
"""

import random

import pytest
import torch

from fastchat.constants import RequestError
from fastchat.model.model_adapter import load_model
from fastchat.serve.engine.engine import SlotEngine
from fastchat.serve.engine.request import EngineRequest, SamplingParams
from fastchat.serve.engine.slots import SHORTEST_SHARE
from tests.unit.fastchat.serve.engine.test_engine import GREEDY, drain, reference


def some_tokens(count, seed):
    rng = random.Random(seed)
    return [rng.randrange(4, 300) for _ in range(count)]


def test_a_shared_preamble_is_computed_once(model, tokenizer):
    engine = SlotEngine(model, tokenizer, max_rows=8, max_length=256)
    preamble = some_tokens(100, 1)
    requests = [EngineRequest(preamble + some_tokens(10, i), GREEDY, 8) for i in range(20)]
    for request in requests:
        engine.submit(request)
    drain(engine)
    assert engine.stats.prefill_tokens == 100 + 20 * 10
    assert engine.stats.reused_tokens == 19 * 100
    for request in requests:
        assert request.samples[0].tokens == reference(model, request.prompt, 8)


def test_a_seeded_answer_does_not_depend_on_what_was_reused(model, tokenizer):
    prompt = some_tokens(80, 3)
    answers = []
    for before in ([], [prompt], [prompt[:50] + some_tokens(20, 4)]):
        engine = SlotEngine(model, tokenizer, max_rows=4, max_length=256)
        for ids in before:
            engine.submit(EngineRequest(ids, SamplingParams(), 30, seed=1))
            drain(engine)
        request = EngineRequest(prompt, SamplingParams(), 30, seed=2)
        engine.submit(request)
        drain(engine)
        assert bool(engine.stats.reused_tokens) == bool(before)
        answers.append(request.samples[0].tokens)
    assert answers[0] == answers[1] == answers[2]


def test_short_common_beginnings_are_not_copied(model, tokenizer):
    engine = SlotEngine(model, tokenizer, max_rows=4, max_length=256)
    head = some_tokens(SHORTEST_SHARE - 1, 5)
    for i in range(4):
        engine.submit(EngineRequest([*head, 10 + i, *some_tokens(20, i)], GREEDY, 4))
    drain(engine)
    assert engine.stats.reused_tokens == 0


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
def test_any_mix_of_requests_gets_the_answers_of_generate(family, checkpoint, tokenizer):
    """Shared beginnings, several samples, cancellations and slots that change their length."""
    model = load_model(checkpoint(family), device="cpu")
    rng = random.Random(11)
    engine = SlotEngine(
        model, tokenizer, max_rows=5, max_length=512, pool_tokens=900, prefill_tokens=48
    )
    trunks = [some_tokens(120, seed) for seed in range(3)]
    requests, dropped = [], []
    while len(requests) < 40:
        trunk = rng.choice(trunks)[: rng.randrange(1, 120)]
        prompt = trunk + some_tokens(rng.randrange(1, 30), rng.random())
        request = EngineRequest(prompt, GREEDY, rng.randrange(1, 20), n=rng.choice([1, 1, 3]))
        requests.append(request)
        engine.submit(request)
        for _ in range(rng.randrange(6)):
            engine.step()
        if rng.random() < 0.2 and (victim := rng.choice(requests)).done.cancel():
            dropped.append(victim)
        if rng.random() < 0.3:
            finished = [r for r in requests if r.done.done() and r not in dropped]
            if finished:
                trunks.append(rng.choice(finished).prompt + rng.choice(finished).samples[0].tokens)
    drain(engine)
    assert dropped and engine.stats.reused_tokens > 0
    for request in requests:
        if request not in dropped:
            expected = reference(model, request.prompt, request.max_new_tokens)
            assert [s.tokens for s in request.samples] == [expected] * request.n


def test_slots_that_change_their_length_remember_what_they_kept(model, tokenizer):
    engine = SlotEngine(model, tokenizer, max_rows=4, max_length=600, pool_tokens=1600)
    prompt, long = some_tokens(60, 12), some_tokens(400, 13)
    lengths, reused = [], []
    for ids in (prompt, long, prompt, [*long, 5]):
        before = engine.stats.reused_tokens
        request = EngineRequest(ids, GREEDY, 20)
        engine.submit(request)
        drain(engine)
        lengths.append(engine.pool.length)
        reused.append(engine.stats.reused_tokens - before)
        assert request.samples[0].tokens == reference(model, ids, 20)
    assert lengths[0] < lengths[1]
    assert reused == [0, 0, 59, 400]


def test_kept_rows_are_cut_when_slots_become_shorter(model, tokenizer):
    engine = SlotEngine(model, tokenizer, max_rows=8, max_length=600, pool_tokens=1600)
    long = some_tokens(400, 14)
    requests = [EngineRequest(long, GREEDY, 20)]
    # Two samples of one prompt reserve a slot that the kept row may stay in for the moment.
    requests += [EngineRequest(some_tokens(40, i), GREEDY, 20 + i, n=2) for i in range(3)]
    requests += [EngineRequest([*long[:300], 7], GREEDY, 20)]
    engine.submit(requests[0])
    drain(engine)
    widest = engine.pool.length
    for request in requests[1:-1]:
        engine.submit(request)
    lengths = set()
    while engine.step():
        lengths.add(engine.pool.length)
    assert min(lengths) < widest
    engine.submit(requests[-1])
    drain(engine)
    assert SHORTEST_SHARE <= engine.stats.reused_tokens < 300
    for request in requests:
        expected = reference(model, request.prompt, request.max_new_tokens)
        assert request.samples[-1].tokens == expected


@pytest.mark.parametrize("window", [None, 2])
def test_twice_as_many_episodes_as_rows_keep_what_they_have(model, tokenizer, window):
    """Interleaved, of 5 turns: what must be computed is what no earlier prompt or answer holds."""
    rows, turns, rng = 4, 5, random.Random(1)
    engine = SlotEngine(model, tokenizer, max_rows=rows, max_length=700)
    episodes = [[some_tokens(60 + i, i)] for i in range(2 * rows)]
    running = {}
    least = 0

    def submit(i):
        shown = episodes[i][1:] if window is None else episodes[i][1:][1 - window :]
        prompt = [token for part in (episodes[i][0], *shown) for token in part]
        running[i] = EngineRequest(prompt, SamplingParams(), rng.randrange(25, 60), seed=1)
        engine.submit(running[i])

    for i in range(len(episodes)):
        submit(i)
        least += len(running[i].prompt)
    while engine.step():
        for i in [i for i, request in running.items() if request.done.done()]:
            answer, feedback = running.pop(i).samples[0].tokens, some_tokens(20, len(episodes[i]))
            episodes[i].append(answer + feedback)
            if len(episodes[i]) < turns + 1:
                submit(i)
                # The last token of an answer was drawn, but never computed.
                whole = window is not None and len(episodes[i]) > window
                least += len(answer + feedback) if whole else len(feedback) + 1
    # A window hides what an episode's row continues, so a few rows drop out too early.
    assert engine.stats.prefill_tokens <= (1.02 if window is None else 1.15) * least
    assert engine.stats.prefill_tokens < (0.25 if window is None else 0.6) * (
        engine.stats.prompt_tokens
    )


def test_what_is_no_number_is_never_reused(checkpoint, tokenizer):
    model = load_model(checkpoint(), device="cpu")
    with torch.no_grad():
        model.model.embed_tokens.weight[350] = float("nan")
    engine = SlotEngine(model, tokenizer, max_rows=2, max_length=256, prefill_tokens=16)
    head = some_tokens(40, 8)
    poisoned = [EngineRequest([*head, 350, *some_tokens(30, 9)], GREEDY, 5) for _ in range(2)]
    for request in poisoned:
        engine.submit(request)
    for _ in range(4):
        engine.step()
    poisoned[0].done.cancel()
    drain(engine)
    with pytest.raises(RequestError, match="not a number"):
        poisoned[1].done.result(0)
    for i in range(6):
        request = EngineRequest(head + some_tokens(50, 20 + i), GREEDY, 40)
        engine.submit(request)
        drain(engine)
        assert request.done.result(0).samples[0].tokens == reference(model, request.prompt, 40)
