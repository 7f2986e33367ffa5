"""Figures of the training log, summed over micro-batches and processes.

Letters in shapes: B examples of a micro-batch.
"""

import time
from typing import Any

import torch

KINDS = ("right", "wrong", "no_answer")
"""What a reward above, at and below zero says of an answer (GSM8K's 1, 0, -1)."""


class StepStatistics:
    """Sums over the micro-batches since the last log entry, reduced over the processes."""

    def __init__(self, device: torch.device):
        self.device = device
        self._clear()

    def add(self, nll: torch.Tensor, batch: dict[str, Any]) -> None:
        self._tokens += batch["tokens"]
        if not batch["examples"]:
            return
        kinds = [None if reward is None else _kind(reward) for reward in batch["rewards"]]
        member = [[kind == name for name in KINDS] for kind in kinds]
        columns = torch.tensor(member, dtype=nll.dtype, device=nll.device)
        self._nll += torch.cat([nll @ columns, nll.sum()[None]])
        for slot, name in enumerate(KINDS):
            self._counts[slot] += kinds.count(name)
        self._counts[-1] += batch["examples"]
        self._weights[0] += sum(abs(weight) for weight in batch["weights"])
        self._weights[1] += sum(weight**2 for weight in batch["weights"])
        self._truncated += batch["truncated"]

    def drain(self, accelerator: Any) -> dict[str, float]:
        """The figures since the last call, over all processes.

        nll and nll_right, nll_wrong, nll_no_answer (mean over such examples, where there are any),
        effective_samples ((sum |w|)^2 / sum w^2), truncated (fraction of the examples whose history
        was cut), tokens_per_second.
        """
        several = accelerator.num_processes > 1
        # Not every device has float64 (Apple's has not), so it is used only to add up there.
        place = self.device if several else torch.device("cpu")
        numbers = torch.tensor(
            [*self._counts, *self._weights, self._truncated, self._tokens],
            dtype=torch.float64,
            device=place,
        )
        sums = torch.cat([self._nll.to(place).double(), numbers])
        if several:
            sums = accelerator.reduce(sums, "sum")
        values = sums.tolist()
        seconds = time.monotonic() - self._start
        self._clear()
        names = [*(f"nll_{kind}" for kind in KINDS), "nll"]
        nll, counts = values[: len(names)], values[len(names) : 2 * len(names)]
        columns = zip(names, nll, counts, strict=True)
        figures = {name: total / count for name, total, count in columns if count}
        absolute, squares, truncated, tokens = values[2 * len(names) :]
        figures["effective_samples"] = absolute**2 / squares if squares else 0.0
        figures["truncated"] = truncated / counts[-1] if counts[-1] else 0.0
        figures["tokens_per_second"] = tokens / seconds
        return figures

    def _clear(self) -> None:
        self._nll = torch.zeros(len(KINDS) + 1, device=self.device)
        self._counts = [0] * (len(KINDS) + 1)
        self._weights = [0.0, 0.0]
        self._truncated = 0
        self._tokens = 0
        self._start = time.monotonic()


def _kind(reward: float) -> str:
    return KINDS[0 if reward > 0 else 1 if reward == 0 else 2]
