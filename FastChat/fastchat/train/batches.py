"""Which examples make an optimizer step, how they are split, and how a micro-batch is padded.

Letters in shapes: B examples of a micro-batch, T tokens of the longest of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.trainer_pt_utils import get_length_grouped_indices

from fastchat.train.rwr_dataset import Example

IGNORED = -100
"""Label of a token without loss."""


@dataclass
class StepBatches:
    """The micro-batches of one process: lists of example indices, possibly empty.

    Step k of an epoch takes the same examples however it is split into processes, micro-batches
    and accumulation steps. All processes make the same number of micro-batches; where the last
    step has too few examples, some are empty. Within a step the longest examples come first and
    are dealt out in turn, which saves padding and keeps the processes level.
    """

    lengths: Sequence[int]
    """Length of every example in tokens."""
    size: int
    """Examples of a full micro-batch."""
    accumulation: int
    """Micro-batches of a full optimizer step."""
    seed: int
    order: str = "random"
    """random, sequential or group_by_length (random, but steps of similar length)."""
    processes: int = 1
    rank: int = 0
    epoch: Callable[[], int] = lambda: 0
    """The epoch that a new iteration belongs to."""

    @property
    def step_size(self) -> int:
        """Examples of a full optimizer step."""
        return self.size * self.accumulation * self.processes

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch."""
        return math.ceil(len(self.lengths) / self.step_size)

    def __len__(self) -> int:
        return math.ceil(len(self.lengths) / (self.size * self.processes))

    def __iter__(self) -> Iterator[list[int]]:
        order = self.epoch_order(self.epoch())
        width = self.size * self.processes
        for start in range(0, len(order), self.step_size):
            step = order[start : start + self.step_size]
            step = sorted(step, key=lambda index: -self.lengths[index])
            for first in range(0, len(step), width):
                yield step[first : first + width][self.rank :: self.processes]

    def epoch_order(self, epoch: int) -> list[int]:
        """All example indices, in the order in which the steps of an epoch take them."""
        if self.order == "sequential":
            return list(range(len(self.lengths)))
        if self.order == "group_by_length":
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            return list(
                get_length_grouped_indices(list(self.lengths), self.step_size, generator=generator)
            )
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.lengths)).tolist()


@dataclass
class Collator:
    """Pads examples on the right into one micro-batch."""

    pad_id: int
    """Any valid token id: causal attention never looks at what stands to the right."""

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """One micro-batch.

        Returns:
            `input_ids` and `labels`, int64 (B, T), labels IGNORED outside the answers;
            `positions`, int64 (S,), where some example has a trained next token; `weights`,
            `rewards` and `rows`, lists of length B (Python numbers, since transformers casts the
            float tensors of a batch to bfloat16 under DeepSpeed); the numbers `examples` and
            `tokens`. Without examples B is 1 and nothing is trained.
        """
        width = max((len(example.input_ids) for example in examples), default=2)
        ids = torch.full((len(examples) or 1, width), self.pad_id)
        labels = torch.full_like(ids, IGNORED)
        for line, example in enumerate(examples):
            tokens = torch.tensor(example.input_ids)
            ids[line, : len(tokens)] = tokens
            labels[line, example.action_start : len(tokens)] = tokens[example.action_start :]
        positions = (labels[:, 1:] != IGNORED).any(0).nonzero().squeeze(1)
        return {
            "input_ids": ids,
            "labels": labels,
            "positions": positions if len(positions) else torch.zeros(1, dtype=torch.long),
            "weights": [example.weight for example in examples] or [0.0],
            "rewards": [example.reward for example in examples] or [None],
            "rows": [example.row for example in examples] or ["-"],
            "examples": len(examples),
            "tokens": sum(len(example.input_ids) for example in examples),
        }
