"""LoRA and QLoRA through peft: which matrices are added, what contradicts them, and adding them.

    python FastChat/fastchat/train/train_mem.py --use_lora True --lora_r 16 ...
    python FastChat/fastchat/train/train_lora.py --lora_r 16 --q_lora True ...

The flags are named as in FastChat's `train_lora.py`. The base model is frozen (with `--q_lora` in
4 bits); what is trained and saved is the adapter. The loss is that of full fine-tuning.
"""

import importlib.util
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast

import torch
import transformers
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config

from fastchat.model.adapters import fitting, is_adapter, require_peft

BIASES = ("none", "all", "lora_only")
EMBEDDINGS = ("embed_tokens", "lm_head")


def option(default: Any, text: str, *aliases: str) -> Any:
    return field(default=default, metadata={"help": text, "aliases": list(aliases)})


@dataclass
class LoraArguments:
    """Train an adapter instead of the whole model."""

    use_lora: bool = option(
        False, "freeze the model and train a LoRA adapter, which is all that is saved", "--lora"
    )
    lora_r: int = option(8, "rank of the added matrices")
    lora_alpha: int = option(16, "what is added is scaled with lora_alpha / lora_r")
    lora_dropout: float = option(0.05, "dropout before the added matrices (0 to 1)")
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "v_proj"],
        metadata={"help": "names of the linear layers that are adapted, or all-linear"},
    )
    lora_weight_path: str = option(
        "", "directory of an adapter to train further; empty is a new one"
    )
    lora_bias: str = option("none", f"biases that are trained too: {', '.join(BIASES)}")
    q_lora: bool = option(
        False, "keep the frozen model in 4 bits (bitsandbytes NF4); implies --use_lora"
    )

    @property
    def enabled(self) -> bool:
        return self.use_lora or self.q_lora

    @property
    def changed(self) -> list[str]:
        """The flags that say what the adapter is like and that differ from their defaults."""
        default = LoraArguments()
        names = [f.name for f in fields(self) if f.name not in ("use_lora", "q_lora")]
        return [name for name in names if getattr(self, name) != getattr(default, name)]

    def settings(self) -> dict[str, Any] | None:
        """What decides the result, by name; None without an adapter."""
        if not self.enabled:
            return None
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "use_lora"}


def lora_problems(lora: LoraArguments, model: str, zero_stage: int | None) -> list[str]:
    """What contradicts itself in these arguments, one line each."""
    if is_adapter(model):
        return [
            f"--model_name_or_path {model} is an adapter: to train it further give its base, with "
            f"--use_lora True --lora_weight_path {model}; or merge it first with python -m "
            "fastchat.model.apply_lora"
        ]
    if not lora.enabled:
        return [f"--{name} does nothing without --use_lora True" for name in lora.changed]
    problems = _value_problems(lora)
    if lora.lora_weight_path:
        problems += [
            f"--{name} contradicts --lora_weight_path: that adapter has its own; leave it out"
            for name in lora.changed
            if name != "lora_weight_path"
        ]
        if not is_adapter(lora.lora_weight_path):
            problems.append(
                f"--lora_weight_path {lora.lora_weight_path}: there is no adapter_config.json"
            )
    if lora.q_lora and zero_stage == 3:
        problems.append(
            "--q_lora with DeepSpeed ZeRO-3: matrices in 4 bits cannot be partitioned; use "
            "deepspeed/zero2.json, or --use_lora without --q_lora"
        )
    if lora.q_lora and importlib.util.find_spec("bitsandbytes") is None:
        problems.append("--q_lora needs the package bitsandbytes: pip install 'fschat[qlora]'")
    try:
        require_peft()
    except ValueError as error:
        problems.append(str(error))
    return problems


def _value_problems(lora: LoraArguments) -> list[str]:
    problems = []
    if lora.lora_r < 1 or lora.lora_alpha < 1:
        both = f"--lora_r {lora.lora_r} and --lora_alpha {lora.lora_alpha}"
        problems.append(f"{both} must be at least 1")
    if not 0 <= lora.lora_dropout < 1:
        problems.append(f"--lora_dropout is {lora.lora_dropout}: it must be from 0 to below 1")
    if lora.lora_bias not in BIASES:
        problems.append(f"--lora_bias {lora.lora_bias}: choose one of {', '.join(BIASES)}")
    embeddings = [name for name in lora.lora_target_modules if name in EMBEDDINGS]
    if embeddings:
        problems.append(
            f"--lora_target_modules {embeddings[0]} is the embedding or the output layer; name "
            "linear layers inside the blocks, or all-linear"
        )
    return problems


def check_targets(
    lora: LoraArguments,
    config: Any,
    args: transformers.TrainingArguments,
    trust_remote_code: bool = False,
) -> None:
    """Build the adapter on a model without memory, before weights are loaded."""
    import peft

    # transformers would partition this model, too.
    unset_hf_deepspeed_config()
    try:
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(
                config, trust_remote_code=trust_remote_code
            )
        with fitting(_title(lora), config.name_or_path):
            peft.get_peft_model(model, _config(lora))
    finally:
        if args.deepspeed:
            set_hf_deepspeed_config(args.hf_deepspeed_config)


def quantization(lora: LoraArguments, args: transformers.TrainingArguments) -> dict[str, Any]:
    """Options of `load_model` that keep the frozen model in 4 bits; none without `--q_lora`."""
    if not lora.q_lora:
        return {}
    config = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if args.bf16 else torch.float32,
    )
    return {"quantization_config": config, "device_map": {"": args.device}}


def keep_gradients(model: Any) -> None:
    """Keep a model in 4 bits from a shortcut for CPUs that ends training unnoticed.

    bitsandbytes 0.50 rewrites a layer that is once run without gradients (an evaluation), and no
    gradient flows back through its new form.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def add_adapter(model: Any, lora: LoraArguments, args: transformers.TrainingArguments) -> Any:
    """The model, frozen, with an adapter that is trained; the same one for the same `--seed`."""
    import peft

    if lora.q_lora:
        model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    transformers.set_seed(args.seed)
    with fitting(_title(lora), model.name_or_path):
        if lora.lora_weight_path:
            model = peft.PeftModel.from_pretrained(model, lora.lora_weight_path, is_trainable=True)
        else:
            model = peft.get_peft_model(model, _config(lora))
    if args.gradient_checkpointing:
        # A block that is computed again passes gradients on only if its input asks for them, and
        # the embeddings in front of the first block are frozen.
        model.enable_input_require_grads()
    base = Path(model.base_model.model.name_or_path)
    if base.is_dir():
        # The worker may be started in another directory.
        model.active_peft_config.base_model_name_or_path = str(base.resolve())
    return model


def _config(lora: LoraArguments) -> Any:
    import peft

    if lora.lora_weight_path:
        return peft.PeftConfig.from_pretrained(lora.lora_weight_path)
    targets = lora.lora_target_modules
    return peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.lora_r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules="all-linear" if targets == ["all-linear"] else targets,
        bias=cast("Literal['none', 'all', 'lora_only']", lora.lora_bias),
    )


def _title(lora: LoraArguments) -> str:
    targets = f"--lora_target_modules {' '.join(lora.lora_target_modules)}"
    return lora.lora_weight_path or targets
