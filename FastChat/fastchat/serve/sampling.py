"""Draws the next token of every row of a batch.

Letters: B rows, V entries of the vocabulary. Each row brings its own uniform number, drawn from its
own seed, and the token is found by inverting the cumulative distribution: what a row draws does not
depend on the rows beside it, and one pass over (B, V) costs far less than `torch.multinomial`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_GREEDY_TEMPERATURE = 1e-5
_GREEDY_TOP_P = 1e-8
_CANDIDATES = 1024


@dataclass(frozen=True)
class SamplingParams:
    """How one row draws its tokens."""

    temperature: float = 1.0
    top_p: float = 1.0
    """Keep the smallest set of likeliest tokens with at least this probability."""
    top_k: int = -1
    """Keep that many of the likeliest tokens, before top_p; -1 and 0 keep all."""

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken."""
        return self.temperature < _GREEDY_TEMPERATURE or self.top_p < _GREEDY_TOP_P

    @property
    def truncated(self) -> bool:
        """Whether only the head of the distribution is drawn from."""
        return not self.greedy and (self.top_p < 1.0 or self.top_k > 0)


def sample(
    logits: torch.Tensor, params: Sequence[SamplingParams], uniforms: Sequence[float]
) -> list[int | None]:
    """One token per row.

    Args:
        logits: (B, V) of any floating dtype.
        params: B entries.
        uniforms: B numbers in [0, 1); those of greedy rows are not looked at.

    Returns:
        B token ids; None where a row's logits hold NaN or infinity, so that nothing can be drawn.
    """
    import torch

    logits = logits.float()
    # NaN and infinity both reach the maximum, so one pass finds them and the greedy token.
    largest, tokens = logits.max(dim=-1)
    drawn = [i for i, row in enumerate(params) if not row.greedy]
    if drawn:
        full = [i for i in drawn if not params[i].truncated]
        cut = [i for i in drawn if params[i].truncated]
        for rows, draw in ((full, _draw_full), (cut, _draw_truncated)):
            if rows:
                index = torch.tensor(rows, device=logits.device)
                chosen = [params[i] for i in rows]
                points = torch.tensor([1.0 - uniforms[i] for i in rows], device=logits.device)
                part = logits if len(rows) == len(params) else logits[index]
                tokens[index] = draw(_probabilities(part, chosen), chosen, points[:, None])
    found = torch.where(largest.isfinite(), tokens, -1).tolist()
    return [None if token < 0 else token for token in found]


def _probabilities(logits: torch.Tensor, params: Sequence[SamplingParams]) -> torch.Tensor:
    import torch

    temperatures = [row.temperature for row in params]
    if any(value != 1.0 for value in temperatures):
        logits = logits / torch.tensor(temperatures, device=logits.device)[:, None]
    return torch.softmax(logits, dim=-1)


def _draw_full(
    probabilities: torch.Tensor, params: Sequence[SamplingParams], points: torch.Tensor
) -> torch.Tensor:
    return _invert(probabilities, points)


def _draw_truncated(
    probabilities: torch.Tensor, params: Sequence[SamplingParams], points: torch.Tensor
) -> torch.Tensor:
    """Sort the likeliest candidates only; the whole vocabulary where they are not enough."""
    import torch

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


def _invert(weights: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """The first index of each row whose cumulative weight reaches `points` of the row's total.

    Points lie in (0, 1], so an entry of weight 0 is never found.
    """
    import torch

    cumulative = weights.cumsum(dim=-1)
    goal = points * cumulative[:, -1:]
    return torch.searchsorted(cumulative, goal)[:, 0].clamp(max=weights.shape[-1] - 1)
