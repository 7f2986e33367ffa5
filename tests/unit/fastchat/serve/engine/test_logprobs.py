"""Log-probabilities and penalties of the engine are those of the model by itself.

python -m pytest tests/unit/fastchat/serve/engine/test_logprobs.py
"""

import random
from itertools import pairwise

import pytest
import torch

from fastchat.serve.engine import engine as engine_module
from fastchat.serve.engine.engine import SlotEngine
from fastchat.serve.engine.request import EngineRequest, SamplingParams, Score
from fastchat.serve.engine.spelling import Speller
from fastchat.serve.stopping import decode
from tests.support.tiny import sentencepiece_like
from tests.unit.fastchat.serve.engine.test_engine import GREEDY, drain, random_prompts, reference


def answered(engine, requests):
    for request in requests:
        engine.submit(request)
    drain(engine)
    return [request.done.result(0).samples for request in requests]


def expected(model, tokens):
    """(T, V): row i is what the model says of the token at place i + 1."""
    with torch.inference_mode():
        return model(torch.tensor([tokens])).logits[0].float().log_softmax(-1)


def assert_scored(model, request, sample):
    tokens = [*request.prompt, *sample.tokens]
    found = [*request.prompt_scores, *sample.scores]
    first = len(tokens) - len(found)
    wanted = expected(model, tokens)
    for place, score in enumerate(found, first):
        if place == 0:
            assert score is None
            continue
        row = wanted[place - 1]
        assert score.logprob == pytest.approx(float(row[tokens[place]]), abs=1e-3)
        best = row.topk(request.logprobs)
        top = score.top[: request.logprobs]
        assert [token for token, _ in top] == best.indices.tolist()
        assert [value for _, value in top] == pytest.approx(best.values.tolist(), abs=1e-3)


def test_log_probabilities_are_those_of_a_direct_forward(model, tokenizer):
    engine = SlotEngine(model, tokenizer, max_rows=3, max_length=256, prefill_tokens=40)
    prompts = random_prompts(5, model.config.vocab_size, longest=120)
    warm = SamplingParams(temperature=0.7, top_p=0.9, frequency_penalty=1.5)
    requests = [
        EngineRequest(prompts[0], GREEDY, 20),
        EngineRequest(prompts[0], GREEDY, 9, logprobs=2, scores_prompt=True),
        EngineRequest(prompts[1], warm, 12, logprobs=5, seed=3, n=2),
        EngineRequest(prompts[2] + prompts[3], GREEDY, 0, logprobs=1, scores_prompt=True),
        EngineRequest(prompts[4], SamplingParams(), 5, logprobs=0, scores_prompt=True, seed=1),
    ]
    answered(engine, [*requests, EngineRequest(prompts[1], warm, 12)])
    assert requests[0].samples[0].tokens[:9] == requests[1].samples[0].tokens
    assert not requests[0].samples[0].scores
    assert requests[3].samples[0].tokens == [] and not engine._special
    assert requests[3].samples[0].finish_reason == "length"
    for request in requests[1:]:
        assert len(request.prompt_scores) in (0, len(request.prompt))
        for sample in request.samples:
            assert len(sample.scores) == len(sample.tokens)
            assert_scored(model, request, sample)


def test_a_scored_prompt_is_computed_though_its_beginning_is_known(model, tokenizer):
    engine = SlotEngine(model, tokenizer, max_rows=2, max_length=256, prefill_tokens=64)
    prompt = [random.Random(1).randrange(4, 300) for _ in range(100)]
    for _ in range(2):
        scored = EngineRequest(prompt, GREEDY, 1, logprobs=1, scores_prompt=True)
        answered(engine, [EngineRequest(prompt, GREEDY, 5), scored])
        assert_scored(model, scored, scored.samples[0])
        # What it computed serves the others.
        answered(engine, [EngineRequest([*prompt, 7], GREEDY, 2)])
    assert engine.stats.reused_tokens >= 100


def test_scored_prompts_that_begin_alike_are_computed_together(model, tokenizer, monkeypatch):
    engine = SlotEngine(model, tokenizer, max_rows=4, max_length=128)
    passes = []
    forward = engine.model.forward
    monkeypatch.setattr(
        engine.model, "forward", lambda *given: passes.append(given) or forward(*given)
    )
    prompt = random_prompts(1, 300, longest=60)[0] * 2
    requests = [
        EngineRequest([*prompt[-80:], i], GREEDY, 0, logprobs=1, scores_prompt=True)
        for i in range(5, 8)
    ]
    answered(engine, requests)
    assert len(passes) == 1
    for request in requests:
        assert_scored(model, request, request.samples[0])


def test_a_batch_that_the_memory_is_too_small_for_is_scored_in_halves(model, tokenizer):
    engine = SlotEngine(model, tokenizer, max_rows=4, max_length=128)
    forward = engine.model.forward

    def small(pool, span, *more):
        out = forward(pool, span, *more)
        if len(span.starts) > 1:
            raise RuntimeError("out of memory")
        return out

    engine.model.forward = small
    prompts = random_prompts(3, 300, longest=40)
    requests = [EngineRequest(p, GREEDY, 2, logprobs=3, scores_prompt=True) for p in prompts]
    answered(engine, requests)
    for request in requests:
        assert_scored(model, request, request.samples[0])


def test_repetition_penalty_equals_transformers_beside_rows_without_one(model, tokenizer):
    engine = SlotEngine(model, tokenizer, max_rows=8, max_length=256)
    prompts = random_prompts(4, 300, longest=40)
    changed = EngineRequest(prompts[0], SamplingParams(0.0, repetition_penalty=1.4), 30)
    plain = [EngineRequest(prompt, GREEDY, 30) for prompt in prompts]
    answered(engine, [plain[0], changed, *plain[1:]])
    for request in plain:
        assert request.samples[0].tokens == reference(model, request.prompt, 30)
    ids = model.generate(
        torch.tensor([prompts[0]]),
        max_new_tokens=30,
        do_sample=False,
        eos_token_id=None,
        repetition_penalty=1.4,
    )
    assert changed.samples[0].tokens == ids[0, len(prompts[0]) :].tolist()
    assert changed.samples[0].tokens != plain[0].samples[0].tokens


@pytest.mark.parametrize(("presence", "frequency"), [(1.2, 0.0), (0.0, 0.7), (-0.5, 0.4)])
def test_presence_and_frequency_penalties_are_openais(model, tokenizer, presence, frequency):
    engine = SlotEngine(model, tokenizer, max_rows=4, max_length=256)
    prompt = random_prompts(1, 300, seed=4)[0]
    params = SamplingParams(0.0, presence_penalty=presence, frequency_penalty=frequency)
    other = SamplingParams(0.0, presence_penalty=2.0)
    requests = [EngineRequest(prompt, params, 25), EngineRequest(prompt, other, 12)]
    answers = [samples[0].tokens for samples in answered(engine, requests)]
    for asked, answer in zip((params, other), answers, strict=True):
        done = []
        for token in answer:
            with torch.inference_mode():
                logits = model(torch.tensor([[*prompt, *done]])).logits[0, -1]
            counts = torch.bincount(torch.tensor(done, dtype=torch.long), minlength=len(logits))
            taken = asked.frequency_penalty * counts + asked.presence_penalty * (counts > 0)
            assert token == int((logits - taken).argmax())
            done.append(token)


def test_plain_requests_cost_nothing_more(model, tokenizer, monkeypatch):
    engine = SlotEngine(model, tokenizer, max_rows=4, max_length=128)
    cancelled = EngineRequest([5, 6], SamplingParams(presence_penalty=1.0), 40, logprobs=1)
    engine.submit(cancelled)
    engine.step()
    assert engine._special and cancelled.done.cancel() and not engine._special
    for name in ("penalize", "scores"):
        monkeypatch.setattr(engine_module, name, lambda *_: pytest.fail("not asked for"))
    (sample,) = answered(engine, [EngineRequest([5, 6, 7], SamplingParams(), 9, seed=1)])[0]
    assert len(sample.tokens) == 9 and sample.scores == []


@pytest.mark.parametrize("shown", [True, False])
def test_special_tokens_count_where_the_text_shows_them(tokenizer, shown):
    eos = tokenizer.eos_token
    prompt = f"Hi{eos} to"
    ids = [*tokenizer(prompt, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    text = prompt if shown else "Hi to"
    speller = Speller(tokenizer, 0, text)
    speller.tell(ids, [None] * len(ids))
    told = speller.take()
    for word, (begin, end) in zip(told.tokens, pairwise(told.text_offset), strict=False):
        assert text[begin:end] == (word if shown or word != eos else "")
    assert told.text_offset[-1] == len(text)


@pytest.mark.parametrize("kind", ["byte level", "sentencepiece"])
def test_tokens_are_spelled_and_found_in_the_text(kind, tokenizer):
    if kind == "sentencepiece":
        tokenizer = sentencepiece_like()
    text = "Hi to é Hi"
    eos = tokenizer.eos_token_id
    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], eos]
    assert decode(tokenizer, ids) == text
    speller = Speller(tokenizer, 1)
    speller.tell(ids, [None, *[Score(-1.0, [(eos, -0.5), (eos, -2.0)])] * (len(ids) - 1)])
    speller.begin()
    speller.tell(ids[:2], [Score(-1.0, [(ids[0], -1.0)])] * 2)
    told = speller.take()
    assert speller.take().tokens == []
    split = [word for word in told.tokens if word.startswith("bytes:")]
    assert split == ["bytes:\\xc3", "bytes:\\xa9"]
    for word, (begin, end) in zip(told.tokens, pairwise(told.text_offset), strict=False):
        if not word.startswith("bytes:") and word != tokenizer.eos_token:
            assert (text * 2)[begin:end] == word.removeprefix(" " if begin in (0, 10) else "")
    assert told.top_logprobs[0] is None
    assert told.top_logprobs[1] == {tokenizer.eos_token: -0.5, told.tokens[1]: -1.0}
    assert speller.word(10**6) == "token_id:1000000"
