"""Tiny random checkpoints, built in seconds and without a network, for the tests.

The tokenizer is byte-level BPE without merges worth mentioning: every text round-trips, and its
special tokens are those of the model family whose chat template is tested.
"""

from pathlib import Path
from typing import Any

SPECIAL_TOKENS: dict[str, dict[str, Any]] = {
    "llama-2": {"bos": "<s>", "eos": "</s>", "more": []},
    "llama-3": {
        "bos": "<|begin_of_text|>",
        "eos": "<|end_of_text|>",
        "more": ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    },
    "mistral": {"bos": "<s>", "eos": "</s>", "more": ["[INST]", "[/INST]"]},
    "chatml": {"bos": None, "eos": "<|im_end|>", "more": ["<|im_start|>"]},
    "zephyr": {"bos": "<s>", "eos": "</s>", "more": []},
}

ENDS = ("bos", "eos", "pad")
CORPUS = [
    "The answer is incorrect. Please try again. Let us think step by step.",
    "How many apples does she have now? 12 + 30 = 42, so the answer is \\boxed{42}.",
    "system user assistant [INST] [/INST] <<SYS>> question answer first second",
] * 20


def tiny_tokenizer(template: str | None = "chatml", *, installed: bool = True):
    """A byte-level tokenizer with the special tokens of `template` (a name of BUILT_IN).

    Args:
        template: whose special tokens to have; None gives the tokens of chatml.
        installed: write the template into the tokenizer (False: a checkpoint without one).
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from fastchat.conversation import BUILT_IN

    names = SPECIAL_TOKENS[template or "chatml"]
    special = ["<pad>", *filter(None, [names["bos"], names["eos"]]), *names["more"]]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    own = {"special_tokens": special, "initial_alphabet": alphabet, "show_progress": False}
    raw.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=400, **own))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token=names["bos"],
        eos_token=names["eos"],
        pad_token="<pad>",
        additional_special_tokens=names["more"],
        clean_up_tokenization_spaces=False,
    )
    if installed and template is not None:
        tokenizer.chat_template = BUILT_IN[template]
    return tokenizer


def sentencepiece_like():
    """A tokenizer that writes blanks as ▁ and falls back to bytes, as Llama 2's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", "H", "i", "▁H", "▁Hi", "▁t", "o", "▁to"]
    merges = [("▁", "H"), ("▁H", "i"), ("▁t", "o")]
    ids = {piece: i for i, piece in enumerate(pieces)}
    raw = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", byte_fallback=True))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    raw.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    raw.add_special_tokens(["<s>", "</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")


def tiny_config(family: str = "llama", vocab_size: int = 400, **changes: Any):
    """The configuration of a random model of that family, about 0.1 M parameters."""
    import transformers as hf

    sizes: dict[str, Any] = {"vocab_size": vocab_size, "hidden_size": 48, "intermediate_size": 96}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    sizes |= {"max_position_embeddings": 2048, "head_dim": 12, "initializer_range": 0.1}
    if family == "mistral":
        sizes["sliding_window"] = 16
    name = "Gemma3Text" if family == "gemma3" else family.capitalize()
    return getattr(hf, f"{name}Config")(**{**sizes, **changes})


def save_tiny_model(
    directory: str | Path,
    family: str = "llama",
    template: str | None = "chatml",
    *,
    installed: bool = True,
    seed: int = 0,
    **changes: Any,
) -> Path:
    """Write a random-weight checkpoint with its tokenizer into `directory` and return it."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = tiny_tokenizer(template, installed=installed)
    torch.manual_seed(seed)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ENDS}
    config = tiny_config(family, vocab_size=len(tokenizer), **ids, **changes)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return Path(directory)
