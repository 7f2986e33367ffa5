"""The draws follow the distribution.

python -m pytest tests/unit/fastchat/serve/engine/test_sampling.py
"""

import random

import pytest
import torch
from scipy.stats import chisquare
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from fastchat.serve.engine.request import SamplingParams
from fastchat.serve.engine.sampling import sample


def draw_many(logits, params, draws=8000, seed=1):
    rng = random.Random(seed)
    counts = torch.zeros(logits.shape[-1], dtype=torch.long)
    for _ in range(draws // 400):
        tokens = sample(logits.expand(400, -1), [params] * 400, [rng.random() for _ in range(400)])
        counts += torch.bincount(torch.tensor(tokens), minlength=logits.shape[-1])
    return counts


def assert_follows(counts, probabilities):
    assert counts[probabilities == 0].sum() == 0, "a token of probability 0 was drawn"
    expected = probabilities / probabilities.sum() * counts.sum()
    likely = expected >= 5
    observed = [*counts[likely].tolist(), int(counts[~likely].sum())]
    wanted = [*expected[likely].tolist(), float(expected[~likely].sum())]
    if wanted[-1] < 1e-9:
        observed, wanted = observed[:-1], wanted[:-1]
    assert chisquare(observed, wanted, sum_check=False).pvalue > 1e-3


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_frequencies_match_softmax(temperature):
    logits = torch.randn(1, 12, generator=torch.Generator().manual_seed(0)) * 2
    counts = draw_many(logits, SamplingParams(temperature=temperature))
    assert_follows(counts, torch.softmax(logits[0].double() / temperature, -1))


@pytest.mark.parametrize("size", [30, 3000])
@pytest.mark.parametrize(("top_p", "top_k"), [(0.7, -1), (1.0, 5), (0.6, 8), (1.0, 10**30)])
def test_truncation_keeps_what_transformers_keeps(size, top_p, top_k):
    logits = torch.randn(1, size, generator=torch.Generator().manual_seed(3)) * 3
    scores = TemperatureLogitsWarper(1.5)(None, logits.clone())
    if top_k > 0:
        scores = TopKLogitsWarper(min(top_k, size))(None, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)
    counts = draw_many(logits, SamplingParams(1.5, top_p, top_k))
    assert_follows(counts, torch.softmax(scores[0].double(), -1))


def test_flat_distribution_needs_more_than_the_likeliest_candidates():
    logits = torch.zeros(1, 4000)
    counts = draw_many(logits, SamplingParams(top_p=0.9))
    # 8,000 draws from 3,600 equally likely tokens miss about one in nine of them.
    assert 3000 < (counts > 0).sum() <= 3601


def test_each_row_follows_its_own_parameters():
    logits = torch.tensor([[0.0, 1.0, 2.0]]).repeat(4, 1)
    params = [
        SamplingParams(temperature=0.0),
        SamplingParams(),
        SamplingParams(top_k=1),
        SamplingParams(top_p=1e-9),
    ]
    assert sample(logits, params, [0.0] * 4) == [2, 2, 2, 2]
    assert sample(logits, params, [0.999] * 4) == [2, 0, 2, 2]


def test_a_row_draws_the_same_alone_and_in_a_batch():
    logits = torch.randn(6, 50, generator=torch.Generator().manual_seed(1))
    params = [SamplingParams(temperature=0.5 + i / 4, top_p=1 - i / 10) for i in range(6)]
    uniforms = [0.1, 0.9, 0.3, 0.7, 0.5, 0.2]
    together = sample(logits, params, uniforms)
    alone = [sample(logits[i : i + 1], [params[i]], [uniforms[i]])[0] for i in range(6)]
    assert together == alone


def test_rows_that_are_no_numbers_are_reported_and_leave_the_others_alone():
    logits = torch.tensor([[0.0, 5.0], [float("nan"), 0.0], [float("inf"), 0.0], [9.0, 0.0]])
    params = [SamplingParams(0.0), SamplingParams(), SamplingParams(0.0), SamplingParams()]
    assert sample(logits, params, [0.5] * 4) == [1, None, None, 0]


@pytest.mark.parametrize("size", [300, 1024])
def test_tokens_of_probability_zero_are_never_drawn(size):
    """Every point between 0 and 1, also those that lie on the seam of two blocks."""
    logits = torch.full((1, size), float("-inf"))
    allowed = [0, 5, 127, 128, 200, 256, size - 1]
    logits[0, allowed] = torch.randn(len(allowed), generator=torch.Generator().manual_seed(2))
    cumulative = torch.softmax(logits[0].double(), -1).cumsum(-1)[allowed].tolist()
    seams = [1 - place + step * 1e-7 for place in cumulative for step in range(-3, 4)]
    uniforms = [u for u in (*seams, *(i / 1000 for i in range(1000)), 1 - 2**-53) if 0 <= u < 1]
    params = [SamplingParams()] * len(uniforms)
    drawn = sample(logits.expand(len(uniforms), -1), params, uniforms)
    assert set(drawn) == set(allowed)
