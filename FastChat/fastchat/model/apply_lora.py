r"""Add a LoRA adapter into its base model and save the sum as a checkpoint of its own.

    python -m fastchat.model.apply_lora --lora-path checkpoints/adapter \
        --base-model-path meta-llama/Llama-2-7b-chat-hf --target-model-path checkpoints/merged

Reads   --lora-path, the base model.
Writes  --target-model-path: weights in the base model's dtype, configuration, and the tokenizer
        with the chat template of the adapter.

Serving needs no merge: the worker and `workflow_eval.py --model` take the adapter's directory.
"""

import argparse
from pathlib import Path

from fastchat.model.adapters import fitting, is_adapter, require_peft
from fastchat.model.model_adapter import (
    DTYPES,
    allow_saving,
    base_source,
    load_config,
    load_model,
    load_tokenizer,
    pick_dtype,
)
from fastchat.utils import Parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--lora-path", required=True, help="directory of the adapter")
    add("--base-model-path", help="its base model (the one that it names)")
    add("--target-model-path", required=True, help="directory for the result; must not exist yet")
    add("--device", default="cpu", help="where to add: cpu, cuda, ... (cpu)")
    add(
        "--dtype", default="auto", choices=DTYPES, help="of the result (auto: the base model's own)"
    )
    return parser.read(argv)


def apply_lora(
    lora: str, target: str | Path, base: str | None = None, device: str = "cpu", dtype: str = "auto"
) -> int:
    """Merge an adapter into `base` (None: the one that it names); returns the parameter count."""
    require_peft()
    if not is_adapter(lora):
        raise ValueError(f"{lora} holds no adapter_config.json; give the directory of an adapter")
    target = Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target} exists and is not empty; give another --target-model-path")
    from peft import PeftModel

    source = base_source(lora, base)
    saved_dtype = pick_dtype(dtype, device=None, config=load_config(source))
    tokenizer = load_tokenizer(lora, base=base)
    # The sum is rounded once, at the end.
    model = load_model(source, device=device, dtype="float32")
    with fitting(lora, source):
        merged = PeftModel.from_pretrained(model, lora).merge_and_unload()
    merged = allow_saving(merged.to(saved_dtype))
    merged.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return merged.num_parameters()


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    target = args.target_model_path
    try:
        count = apply_lora(args.lora_path, target, args.base_model_path, args.device, args.dtype)
    except ValueError as error:
        args.error(str(error))
    print(f"merged {args.lora_path} into {target}: {count:,} parameters")


if __name__ == "__main__":
    main()
