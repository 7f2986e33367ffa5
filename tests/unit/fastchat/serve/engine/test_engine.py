"""The engine gives what the model gives, whatever else it computes at the same time.

python -m pytest tests/unit/fastchat/serve/engine/test_engine.py
"""

import random

import pytest
import torch

from fastchat.constants import ErrorCode, RequestError
from fastchat.model.model_adapter import load_model
from fastchat.serve.engine.engine import SlotEngine
from fastchat.serve.engine.request import EngineRequest, SamplingParams

GREEDY = SamplingParams(temperature=0.0)


def drain(engine):
    while engine.step():
        pass


def random_prompts(count, vocabulary, longest=90, seed=0):
    rng = random.Random(seed)
    sizes = [rng.randrange(1, longest) for _ in range(count)]
    return [[rng.randrange(4, vocabulary) for _ in range(size)] for size in sizes]


def reference(model, prompt, count):
    ids = model.generate(
        torch.tensor([prompt]), max_new_tokens=count, do_sample=False, eos_token_id=None
    )
    return ids[0, len(prompt) :].tolist()


def assert_greedy_equals_generate(engine, model, count=8):
    rng = random.Random(5)
    requests = [
        EngineRequest(prompt, GREEDY, rng.randrange(1, 24))
        for prompt in random_prompts(count, model.config.vocab_size)
    ]
    for request in requests:
        engine.submit(request)
    drain(engine)
    for request in requests:
        (answer,) = request.done.result(0).samples
        assert answer.tokens == reference(model, request.prompt, request.max_new_tokens)
        assert answer.finish_reason == "length"


@pytest.mark.parametrize(
    "family", ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3"]
)
def test_greedy_equals_generate(family, checkpoint, tokenizer, caplog):
    model = load_model(checkpoint(family), device="cpu")
    # Few slots and a small budget: rows wait, move and get their prompts in several pieces.
    engine = SlotEngine(model, tokenizer, max_rows=3, max_length=128, prefill_tokens=40)
    assert_greedy_equals_generate(engine, model)
    assert not caplog.records, "batches failed and were repeated row by row"


def test_a_seeded_answer_is_the_same_alone_and_in_a_batch(model, tokenizer):
    engine = SlotEngine(model, tokenizer, max_rows=6, max_length=256, prefill_tokens=64)
    params = SamplingParams(temperature=0.8, top_p=0.9)
    prompt = random_prompts(1, 300, seed=9)[0]
    alone = EngineRequest(prompt, params, 30, seed=7)
    engine.submit(alone)
    drain(engine)
    beside = [EngineRequest(p, SamplingParams(), 20) for p in random_prompts(10, 300)]
    again = EngineRequest(prompt, params, 30, seed=7)
    for request in (*beside[:5], again, *beside[5:]):
        engine.submit(request)
    drain(engine)
    assert alone.samples[0].tokens == again.samples[0].tokens
    assert len(set(alone.samples[0].tokens)) > 3


def test_sample_i_equals_a_request_with_seed_plus_i(model, tokenizer):
    engine = SlotEngine(model, tokenizer, max_rows=4, max_length=128)
    prompt = random_prompts(1, 300, seed=2)[0]
    # More samples than slots: they take turns.
    several = EngineRequest(prompt, SamplingParams(), 12, n=7, seed=100)
    single = [EngineRequest(prompt, SamplingParams(), 12, seed=100 + i) for i in range(7)]
    for request in (several, *single):
        engine.submit(request)
    drain(engine)
    assert [s.tokens for s in several.samples] == [r.samples[0].tokens for r in single]
    assert len({tuple(s.tokens) for s in several.samples}) == 7


def test_samples_share_one_computation_of_the_prompt(model, tokenizer):
    engine = SlotEngine(model, tokenizer, max_rows=16, max_length=128)
    engine.submit(EngineRequest(list(range(4, 54)), SamplingParams(), 5, n=16))
    drain(engine)
    assert engine.stats.prefill_tokens == engine.stats.prompt_tokens == 50
    assert engine.stats.generated_tokens == 16 * 5


def test_answers_end_at_stop_tokens_and_stop_texts(model, tokenizer):
    engine = SlotEngine(model, tokenizer, max_length=256)
    prompt = random_prompts(1, 300, seed=6)[0]
    whole = reference(model, prompt, 20)
    by_token = EngineRequest(prompt, GREEDY, 20, stop_ids=frozenset([whole[7]]))
    text = tokenizer.decode(whole[3:5])
    by_text = EngineRequest(prompt, GREEDY, 20, stop=(text,))
    for request in (by_token, by_text):
        engine.submit(request)
    drain(engine)
    assert by_token.samples[0].tokens == whole[: whole.index(whole[7]) + 1]
    answer = by_text.samples[0]
    assert text in tokenizer.decode(answer.tokens)
    assert text not in tokenizer.decode(answer.tokens[:-1])
    assert by_token.samples[0].finish_reason == answer.finish_reason == "stop"


def test_cancelled_requests_leave_at_the_next_step_and_others_stay(model, tokenizer):
    engine = SlotEngine(model, tokenizer, max_rows=4, max_length=256)
    prompts = random_prompts(6, 300)
    requests = [EngineRequest(prompt, GREEDY, 30) for prompt in prompts]
    for request in requests:
        engine.submit(request)
    engine.step()
    assert engine.load()["running"] == 4
    for i in (0, 2, 4):
        assert requests[i].done.cancel()
    engine.step()
    assert (engine.load()["running"], engine.load()["waiting"]) == (3, 0)
    drain(engine)
    for i in (1, 3, 5):
        assert requests[i].samples[0].tokens == reference(model, prompts[i], 30)


def test_long_prompts_do_not_hold_up_running_answers(model, tokenizer):
    engine = SlotEngine(model, tokenizer, max_length=1024, prefill_tokens=32)
    running = EngineRequest([5, 6, 7], GREEDY, 40)
    engine.submit(running)
    engine.step()
    long = EngineRequest(random_prompts(1, 300, seed=3, longest=2)[0] * 400, GREEDY, 4)
    engine.submit(long)
    for expected in range(3, 13):
        engine.step()
        assert len(running.samples[0].tokens) == expected
        assert not long.samples[0].tokens
    drain(engine)
    assert long.samples[0].tokens == reference(model, long.prompt, 4)


def test_what_cannot_fit_is_refused_before_the_queue(model, tokenizer):
    engine = SlotEngine(model, tokenizer, max_rows=2, max_length=64)
    bad = {
        ErrorCode.CONTEXT_OVERFLOW: EngineRequest([5] * 60, GREEDY, 5),
        ErrorCode.PARAM_OUT_OF_RANGE: EngineRequest([5, 10**40], GREEDY, 5),
    }
    for code, request in bad.items():
        with pytest.raises(RequestError) as refused:
            engine.submit(request)
        assert refused.value.code == code
    with pytest.raises(RequestError):
        engine.submit(EngineRequest([], GREEDY, 5))
    assert engine.load()["waiting"] == 0


def test_a_request_that_breaks_the_model_fails_alone(model, tokenizer, monkeypatch):
    engine = SlotEngine(model, tokenizer, max_length=128)
    forward = engine.model.forward

    def breaks_on_99(pool, span, tokens):
        if any(99 in row for row in tokens):
            raise RuntimeError("99 is too much")
        return forward(pool, span, tokens)

    monkeypatch.setattr(engine.model, "forward", breaks_on_99)
    good = [EngineRequest([5, 6, i], GREEDY, 8, stop_ids=frozenset([99])) for i in (7, 8)]
    bad = EngineRequest([5, 99], GREEDY, 8)
    engine.start()
    try:
        for request in (good[0], bad, good[1]):
            engine.submit(request)
        with pytest.raises(RequestError, match="99 is too much") as failed:
            bad.done.result(30)
        assert failed.value.code == ErrorCode.INTERNAL_ERROR
        for request in good:
            assert request.done.result(30).samples[0].finish_reason in ("length", "stop")
        monkeypatch.setattr(engine.model, "forward", lambda *_: 1 / 0)
        with pytest.raises(RequestError, match="ZeroDivisionError"):
            engine.submit(EngineRequest([5], GREEDY, 8)).result(30)
        monkeypatch.setattr(engine.model, "forward", forward)
        assert len(engine.submit(EngineRequest([5], GREEDY, 8)).result(30).samples[0].tokens) == 8
    finally:
        engine.stop()
    with pytest.raises(RequestError, match="shutting down"):
        engine.submit(EngineRequest([5], GREEDY, 8))


@pytest.mark.parametrize("step", ["activate", "_take_over"])
def test_a_step_that_fails_ends_what_runs_and_not_what_waits(model, tokenizer, monkeypatch, step):
    engine = SlotEngine(model, tokenizer, max_rows=1, max_length=128)
    work = getattr(engine._table, step)
    failures = iter([True])

    def fails_once(*arguments):
        if next(failures, False):
            raise ZeroDivisionError("once")
        return work(*arguments)

    monkeypatch.setattr(engine._table, step, fails_once)
    running, waiting = (EngineRequest([5, 6, 7], GREEDY, 8) for _ in range(2))
    for request in (running, waiting):
        engine.submit(request)
    engine.start()
    with pytest.raises(RequestError, match="ZeroDivisionError: once"):
        running.done.result(30)
    assert waiting.done.result(30).samples[0].tokens == reference(model, [5, 6, 7], 8)
    engine.stop()


def test_output_that_is_no_number_fails_alone_and_poisons_no_slot(checkpoint, tokenizer):
    model = load_model(checkpoint(), device="cpu")
    with torch.no_grad():
        model.model.embed_tokens.weight[50] = float("nan")
    engine = SlotEngine(model, tokenizer, max_rows=2, max_length=128)
    prompt = [5, 6, 7]
    requests = [EngineRequest(p, GREEDY, 6) for p in ([5, 50], prompt, [50] * 9, prompt, prompt)]
    for request in requests:
        engine.submit(request)
    drain(engine)
    for request in (requests[0], requests[2]):
        with pytest.raises(RequestError, match="not a number"):
            request.done.result(0)
    for request in (requests[1], requests[3], requests[4]):
        assert request.samples[0].tokens == reference(model, prompt, 6)


def begun(engine, sizes, monkeypatch):
    """The sizes of the prompts in each pass, the tokens being different in all of them."""
    passes = []
    forward = engine._prefills.forward

    def spy(rows, pieces, watch=None):
        passes.append([len(pieces[row]) for row in rows])
        return forward(rows, pieces, watch)

    monkeypatch.setattr(engine._prefills, "forward", spy)
    for place, size in enumerate(sizes):
        engine.submit(EngineRequest([4 + place] * size, GREEDY, 2))
    drain(engine)
    return passes


def test_prompts_that_begin_together_are_computed_by_length_or_the_first(
    model, tokenizer, monkeypatch
):
    engine = SlotEngine(model, tokenizer, max_rows=6, max_length=128, prefill_tokens=60)
    passes = begun(engine, [20, 4, 19, 5, 18, 6], monkeypatch)
    assert passes == [[4, 5, 6], [18, 19, 20]]
    engine = SlotEngine(
        model, tokenizer, max_rows=6, max_length=128, pool_tokens=128, prefill_tokens=60
    )
    passes = begun(engine, [50, 4, 49, 5], monkeypatch)
    assert passes[0][0] == 50
