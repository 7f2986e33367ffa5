"""Reward-weighted regression: the loss, and the trainer that applies it.

The loss of an optimizer step is

    L = 1/N * sum over its N examples e of  w_e * mean over the action's tokens t of -log p(t)

over all micro-batches and processes of the step, so it does not depend on how the step is split.
With every weight 1 it is plain supervised fine-tuning (mean over examples).

Letters in shapes: B examples of a micro-batch, T tokens of the longest, S positions whose logits
are computed, V tokens of the vocabulary.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from fastchat.train.batches import IGNORED, StepBatches
from fastchat.train.checkpoints import mark_complete

KINDS = ("right", "wrong", "no_answer")
"""What a reward above, at and below zero says of an answer (GSM8K's 1, 0, -1)."""


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to do."""


def action_nll(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean of -log p over the trained tokens of every example.

    Args:
        logits: (B, S, V), any float dtype; computed in float32 or better.
        targets: int64 (B, S), IGNORED where nothing is trained.

    Returns:
        (B,); 0 for an example without trained tokens.
    """
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    losses = cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
    )
    trained = (targets != IGNORED).sum(1).clamp(min=1)
    return losses.view_as(targets).sum(1) / trained


def rwr_loss(
    nll: torch.Tensor, weights: torch.Tensor, step_examples: torch.Tensor | int
) -> torch.Tensor:
    """The part of a step's loss that a micro-batch adds: sum of w_e * nll_e, divided by N.

    Args:
        nll: (B,), mean -log p of every action, see `action_nll`.
        weights: (B,), any sign.
        step_examples: N, the number of examples in the whole optimizer step.
    """
    return (weights * nll).sum() / step_examples


class StepStatistics:
    """Sums over the micro-batches since the last log entry, reduced over the processes."""

    def __init__(self, device: torch.device):
        self.device = device
        self._clear()

    def add(self, nll: torch.Tensor, batch: dict[str, Any]) -> None:
        """Count a micro-batch of `Collator` with its nll, (B,)."""
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

    def drain(self, accelerator: Any) -> dict[str, float]:
        """The figures since the last call, over all processes.

        Returns:
            nll and nll_right, nll_wrong, nll_no_answer (mean over such examples, where there are
            any), effective_samples ((sum |w|)^2 / sum w^2), tokens_per_second.
        """
        numbers = torch.tensor(
            [*self._counts, *self._weights, self._tokens], dtype=torch.float64, device=self.device
        )
        sums = torch.cat([self._nll.double(), numbers])
        if accelerator.num_processes > 1:
            sums = accelerator.reduce(sums, "sum")
        values = sums.tolist()
        seconds = time.monotonic() - self._start
        self._clear()
        names = [*(f"nll_{kind}" for kind in KINDS), "nll"]
        nll, counts = values[: len(names)], values[len(names) : 2 * len(names)]
        figures = {
            name: total / count
            for name, total, count in zip(names, nll, counts, strict=True)
            if count
        }
        absolute, squares, tokens = values[2 * len(names) :]
        figures["effective_samples"] = absolute**2 / squares if squares else 0.0
        figures["tokens_per_second"] = tokens / seconds
        return figures

    def _clear(self) -> None:
        self._nll = torch.zeros(len(KINDS) + 1, device=self.device)
        self._counts = [0] * (len(KINDS) + 1)
        self._weights = [0.0, 0.0]
        self._tokens = 0
        self._start = time.monotonic()


class RWRTrainer(transformers.Trainer):
    """transformers' Trainer with the reward-weighted loss, exact over a whole optimizer step.

    Takes an `RWRDataset` and a `Collator`. A checkpoint is marked complete once every process has
    written its part, see `fastchat.train.checkpoints`.

    Raises:
        TrainingError: from `train`, if a loss or a gradient is not finite.
    """

    loss_is_scaled_for_ga = True
    """`compute_loss` divides by the examples of the whole step, so nothing is left to scale."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # Releases of transformers that do not know `loss_is_scaled_for_ga` go by this one.
        self.model_accepts_loss_kwargs = True
        # The Trainer wrote "no cache" into the configuration, which would be saved for serving.
        self.model.config.use_cache = True
        self.statistics = StepStatistics(self.args.device)

    def get_train_dataloader(self) -> DataLoader:
        """Batches whose steps hold the same examples however many processes share them.

        accelerate's sharding is left out: it repeats examples to fill the last step.
        """
        args = self.args
        batches = StepBatches(
            lengths=self.train_dataset.lengths,
            size=args.per_device_train_batch_size,
            accumulation=args.gradient_accumulation_steps,
            seed=args.seed if args.data_seed is None else args.data_seed,
            order=args.train_sampling_strategy,
            processes=args.world_size,
            rank=args.process_index,
        )
        batches.epoch = lambda: self.state.global_step // batches.steps
        return DataLoader(
            self.train_dataset,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], torch.Tensor]:
        """The micro-batches of the next step, and the examples of that step on all processes."""
        batches = list(itertools.islice(epoch_iterator, num_batches))
        examples = torch.tensor(sum(batch["examples"] for batch in batches), device=device)
        if self.args.world_size > 1:
            examples = self.accelerator.reduce(examples, "sum")
        return batches, examples

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """The loss of a micro-batch, with logits computed at trained positions only.

        The model gets no attention mask: padding stands to the right, where causal attention
        does not look, and the faster kernels take none.

        Args:
            model: the model as DeepSpeed or DDP wrapped it; its mode tells training from
                evaluation, where the loss is the mean over the micro-batch.
            inputs: what `Collator` returns.
            return_outputs: return (loss, model output).
            num_items_in_batch: in training, the examples of the whole step on all processes.
        """
        positions = inputs["positions"]
        output = model(input_ids=inputs["input_ids"], logits_to_keep=positions, use_cache=False)
        nll = action_nll(output.logits, inputs["labels"][:, positions + 1])
        weights = torch.tensor(inputs["weights"], dtype=nll.dtype, device=nll.device)
        if model.training:
            # Gradients and logged losses are averaged over the processes.
            loss = rwr_loss(nll, weights, num_items_in_batch) * self.args.world_size
            self._check_finite(weights * nll, inputs["rows"])
            self.statistics.add(nll.detach(), inputs)
        else:
            loss = rwr_loss(nll, weights, inputs["examples"])
        return (loss, output) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add our figures to a training entry, and stop if its gradient is not finite."""
        if "grad_norm" in logs:
            logs |= self.statistics.drain(self.accelerator)
            # With float16 the loss scaling skips such a step and goes on.
            if not math.isfinite(logs["grad_norm"]) and not self.args.fp16:
                raise TrainingError(
                    f"the gradient of step {self.state.global_step} is {logs['grad_norm']}; "
                    "resume from the last checkpoint with a lower --learning_rate or --bf16 False"
                )
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        # DeepSpeed hands over a copy of a tied matrix under each of its names; one is enough.
        for alias, source in getattr(self.model, "all_tied_weights_keys", {}).items():
            if state_dict and source in state_dict:
                state_dict.pop(alias, None)
        super()._save(output_dir, state_dict)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        super()._save_checkpoint(*args, **kwargs)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            step = self.state.global_step
            directory = Path(self.args.output_dir, f"checkpoint-{step}")
            mark_complete(directory, step, self.args.world_size)

    def _check_finite(self, losses: torch.Tensor, rows: Sequence[str]) -> None:
        if torch.isfinite(losses).all():
            return
        values = zip(rows, losses.tolist(), strict=True)
        bad = [f"{row} ({value})" for row, value in values if not math.isfinite(value)]
        raise TrainingError(
            f"the loss of step {self.state.global_step + 1} is not finite in these rows: "
            f"{', '.join(bad)}. Look at them and at the weights of the model; a lower "
            "--learning_rate or --bf16 False may help"
        )


def _kind(reward: float) -> str:
    return KINDS[0 if reward > 0 else 1 if reward == 0 else 2]
