"""Reward-weighted regression: the loss, and the trainer that applies it.

The loss of an optimizer step is

    L = 1/N * sum over its N examples e of  w_e * mean over the action's tokens t of -log p(t)

over all micro-batches and processes of the step, so it does not depend on how the step is split.
With every weight 1 it is plain supervised fine-tuning (mean over examples).

Letters in shapes: B examples of a forward pass, S positions whose logits are computed, A trained
tokens, V tokens of the vocabulary.
"""

import contextlib
import functools
import itertools
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from transformers.integrations import get_reporting_integration_callbacks
from transformers.trainer_utils import SaveStrategy

from fastchat.train import signals
from fastchat.train.arguments import TrainingArguments
from fastchat.train.checkpoints import mark_complete, rotate, saving
from fastchat.train.data.batches import (
    IGNORED,
    Collator,
    Passes,
    StepBatches,
    TreeCollator,
    collate_step,
)
from fastchat.train.data.rwr_dataset import RWRDataset
from fastchat.train.prefix_tree.flex import FLEX, FLEX_BLOCK, TOLERANCE
from fastchat.train.prefix_tree.model import attention_inputs, can_use_trees, tree_error
from fastchat.train.processes import logger
from fastchat.train.statistics import StepStatistics

SILENCE = 60.0
"""Seconds without a bar or a metric line, after which the step is said."""


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to do."""


def action_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean of -log p over every example's trained tokens, (B,); 0 where there are none.

    `logits` (B, S, V) count in float32 or better; `targets`, int64 (B, S), are IGNORED elsewhere.
    """
    losses = cross_entropy(
        _exact(logits).flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
    )
    trained = (targets != IGNORED).sum(1).clamp(min=1)
    return losses.view_as(targets).sum(1) / trained


def tree_nll(logits: Tensor, batch: dict[str, Any]) -> Tensor:
    """`action_nll`, (B,), of a `TreeCollator` pass: logits (S, V), at shared positions."""
    losses = -_exact(logits).log_softmax(-1)[batch["slots"], batch["targets"]]
    sums = losses.new_zeros(len(batch["weights"]))
    trained = torch.zeros_like(sums).index_add(0, batch["owners"], torch.ones_like(losses))
    return sums.index_add(0, batch["owners"], losses) / trained.clamp(min=1)


def _exact(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def rwr_loss(nll: Tensor, weights: Tensor, step_examples: Tensor | int) -> Tensor:
    """A micro-batch's part of a step's loss: the sum of w_e * nll_e, (B,) each, divided by N."""
    return (weights * nll).sum() / step_examples


class StopAtSignal(transformers.TrainerCallback):
    """Ends training with a checkpoint, on all processes after the step in which one had a signal.

    It also says once a minute how far training is, where neither a bar nor a metric line does.
    """

    def __init__(self) -> None:
        self.number = 0
        """The signal that all processes stop at; 0 for none."""
        self._said = time.monotonic()

    def on_step_end(
        self, args: Any, state: transformers.TrainerState, control: Any, **_: Any
    ) -> None:
        number = torch.tensor(signals.wanted(), device=args.device)
        if args.world_size > 1:
            torch.distributed.all_reduce(number, op=torch.distributed.ReduceOp.MAX)
        self.number = int(number)
        if self.number:
            control.should_training_stop = True
            # At the end of an epoch once its evaluation is made.
            control.should_save = not _ends_epoch(state)
            args.load_best_model_at_end, args.save_total_limit = False, None
            # "best" would save by the result alone.
            args.save_strategy = SaveStrategy.STEPS
        if (
            args.disable_tqdm
            and state.is_world_process_zero
            and time.monotonic() - self._said > SILENCE
        ):
            print(f"step {state.global_step} of {state.max_steps}", file=sys.stderr)
            self._said = time.monotonic()

    def on_epoch_end(
        self, args: Any, state: transformers.TrainerState, control: Any, **_: Any
    ) -> None:
        """Save a stop at the end of an epoch; one within an epoch ends without its evaluation."""
        if self.number:
            control.should_save = _ends_epoch(state)
            control.should_evaluate &= control.should_save
            control.should_log &= control.should_save

    def on_log(self, *_: Any, **__: Any) -> None:
        self._said = time.monotonic()


class Tolerated:
    """A tracker of transformers; where it raises, training goes on without it.

    A scheduler's signal reaches all processes of a job, that of wandb too, which dies of it while
    the step is finished and the checkpoint saved.
    """

    def __init__(self, tracker: transformers.TrainerCallback):
        self._tracker = tracker

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._tracker, name)
        return functools.partial(self._tell, found) if name.startswith("on_") else found

    def _tell(self, event: Callable[..., Any], *given: Any, **more: Any) -> Any:
        try:
            return event(*given, **more)
        except Exception as error:  # whatever a foreign package raises
            name, cause = type(self._tracker).__name__, " ".join(str(error).split())
            logger.warning("%s fails (%s): it gets nothing more", name, cause)
            self._tracker = transformers.TrainerCallback()
            return None


def _ends_epoch(state: transformers.TrainerState) -> bool:
    return float(state.epoch or 0.5).is_integer()


class RWRTrainer(transformers.Trainer):
    """transformers' Trainer with the reward-weighted loss, exact over a whole optimizer step.

    Takes an `RWRDataset` and a `Collator`. A checkpoint is marked complete once every process has
    written its part, see `fastchat.train.checkpoints`.
    """

    args: TrainingArguments
    model: transformers.PreTrainedModel
    train_dataset: RWRDataset
    data_collator: Collator

    loss_is_scaled_for_ga = True
    """`compute_loss` divides by the examples of the whole step, so nothing is left to scale."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # It makes a plan for every shape, and batches have many, see `EngineModel`.
        torch.backends.cuda.enable_cudnn_sdp(False)
        # Releases of transformers that do not know `loss_is_scaled_for_ga` go by this one.
        self.model_accepts_loss_kwargs = True
        # The Trainer wrote "no cache" into the configuration, which would be saved for serving.
        self.model.config.use_cache = True
        self.statistics = StepStatistics(self.args.device)
        self._tree_checked = False
        trackers = tuple(get_reporting_integration_callbacks(self.args.report_to))
        self.callback_handler.callbacks = [
            Tolerated(callback) if isinstance(callback, trackers) else callback
            for callback in self.callback_handler.callbacks
        ]
        self.stop = StopAtSignal()
        self.add_callback(self.stop)

    @property
    def trees(self) -> bool:
        return self.args.batching == "tree" and can_use_trees(self._attention)

    @property
    def _attention(self) -> str:
        return str(self.model.config._attn_implementation)

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
            prefixes=self.train_dataset.prefixes if self.trees else None,
            tree_tokens=args.tree_budget,
            trajectories=self.train_dataset.trajectories if args.group_trajectories else None,
        )
        batches.epoch = lambda: self.state.global_step // batches.steps
        multiple = FLEX_BLOCK if self._attention == FLEX else 1
        return DataLoader(
            Passes(self.train_dataset),
            batch_sampler=batches,
            collate_fn=functools.partial(
                collate_step, TreeCollator(multiple) if self.trees else self.data_collator
            ),
            num_workers=args.dataloader_num_workers,
            worker_init_fn=signals.ignore,
            pin_memory=args.dataloader_pin_memory,
            prefetch_factor=args.dataloader_prefetch_factor,
            persistent_workers=args.dataloader_persistent_workers
            and args.dataloader_num_workers > 0,
        )

    def get_eval_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader:
        """As transformers', with processes that leave signals to this one."""
        loader = super().get_eval_dataloader(*args, **kwargs)
        loader.worker_init_fn = signals.ignore
        return loader

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Tensor]:
        batches = list(itertools.islice(epoch_iterator, num_batches))
        examples = torch.tensor(sum(batch["examples"] for batch in batches), device=device)
        if self.args.world_size > 1:
            examples = self.accelerator.reduce(examples, "sum")
        return batches, examples

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """The loss of a micro-batch, after its forward and backward passes.

        Where steps are made of trees it has all passes of a step, or none. The processes exchange
        gradients at the last.
        """
        if self.trees and not self._tree_checked:
            self._check_trees(model)
        total = torch.zeros((), device=self.args.device)
        state, passes = self.accelerator.gradient_state, inputs["passes"]
        exchange = self.accelerator.sync_gradients
        for number, batch in enumerate(passes, start=1):
            last = number == len(passes)
            state._set_sync_gradients(exchange and last)
            apart = not last and not self.is_deepspeed_enabled
            with self.accelerator.no_sync(model) if apart else contextlib.nullcontext():
                total = total + super().training_step(model, batch, num_items_in_batch)
        return total

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Operations of a micro-batch's passes by transformers' estimate, shared tokens once."""
        return sum(super(RWRTrainer, self).floating_point_ops(one) for one in inputs["passes"])

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """The loss of a forward pass, with logits computed at trained positions only.

        The model's mode tells training, where `num_items_in_batch` counts the step's examples on
        all processes, from evaluation, where the loss is the mean over the pass.
        """
        nll, output = self._nll(model, inputs)
        weights = torch.tensor(inputs["weights"], dtype=nll.dtype, device=nll.device)
        if model.training:
            assert num_items_in_batch is not None, "our get_batch_samples counts them"
            # Gradients and logged losses are averaged over the processes.
            loss = rwr_loss(nll, weights, num_items_in_batch) * self.args.world_size
            self._check_finite(weights * nll, inputs["rows"])
            self.statistics.add(nll.detach(), inputs)
        else:
            loss = rwr_loss(nll, weights, inputs["examples"])
        return (loss, output) if return_outputs else loss

    def _nll(self, model: torch.nn.Module, inputs: dict[str, Any]) -> tuple[Tensor, Any]:
        positions = inputs["positions"]
        arguments = {"logits_to_keep": positions, "use_cache": False}
        if "tree" not in inputs:
            # Without a mask: padding stands to the right, where causal attention does not look,
            # and the faster kernels take none.
            output = model(input_ids=inputs["input_ids"], **arguments)
            return action_nll(output.logits, inputs["labels"][:, positions + 1]), output
        arguments |= attention_inputs(self.model, inputs)
        ids, depths = inputs["input_ids"], inputs["position_ids"]
        output = model(input_ids=ids, position_ids=depths, **arguments)
        return tree_nll(output.logits[0], inputs), output

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
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
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        step, output_dir = self.state.global_step, self.args.directory
        directory = output_dir / f"checkpoint-{step}"
        with saving(directory):
            try:
                super()._save_checkpoint(*args, **kwargs)
            except Exception:
                # A part of a checkpoint is of no use, and takes the place that a next one needs.
                shutil.rmtree(directory, ignore_errors=True)
                raise
            finally:
                self.args.save_total_limit = limit
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                mark_complete(directory, step, self.args.world_size)
                rotate(output_dir, limit, self.state.best_model_checkpoint)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """As transformers', with plain attention where training has that of trees.

        Evaluation has padded rows, of other shapes: flex_attention would be compiled anew for
        them, and after eight times torch goes on without its kernels.
        """
        before = self._attention
        if can_use_trees(before):
            self.model.set_attn_implementation("sdpa")
        try:
            return super().evaluation_loop(*args, **kwargs)
        finally:
            self.model.set_attn_implementation(before)

    def _check_trees(self, model: torch.nn.Module) -> None:
        error = tree_error(model, self.model, self.args.device)
        # What is not a number is left to the losses, whose error names the rows.
        if error >= TOLERANCE:
            raise TrainingError(
                f"the logits of prefix trees differ from those of single rows by {error:.2g} of "
                "their norm, so this architecture cannot be trained on them: pass --batching padded"
            )
        self._tree_checked = True

    def _check_finite(self, losses: Tensor, rows: Sequence[str]) -> None:
        if torch.isfinite(losses).all():
            return
        values = zip(rows, losses.tolist(), strict=True)
        bad = [f"{row} ({value})" for row, value in values if not math.isfinite(value)]
        raise TrainingError(
            f"the loss of step {self.state.global_step + 1} is not finite in these rows: "
            f"{', '.join(bad)}. Look at them and at the weights of the model; a lower "
            "--learning_rate or --bf16 False may help"
        )
