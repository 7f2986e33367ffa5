"""What the benchmarks share: this checkout on the path, medians with ranges, a tokenizer."""

import argparse
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "FastChat")]


def parser(description: str | None) -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(description=description, formatter_class=layout)


def spread(values: Sequence[float], form: str = ".0f") -> str:
    middle, low, high = (format(f(values), form) for f in (statistics.median, min, max))
    return f"{middle} ({low} to {high})"


def failed_row(name: object, error: Exception, cells: int) -> str:
    """A row of a markdown table that says in its first of so many cells what went wrong."""
    traceback.print_exception(error)
    while isinstance(error.__cause__, ModuleNotFoundError):  # transformers says it in other words
        error = error.__cause__
    said = " ".join(f"{type(error).__name__}: {error}".split()).replace("|", "/")[:160]
    if isinstance(error, ModuleNotFoundError) and error.name:
        said += f"; pip install {error.name.partition('.')[0].replace('_', '-')}"
    return f"| {name} | failed: {said} |{' |' * (cells - 1)}"


def ask(controller: str, what: str) -> dict[str, Any] | None:
    import requests

    try:
        return requests.post(f"{controller}/{what}", json={}, timeout=5).json()
    except (requests.RequestException, ValueError):
        return None


def wait_for(ready: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise RuntimeError(f"a server did not start within {seconds:g} s")
        time.sleep(0.1)


def train_tokenizer(
    texts: Iterable[str], size: int, special: Sequence[str], template: str, **names: str
) -> Any:
    """A byte-level BPE of so many tokens, with a chat template that is built in."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from fastchat.chat_templates import BUILT_IN

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, **names)
    tokenizer.chat_template = BUILT_IN[template]
    return tokenizer
