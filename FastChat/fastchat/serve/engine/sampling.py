"""Draws the next token of every row of a batch.

Letters: B rows, V entries of the vocabulary. Each row brings its own uniform number, drawn from its
own seed, and the token is found by inverting the cumulative distribution: what a row draws does not
depend on the rows beside it, and a few passes over (B, V) cost far less than `torch.multinomial`.
"""

from array import array
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastchat.serve.engine.request import SamplingParams, Score

_CANDIDATES = 1024
_BLOCK = 128
_LEAST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON does not know; OpenAI's."""
NO_NUMBER = "the model's output is not a number (NaN or infinity)"


def scores(logits: Tensor, tokens: Sequence[int], count: int) -> list[Score]:
    """Of one token and the `count` likeliest ones in every row of (B, V) logits.

    Raises:
        ValueError: the logits hold NaN or infinity.
    """
    logits = logits.float()
    best, ids = logits.topk(min(count, logits.shape[-1]), dim=-1)
    own = logits.gather(-1, torch.tensor(tokens, device=logits.device)[:, None])
    found = torch.cat([own, best], -1) - logits.logsumexp(-1, keepdim=True)
    if bool(found.isnan().any()):
        raise ValueError(NO_NUMBER)
    rows = zip(found.clamp(min=_LEAST_LOGPROB).tolist(), ids.tolist(), strict=True)
    return [Score(own, list(zip(top, best, strict=True))) for (own, *best), top in rows]


def penalize(
    logits: Tensor,
    params: Sequence[SamplingParams],
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
) -> Tensor:
    """(B, V) logits under the penalties of those rows that have some, as a copy if any has."""
    from torch.nn.functional import pad

    rows = [i for i, row in enumerate(params) if row.penalized]
    if not rows:
        return logits
    result = logits.to(torch.float32, copy=True)
    size, device = logits.shape[-1], logits.device
    # What pads the token ids has a column of its own.
    part = pad(result[rows], (0, 1))

    def strength(name: str) -> Tensor:
        return torch.tensor([getattr(params[i], name) for i in rows], device=device)[:, None]

    seen = _padded([[*prompts[i], *answers[i]] for i in rows], size, device)
    found, divisor = part.gather(-1, seen), strength("repetition_penalty")
    part.scatter_(-1, seen, torch.where(found > 0, found / divisor, found * divisor))
    own = _padded([answers[i] for i in rows], size, device)
    part.scatter_(-1, own, part.gather(-1, own) - strength("presence_penalty"))
    part.scatter_add_(-1, own, -strength("frequency_penalty").expand(own.shape))
    result[rows] = part[:, :size]
    return result


def _padded(rows: Sequence[Sequence[int]], fill: int, device: Any) -> Tensor:
    """Token ids as (B, T), the shorter rows filled up."""
    longest = max(len(row) for row in rows)
    flat = array("q")
    for row in rows:
        flat.extend(row)
        flat.extend([fill] * (longest - len(row)))
    if not flat:
        return torch.empty(len(rows), 0, dtype=torch.long, device=device)
    return torch.frombuffer(flat, dtype=torch.long).view(len(rows), longest).to(device)


def sample(
    logits: Tensor, params: Sequence[SamplingParams], uniforms: Sequence[float]
) -> list[int | None]:
    """One token id per row of (B, V) logits; None where they hold NaN or infinity.

    `uniforms` are B numbers in [0, 1); those of greedy rows are not looked at.
    """
    logits = logits.float()
    # NaN and infinity both reach the maximum.
    largest = logits.amax(dim=-1, keepdim=True)
    tokens = torch.empty(len(params), dtype=torch.long, device=logits.device)
    greedy = [i for i, row in enumerate(params) if row.greedy]
    full = [i for i, row in enumerate(params) if not row.greedy and not row.truncated]
    cut = [i for i, row in enumerate(params) if row.truncated]
    for rows, draw in ((greedy, _likeliest), (full, _draw_full), (cut, _draw_truncated)):
        if rows:
            index = torch.tensor(rows, device=logits.device)
            whole = len(rows) == len(params)
            part = (logits, largest) if whole else (logits[index], largest[index])
            points = torch.tensor([1.0 - uniforms[i] for i in rows], device=logits.device)
            tokens[index] = draw(*part, [params[i] for i in rows], points[:, None])
    found = torch.where(largest[:, 0].isfinite(), tokens, -1).tolist()
    return [None if token < 0 else token for token in found]


def _likeliest(logits: Tensor, *_: Any) -> Tensor:
    return logits.argmax(dim=-1)


def _weights(logits: Tensor, largest: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """Probabilities up to a factor: the likeliest token has weight 1."""
    weights = logits - largest
    temperatures = [row.temperature for row in params]
    if any(value != 1.0 for value in temperatures):
        weights /= torch.tensor(temperatures, device=logits.device)[:, None]
    return weights.exp_()


def _draw_full(
    logits: Tensor, largest: Tensor, params: Sequence[SamplingParams], points: Tensor
) -> Tensor:
    return _invert(_weights(logits, largest, params), points)


def _draw_truncated(
    logits: Tensor, largest: Tensor, params: Sequence[SamplingParams], points: Tensor
) -> Tensor:
    """Sort the likeliest candidates only; the whole vocabulary where they are not enough."""
    probabilities = _weights(logits, largest, params)
    probabilities /= probabilities.sum(-1, keepdim=True)
    device = probabilities.device
    size = probabilities.shape[-1]
    limits = [min(row.top_k, size) if row.top_k > 0 else size for row in params]
    top_k = torch.tensor(limits, device=device)
    top_p = torch.tensor([row.top_p for row in params], device=device)
    count = min(size, _CANDIDATES)
    head, ids = probabilities.topk(count, dim=-1)
    everything = top_k >= size
    short = torch.where(everything, head.sum(-1) < top_p, top_k > count)
    if count < size and bool(short.any()):
        head, ids = probabilities.sort(dim=-1, descending=True)
    head = head * (torch.arange(head.shape[-1], device=device) < top_k[:, None])
    kept = torch.where(everything, 1.0, head.sum(-1))
    before = head.cumsum(-1) - head
    head = head * (before < (top_p * kept)[:, None])
    return ids.gather(-1, _invert(head, points)[:, None])[:, 0]


def _invert(weights: Tensor, points: Tensor) -> Tensor:
    """The first index of each row whose cumulative weight reaches `points` of the row's total.

    The sums of blocks find the block and its entries the index: cumulating everything would take
    longer than all other passes together. Points lie in (0, 1], so what is left for the block is
    above 0, and an entry of weight 0 is never found.
    """
    from torch.nn.functional import pad

    size = weights.shape[-1]
    if size % _BLOCK:
        weights = pad(weights, (0, _BLOCK - size % _BLOCK))
    blocks = weights.view(len(weights), -1, _BLOCK)
    ends = blocks.sum(-1).cumsum(-1)
    goal = points * ends[:, -1:]
    # NaN is past every end; whoever asked for it gets no token.
    block = torch.searchsorted(ends, goal).clamp(max=blocks.shape[1] - 1)
    rest = goal - pad(ends, (1, 0)).gather(-1, block)
    inside = blocks[torch.arange(len(blocks), device=weights.device), block[:, 0]].cumsum(-1)
    place = torch.searchsorted(inside, rest.minimum(inside[:, -1:]))
    return (block * _BLOCK + place)[:, 0].clamp(max=size - 1)
