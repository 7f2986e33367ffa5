"""What `rollouts.py` measures on: a random Llama with its tokenizer, and problems."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CONTEXT = 2048
"""Longest prompt plus answer, in tokens."""
VOCABULARY = 704
"""Chosen so that a GSM8K question behind the instruction and the worked example takes about 400
tokens."""
SIZES = {
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": CONTEXT,
}


def write_problems(count: int, given: Path | None, directory: Path) -> tuple[Path, str]:
    """Write `count` problems as JSON lines; returns the file and where they come from.

    Args:
        count: how many.
        given: JSON lines of GSM8K; None takes data/gsm8k/test.jsonl, or the embedded problems
            where that was not fetched.
        directory: where the file goes.

    Raises:
        ValueError: the file has too few problems.
    """
    source = given or ROOT / "data/gsm8k/test.jsonl"
    name = f"GSM8K ({source.name})"
    if given is None and not source.is_file():
        source, name = directory / "train.jsonl", "embedded problems"
        words = [sys.executable, ROOT / "data/arithmetic.py", "--output_dir", directory]
        words += ["--train", str(count), "--test", "1"]
        subprocess.run(list(map(str, words)), check=True, stdout=subprocess.DEVNULL)
    with source.open(encoding="utf-8") as file:
        lines = list(itertools.islice(file, count))
    if len(lines) < count:
        raise ValueError(f"{source} has {len(lines)} problems, {count} are needed: give fewer")
    path = directory / "problems.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    return path, name


def save_model(directory: Path, dialogues: list[list[dict[str, str]]]) -> Path:
    """Write a checkpoint with random weights, 6.3 M parameters, and its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = train_tokenizer([chat[-1]["content"] for chat in dialogues])
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **SIZES,
        )
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def train_tokenizer(texts: list[str]) -> Any:
    """A byte-level BPE with the special tokens and the template of ChatML."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from fastchat.conversation import BUILT_IN

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<|im_end|>", "<|im_start|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<pad>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = BUILT_IN["chatml"]
    return tokenizer
