"""The trainer's command line: four groups of arguments, see `checks.py` for what is refused.

The published commands were written for transformers 4. What version 5 renamed or dropped is
accepted and mapped here: `--evaluation_strategy`, `--warmup_ratio`, `--overwrite_output_dir`,
`--group_by_length`, and `--tf32 True` / `--bf16 True` on machines without a GPU.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import transformers

from fastchat.train.first_look import unknown_flags
from fastchat.train.lora import LoraArguments, option
from fastchat.train.processes import set_single_process


@dataclass
class ModelArguments:
    """Which model is trained, and how its dialogues are written."""

    model_name_or_path: str = field(
        metadata={"help": "directory of a checkpoint, or an id of the Hugging Face hub"}
    )
    chat_template: str | None = option(
        None,
        "chat template: a built-in name (llama-2, llama-3, mistral, chatml, zephyr) or a Jinja "
        "file, saved with the checkpoint; None is the tokenizer's own",
    )
    attn_implementation: str | None = option(
        None,
        "attention code; None is prefix_tree, on a GPU flex_attention, for trees, and "
        "FlashAttention 2 or sdpa for padded rows; any other one means padded rows",
    )
    trust_remote_code: bool = option(False, "run Python code that the checkpoint brings along")


@dataclass
class DataArguments:
    """What the model is trained on."""

    data_path: str = field(metadata={"help": "JSON file that workflow_convert.py wrote"})
    eval_data_path: str | None = option(None, "same format; its loss is reported, not trained")
    lazy_preprocess: bool = option(
        False,
        "True keeps no rows in memory: a row is read and tokenized again when it is used; every "
        "row is checked at the start either way",
    )
    loss_on: Literal["all", "last"] = option(
        "all",
        "all trains every gpt turn whose loss is not zero, and every one of a row without any "
        "loss (published FastChat data); last only the last of them; the same for rows of "
        "workflow_convert.py",
    )
    max_dropped_fraction: float = option(
        0.05, "refuse to start if more than this fraction of the examples cannot be used (0 to 1)"
    )


@dataclass
class TrainingArguments(transformers.TrainingArguments):
    """The arguments of transformers' Trainer, with the published names and ours."""

    cache_dir: str | None = option(
        None, "where hub downloads are kept; None is the hub's own place"
    )
    optim: str = option(
        "adamw_torch",
        "optimizer, by transformers' name; on a GPU without DeepSpeed adamw_torch is the fused one",
    )
    model_max_length: int = option(
        2048, "longest example in tokens; history is cut first, a longer example is dropped"
    )
    batching: str = option(
        "tree",
        "tree computes what rows of a step have in common at their beginning once; padded computes "
        "every row, as published; loss and gradient are the same",
    )
    tree_tokens: int | None = option(
        None,
        "tokens of one forward pass over a tree, at most (a longer example goes alone); None is "
        "model_max_length times per_device_train_batch_size, the memory of the padded pass",
    )
    group_trajectories: bool = option(
        False,
        "True keeps the attempts at a problem in one step, where they share their history: fewer "
        "tokens, but another order of the examples",
    )
    evaluation_strategy: str | None = option(None, "published name of --eval_strategy")
    warmup_ratio: float = option(0.0, "fraction of the steps with rising learning rate (0 to 1)")
    group_by_length: bool = option(
        False, "published name of --train_sampling_strategy group_by_length"
    )
    overwrite_output_dir: bool = option(
        False, "start anew in an output_dir that holds a run: its checkpoints are deleted"
    )
    check: bool = option(
        False,
        "say what contradicts itself and exit with 0 or 2, without a GPU; model and data may still "
        "be missing",
    )

    def __post_init__(self) -> None:
        """Map the published names, then let transformers set up devices and processes."""
        if self.output_dir is None:
            raise ValueError("--output_dir is missing: name the directory for the checkpoint")
        name = self.deepspeed
        if isinstance(name, str) and name.endswith(".json") and not Path(name).is_file():
            raise ValueError(
                f"--deepspeed {name}: there is no such file; the repository has "
                "deepspeed/zero2.json, zero3.json and zero3_offload.json"
            )
        if self.evaluation_strategy is not None:
            self.eval_strategy = self.evaluation_strategy
        if self.group_by_length:
            self.train_sampling_strategy = "group_by_length"
        if isinstance(self.report_to, str) and "," in self.report_to:
            self.report_to = self.report_to.split(",")
        self._map_warmup()
        if self.gradient_checkpointing and hasattr(self, "activation_checkpointing"):
            self.activation_checkpointing = True  # its name in the newer releases of version 5
        if not torch.accelerator.is_available():
            self.use_cpu = True
        if self.tf32:
            if not self.use_cpu and transformers.utils.is_torch_tf32_available():
                # The way of transformers keeps torch 2.9 and 2.10 from compiling anything.
                torch.set_float32_matmul_precision("high")
            self.tf32 = None
        if self.optim == "adamw_torch" and not (self.use_cpu or self.deepspeed):
            # The same update, without a copy of all weights in memory while it is made.
            self.optim = "adamw_torch_fused"
        if self.ddp_find_unused_parameters is None:
            self.ddp_find_unused_parameters = False
        # The collator makes the inputs; the trainer looks for non-finite losses itself.
        self.remove_unused_columns = False
        self.prediction_loss_only = True
        self.logging_nan_inf_filter = False
        self.label_names = ["labels"]
        if self.disable_tqdm is None:  # in a file the bar would stand between the metric lines
            self.disable_tqdm = not sys.stderr.isatty()
        if self.deepspeed or torch.cuda.device_count() > 1:
            set_single_process()
        super().__post_init__()

    def _map_warmup(self) -> None:
        if not 0 <= self.warmup_ratio < 1:
            said = "it is a fraction of all steps, 0 <= r < 1"
            raise ValueError(f"--warmup_ratio is {self.warmup_ratio}: {said}")
        if self.warmup_ratio and self.warmup_steps:
            raise ValueError(
                f"--warmup_ratio {self.warmup_ratio} and --warmup_steps {self.warmup_steps} "
                "contradict each other: give one of them"
            )
        if self.warmup_ratio:
            self.warmup_steps = self.warmup_ratio

    @property
    def directory(self) -> Path:
        assert self.output_dir is not None, "refused by `__post_init__`"
        return Path(self.output_dir)

    @property
    def trackers(self) -> list[str]:
        assert isinstance(self.report_to, list), self.report_to
        return self.report_to

    @property
    def zero_stage(self) -> int | None:
        """DeepSpeed's ZeRO stage; None without DeepSpeed."""
        if not self.deepspeed:
            return None
        return int(self.hf_deepspeed_config.get_value("zero_optimization.stage", 0))

    @property
    def deepspeed_content(self) -> dict[str, Any]:
        """The content of the DeepSpeed file as it is written, "auto" included."""
        from accelerate.utils.deepspeed import HfDeepSpeedConfig

        return HfDeepSpeedConfig(self.deepspeed).config

    @property
    def tree_budget(self) -> int:
        # No more than a padded pass, so that a command that fitted in memory still does.
        padded = self.model_max_length * self.per_device_train_batch_size
        return padded if self.tree_tokens is None else self.tree_tokens

    @property
    def step_examples(self) -> int:
        """Examples in one optimizer step, over all processes and accumulation steps."""
        per_pass = self.per_device_train_batch_size * self.world_size
        return per_pass * self.gradient_accumulation_steps


class Arguments(NamedTuple):
    """A whole command line."""

    model: ModelArguments
    lora: LoraArguments
    data: DataArguments
    training: TrainingArguments


def parse(argv: list[str] | None = None) -> Arguments:
    groups: Any = (ModelArguments, LoraArguments, DataArguments, TrainingArguments)
    parser = transformers.HfArgumentParser(
        groups,
        prog="train_mem.py",
        usage="%(prog)s --model_name_or_path M --data_path D --output_dir O [...], see --help",
        allow_abbrev=False,
    )
    if unknown := parser.parse_known_args(argv)[1]:
        known = [name for action in parser._actions for name in action.option_strings]
        raise ValueError(unknown_flags(unknown, known))
    return Arguments(*parser.parse_args_into_dataclasses(argv, look_for_args_file=False))
