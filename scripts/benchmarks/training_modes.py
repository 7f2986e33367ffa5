"""What `training.py` times: forward and backward passes over rows, in three programs.

A mode is built once and called often; a call does the work of some rows as the program would,
laying batches out included, and leaves gradients in the model. No optimizer steps.
"""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from fastchat.train.arguments import TrainingArguments
from fastchat.train.data.batches import Collator
from fastchat.train.data.rwr_dataset import Example
from fastchat.train.prefix_tree.model import use_trees
from fastchat.train.prefix_tree.trie import PrefixOrder
from fastchat.train.rwr_trainer import RWRTrainer

LENGTH = 2048
"""Tokens that the published code pads every row to."""

Mode = Callable[[], None]


class OneStep:
    """The rows of one optimizer step, as a data set that is trained in its order."""

    def __init__(self, examples: Sequence[Example]):
        self.examples = list(examples)
        self.lengths = [len(example.input_ids) for example in self.examples]
        self.prefixes = PrefixOrder(example.input_ids[:-1] for example in self.examples)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]


def published(model: Any, examples: Sequence[Example]) -> Mode:
    """Row by row, padded to `LENGTH`, logits everywhere: the published trainer's loss."""
    collate = Collator(pad_id=0)

    def work() -> None:
        model.zero_grad()
        for example in examples:
            batch = collate([example])
            fill = LENGTH - batch["input_ids"].shape[1]
            ids = torch.nn.functional.pad(batch["input_ids"], (0, fill))
            labels = torch.nn.functional.pad(batch["labels"], (0, fill), value=-100)
            mask = torch.arange(LENGTH)[None] < len(example.input_ids)
            loss = model(input_ids=ids, attention_mask=mask.long(), labels=labels).loss
            (loss * example.weight / len(examples)).backward()

    return work


def ours(model: Any, step: OneStep, directory: Path, **arguments: Any) -> Mode:
    """One optimizer step of this repository's trainer, with its own batches and checks."""
    args = TrainingArguments(
        output_dir=str(directory / "ours"),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=len(step.lengths),
        model_max_length=LENGTH,
        train_sampling_strategy="sequential",
        report_to="none",
        **arguments,
    )
    if args.batching == "tree":
        dtype = torch.bfloat16 if args.bf16 else model.dtype
        print(use_trees(model, None, LENGTH, args.device, dtype))
    trainer = RWRTrainer(
        model=model.to(args.device), args=args, train_dataset=step, data_collator=Collator(0)
    )
    loader = trainer.get_train_dataloader()

    def work() -> None:
        model.zero_grad()
        batches, examples = trainer.get_batch_samples(iter(loader), len(loader), args.device)
        for batch in batches:
            trainer.training_step(model, batch, examples)

    return work


def recompute(model: Any) -> None:
    """Turn gradient checkpointing on, as trainers do in train(), which is not called here."""
    newer = getattr(model, "activation_checkpointing_enable", None)
    (newer or model.gradient_checkpointing_enable)()
    model.train()


def trl(
    model: Any, tokenizer: Any, examples: Sequence[Example], directory: Path, **arguments: Any
) -> Mode:
    """One epoch over the examples with TRL's SFTTrainer, which has no weights."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    settings = {"max_length": None, "gradient_checkpointing": False, "bf16": False}
    settings |= {"use_cpu": not torch.cuda.is_available(), "per_device_train_batch_size": 1}
    rows = [
        {
            "input_ids": list(one.input_ids),
            "completion_mask": [int(i >= one.action_start) for i in range(len(one.input_ids))],
        }
        for one in examples
    ]
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(directory / "trl"),
            completion_only_loss=True,
            report_to="none",
            **settings | arguments,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    loader = trainer.get_train_dataloader()

    def work() -> None:
        trainer.model.zero_grad()
        batches = list(itertools.islice(iter(loader), len(loader)))
        _, items = trainer.get_batch_samples(iter(batches), len(batches), trainer.args.device)
        trainer.current_gradient_accumulation_steps = len(batches)
        for batch in batches:
            trainer.training_step(trainer.model, batch, items)

    return work
