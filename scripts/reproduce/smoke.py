"""What `SMOKE=1` puts in the place of a large model and of an expert with a key.

    python scripts/reproduce/smoke.py --template llama-2 --output_dir log/tiny

Writes  --output_dir: a Llama of 0.1 million random weights that reads bytes, with the chat template
        of the model family; does nothing where it is complete. It learns nothing that matters.

`scripts/reproduce/smoke.py:reference` as a model's name is an expert that knows the answers.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

SPECIAL_TOKENS = {
    "llama-2": ("<s>", "</s>", []),
    "llama-3": (
        "<|begin_of_text|>",
        "<|eot_id|>",
        ["<|start_header_id|>", "<|end_header_id|>"],
    ),
    "mistral": ("<s>", "</s>", ["[INST]", "[/INST]"]),
    "chatml": ("<|endoftext|>", "<|im_end|>", ["<|im_start|>"]),
}
"""Template -> token that begins a text, token that ends an answer, further tokens."""
CONTEXT = 8192
"""Longest text in bytes."""
PAD = "<pad>"


def reference(problem: dict[str, Any], messages: list[dict[str, str]]) -> str:
    """The answer of the data set, in a box."""
    from envs.grading.answers import last_box

    if "solution" in problem:
        return rf"The answer is \boxed{{{last_box(problem['solution'])}}}."
    return rf"The answer is \boxed{{{problem['answer'].rpartition('####')[2].strip()}}}."


def tokenizer_for(template: str):
    """One token per byte, and the special tokens of the family."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from fastchat.chat_templates import BUILT_IN

    begin, end, more = SPECIAL_TOKENS[template]
    names = [PAD, begin, end, *more, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    raw = Tokenizer(models.BPE(vocab={name: k for k, name in enumerate(names)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token=begin,
        eos_token=end,
        pad_token=PAD,
        additional_special_tokens=more,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = BUILT_IN[template]
    return tokenizer


def save(template: str, output_dir: Path) -> None:
    """Write the checkpoint beside its place, then rename it: it is whole or not there."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = tokenizer_for(template)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    partial = output_dir.with_name(f"{output_dir.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    LlamaForCausalLM(config).save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.replace(output_dir)


def main() -> int:
    """Make the checkpoint where it is missing; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--template", choices=SPECIAL_TOKENS, required=True, help="family of the chat template")
    add("--output_dir", type=Path, required=True, help="the checkpoint's folder")
    args = parser.parse_args()
    if not args.output_dir.exists():
        save(args.template, args.output_dir)
    return 0


if __name__ == "__main__":
    sys.exit(main())
