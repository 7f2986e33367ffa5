"""How fast a Llama of random weights is trained: trees, padded batches, and TRL's SFTTrainer.

    python scripts/benchmarks/training_gpu.py --size 7b      # a GPU with 80 GB
    python scripts/benchmarks/training_gpu.py --size tiny --device cpu --rows 8 --runs 1

Rows are trajectories of random tokens, two turns each: a preamble of 330 that all share, a question
of 100, attempts and feedback of 150. Timed are forward and backward passes of one optimizer step,
bfloat16 on a GPU, with gradient checkpointing as published. Row tokens count every row in full;
MFU is 6 operations for each parameter and computed token, by the rate of a large matrix product
that is measured here. Prints a markdown table.
"""

import argparse
import gc
import importlib.util
import statistics
import sys
import tempfile
import time
import traceback
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench import parser
from engine import SIZES
from training import build_tokenizer
from training_modes import LENGTH, OneStep, ours, trl

from fastchat.train.data.rwr_dataset import Example
from fastchat.train.prefix_tree.trie import divide

PREAMBLE, QUESTION, ATTEMPT = 330, 100, 150


def parse_args() -> argparse.Namespace:
    found = parser(__doc__)
    found.add_argument("--size", choices=SIZES, default="tiny", help="the model; default tiny")
    found.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="default cuda")
    found.add_argument("--rows", type=int, default=64, help="of a step; default 64")
    found.add_argument("--runs", type=int, default=3, help="timed runs; default 3")
    args = found.parse_args()
    if min(args.rows, args.runs) < 1:
        found.error("--rows and --runs must be above 0")
    if args.device == "cuda" and not torch.cuda.is_available():
        found.error("--device cuda: torch sees no GPU; --device cpu --size tiny is a smoke run")
    return args


def main() -> int:
    args = parse_args()
    step = trajectories(args.rows, SIZES[args.size]["vocab_size"])
    rate = matrix_rate(args.device)
    print(f"{args.size}, {args.rows} rows, {rate / 1e12:.1f} TFLOP/s in a matrix product")
    full = sum(step.lengths)
    rows, failed = [], []
    with tempfile.TemporaryDirectory() as directory:
        for name, (build, computed) in programs(step, Path(directory), args.device).items():
            try:
                seconds, parameters, peak = measure(build, args)
            except Exception as error:  # the others are measured all the same
                traceback.print_exc()
                failed.append(name)
                said = " ".join(str(error).split())[:80]
                rows.append(f"| {name} | failed: {type(error).__name__} {said} | | |")
                continue
            mfu = 6 * parameters * computed / seconds / rate
            rows.append(f"| {name} | {full / seconds:,.0f} | {mfu:.1%} | {peak} |")
            print(f"{name}: measured", flush=True)
    print("\n| program | row tokens/s | MFU | peak GB |\n|---|---|---|---|", *rows, sep="\n")
    return int(bool(failed))


def programs(step: OneStep, directory: Path, device: str) -> dict[str, tuple[Any, int]]:
    """For each program how it is built on a model, and the tokens that it computes."""
    common = {"gradient_checkpointing": True, "bf16": device == "cuda", "use_cpu": device == "cpu"}
    full = sum(step.lengths)
    # As the trainer divides the step by default, at batches of 1.
    (passes,) = divide(step.prefixes, range(len(step)), LENGTH, 1)
    shared = sum(sum(step.prefixes.arrange(rows)[1]) for rows in passes)
    tokenizer = build_tokenizer(["The answer is 42."])
    padded = {"batching": "padded"}
    found = {
        "ours": (partial(ours, step=step, directory=directory, **common), full - shared),
        "ours, padded": (partial(ours, step=step, directory=directory, **padded, **common), full),
    }
    if device == "cuda" and importlib.util.find_spec("flash_attn"):
        flash = partial(with_flash, step=step, directory=directory, **padded, **common)
        found["ours, padded, FlashAttention"] = (flash, full)
    else:
        print("no row of FlashAttention: it needs a GPU and the package flash-attn")
    if not (importlib.util.find_spec("trl") and importlib.util.find_spec("datasets")):
        print("TRL is not installed (pip install trl): no row of it")
        return found
    rows = {"tokenizer": tokenizer, "examples": step.examples, "directory": directory}
    return found | {"TRL, batch 1": (partial(trl, **rows, **common), full)}


def with_flash(model: Any, **settings: Any) -> Any:
    model.set_attn_implementation("flash_attention_2")
    return ours(model, **settings)


def trajectories(rows: int, vocabulary: int) -> OneStep:
    """Rows of two-turn trajectories, consecutive ones of the same."""
    draw = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(vocabulary, (count,), generator=draw).tolist()

    preamble, examples = tokens(PREAMBLE), []
    while len(examples) < rows:
        context = preamble + tokens(QUESTION)
        for turn in (1, 2):
            attempt = tokens(ATTEMPT)
            name = f"{len(examples)}-{turn}"
            examples.append(Example(name, context + attempt, len(context), 1.0, 1.0))
            context = context + attempt + tokens(ATTEMPT)
    return OneStep(examples[:rows])


def measure(build: Any, args: argparse.Namespace) -> tuple[float, int, str]:
    """Median seconds of a step, the model's parameters, and its peak memory in GB."""
    from transformers import LlamaConfig, LlamaForCausalLM

    cuda = args.device == "cuda"
    config = LlamaConfig(**SIZES[args.size], max_position_embeddings=4096)
    with torch.device(args.device):
        model = LlamaForCausalLM(config)
    model = model.to(torch.bfloat16) if cuda else model
    parameters = model.num_parameters()
    work = build(model)
    # Trainers turn it on in train(), which is not called here.
    newer = getattr(model, "activation_checkpointing_enable", None)
    (newer or model.gradient_checkpointing_enable)()
    model.train()
    work()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(args.runs):
        started = time.perf_counter()
        work()
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    peak = f"{torch.cuda.max_memory_allocated() / 1e9:.1f}" if cuda else "-"
    del work, model
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
    return statistics.median(seconds), parameters, peak


def matrix_rate(device: str) -> float:
    """Operations per second of a large matrix product, the best of five."""
    size, dtype = (8192, torch.bfloat16) if device == "cuda" else (512, torch.float32)
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        matrix @ matrix
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


if __name__ == "__main__":
    sys.exit(main())
