"""Which examples make an optimizer step, how they are split, and how a micro-batch is laid out.

Letters in shapes: B examples of a micro-batch, T tokens of the longest of them (padded) or of
their tree, S positions whose logits are computed, A trained tokens.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers.trainer_pt_utils import get_length_grouped_indices

from fastchat.train.data.rwr_dataset import Example
from fastchat.train.prefix_tree.model import tree_inputs
from fastchat.train.prefix_tree.trie import PrefixOrder, build_tree, divide

IGNORED = -100


@dataclass
class StepBatches:
    """The micro-batches of one process, each a list of forward passes: lists of example indices.

    Step k of an epoch takes the same examples however it is split into processes, micro-batches
    and accumulation steps. All processes make the same number of micro-batches and of forward
    passes; where there are too few examples, some passes are empty.

    Padded, a micro-batch is one pass. Within a step the longest examples come first and are dealt
    out in turn, which saves padding and keeps the processes level. With trees, the passes of a
    step are as many as its tries need, all in its last micro-batch: the Trainer counts as usual.
    """

    lengths: Sequence[int]
    size: int
    accumulation: int
    seed: int
    order: str = "random"
    """random, sequential or group_by_length (random, but steps of similar length)."""
    processes: int = 1
    rank: int = 0
    epoch: Callable[[], int] = lambda: 0
    """The epoch that a new iteration belongs to."""
    prefixes: PrefixOrder | None = None
    """How the examples begin alike, for trees; None is padded."""
    tree_tokens: int = 0
    """Tokens of a tree, at most (unless one example is longer)."""
    trajectories: Sequence[int] | None = None
    """The trajectory of every example, which are kept in one step; None mixes all examples."""

    @property
    def step_size(self) -> int:
        return self.size * self.accumulation * self.processes

    @property
    def steps(self) -> int:
        return math.ceil(len(self.lengths) / self.step_size)

    def __len__(self) -> int:
        return math.ceil(len(self.lengths) / (self.size * self.processes))

    def __iter__(self) -> Iterator[list[list[int]]]:
        order = self.epoch_order(self.epoch())
        width = self.size * self.processes
        for start in range(0, len(order), self.step_size):
            step = order[start : start + self.step_size]
            if self.prefixes is None:
                step = sorted(step, key=lambda index: -self.lengths[index])
                for first in range(0, len(step), width):
                    yield [step[first : first + width][self.rank :: self.processes]]
            else:
                yield from [[]] * (math.ceil(len(step) / width) - 1)
                yield divide(self.prefixes, step, self.tree_tokens, self.processes)[self.rank]

    def epoch_order(self, epoch: int) -> list[int]:
        """All example indices, in the order in which the steps of an epoch take them."""
        if self.order == "sequential":
            return list(range(len(self.lengths)))
        if self.order == "group_by_length":
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            return list(
                get_length_grouped_indices(list(self.lengths), self.step_size, generator=generator)
            )
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.lengths)).tolist()
        if self.trajectories is None:
            return order
        return keep_together(order, self.trajectories, self.step_size)


def keep_together(order: Sequence[int], groups: Sequence[int], size: int) -> list[int]:
    """An order in which each group fills places of one step.

    Groups come in the order of their first member. One that is too long for what is left of a step
    waits for the next. The first is cut if none fits, or if it is longer than a step.
    """
    members: dict[int, list[int]] = {}
    for index in order:
        members.setdefault(groups[index], []).append(index)
    waiting = list(members.values())
    arranged: list[int] = []
    while waiting:
        room = size - len(arranged) % size
        lengths = (len(group) for group in waiting)
        fits = next((i for i, length in enumerate(lengths) if length <= room or length > size), 0)
        group = waiting.pop(fits)
        arranged += group[:room]
        if group[room:]:
            waiting.insert(0, group[room:])
    return arranged


class Passes(Dataset[list[Example]]):
    """A data set whose items are the examples of one forward pass, indexed by their indices."""

    def __init__(self, examples: Any):
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, indices: Sequence[int]) -> list[Example]:
        return [self.examples[index] for index in indices]


def collate_step(
    collate: Callable[[Sequence[Example]], dict[str, Any]], passes: Sequence[Sequence[Example]]
) -> dict[str, Any]:
    """The `passes` of a micro-batch, laid out, and the number of its `examples`."""
    return {"passes": [collate(each) for each in passes], "examples": sum(map(len, passes))}


@dataclass
class Collator:
    """Pads the examples of a pass on the right."""

    pad_id: int
    """Any valid token id: causal attention never looks at what stands to the right."""

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """The inputs of one pass; without examples B is 1 and nothing is trained.

        `input_ids` and `labels`, int64 (B, T), labels IGNORED outside the answers; `positions`,
        int64 (S,), where some example has a trained next token; and what `described` adds.
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
            **described(examples),
        }


@dataclass
class TreeCollator:
    """Lays the examples of a pass out as one tree; the last token of each is only predicted."""

    multiple: int = 1
    """The tree is filled up to a multiple of so many tokens."""

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """The inputs of one pass; without examples nothing is trained.

        Those of `tree_inputs`; `positions`, int64 (S,), where some example has a trained next
        token; for every trained token, int64 (A,), the `slots` of its position in `positions`, its
        id in `targets` and its example in `owners`; and what `described` adds.
        """
        tree = build_tree([example.input_ids[:-1] for example in examples] or [[0]])
        spans = [range(max(e.action_start, 1), len(e.input_ids)) for e in examples]
        where = [tree.paths[row][span.start - 1 :] for row, span in enumerate(spans)]
        trained = [
            torch.tensor(e.input_ids[s.start :]) for e, s in zip(examples, spans, strict=True)
        ]
        none = np.empty(0, dtype=np.int64)
        positions, slots = np.unique(np.concatenate([none, *where]), return_inverse=True)
        owners = np.repeat(np.arange(len(spans)), [len(span) for span in spans])
        return {
            **tree_inputs(tree, self.multiple),
            "positions": torch.from_numpy(positions if len(positions) else np.zeros(1, np.int64)),
            "slots": torch.from_numpy(slots),
            "targets": torch.cat([*trained, torch.empty(0)]).long(),
            "owners": torch.from_numpy(owners),
            **described(examples),
        }


def described(examples: Sequence[Example]) -> dict[str, Any]:
    """What the loss and the log need to know of the examples of a pass; lists have length B.

    Python numbers, since transformers casts the float tensors of a batch to bfloat16 under
    DeepSpeed.
    """
    return {
        "weights": [example.weight for example in examples] or [0.0],
        "rewards": [example.reward for example in examples] or [None],
        "truncated": sum(example.cut > 0 for example in examples),
        "rows": [example.row for example in examples] or ["-"],
        "examples": len(examples),
        "tokens": sum(len(example.input_ids) for example in examples),
    }
