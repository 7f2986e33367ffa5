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
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench import failed_row, parser
from engine import SIZES, build_model
from training import build_tokenizer
from training_modes import LENGTH, OneStep, ours, recompute, trl

from fastchat.train.data.rwr_dataset import Example
from fastchat.train.prefix_tree.trie import divide

PREAMBLE, QUESTION, ATTEMPT = 330, 100, 150
FLASH, TRL = "ours, padded, FlashAttention", "TRL, batch 1"


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
    rows, failed = [], False
    with tempfile.TemporaryDirectory() as directory:
        for name, (build, computed) in programs(step, Path(directory), args.device).items():
            try:
                seconds, parameters, attention, peak = measure(build, args)
            except Exception as error:  # the others are measured all the same
                failed = True
                rows.append(failed_row(name, error, 4))
                continue
            mfu = 6 * parameters * computed / seconds / rate
            rows.append(f"| {name} | {full / seconds:,.0f} | {mfu:.1%} | {peak} | {attention} |")
            print(f"{name}: measured", flush=True)
    rows += [f"| {name} | left out: {why} | | | |" for name, why in left_out(args.device).items()]
    head = "| program | row tokens/s | MFU | peak GB | attention |\n|---|---|---|---|---|"
    print("", head, *rows, sep="\n")
    return int(failed)


def programs(step: OneStep, directory: Path, device: str) -> dict[str, tuple[Any, int]]:
    """For each program how it is built on a model, and the tokens that it computes."""
    common = {"gradient_checkpointing": True, "bf16": device == "cuda", "use_cpu": device == "cpu"}
    full = sum(step.lengths)
    # As the trainer divides the step by default, at batches of 1.
    (passes,) = divide(step.prefixes, range(len(step)), LENGTH, 1)
    shared = sum(sum(step.prefixes.arrange(rows)[1]) for rows in passes)
    padded = {"batching": "padded"}
    found = {
        "ours": (partial(ours, step=step, directory=directory, **common), full - shared),
        "ours, padded": (partial(ours, step=step, directory=directory, **padded, **common), full),
    }
    flash = partial(with_flash, step=step, directory=directory, **padded, **common)
    rows = {"examples": step.examples, "directory": directory}
    found |= {FLASH: (flash, full), TRL: (partial(with_trl, **rows, **common), full)}
    return {name: program for name, program in found.items() if name not in left_out(device)}


def left_out(device: str) -> dict[str, str]:
    """The programs that something is missing for, and what."""
    missing = [name for name in ("trl", "datasets") if not importlib.util.find_spec(name)]
    found = {TRL: f"pip install {' '.join(missing)}"} if missing else {}
    if device != "cuda":
        return found | {FLASH: "it needs a GPU"}
    if not importlib.util.find_spec("flash_attn"):
        found[FLASH] = "pip install flash-attn --no-build-isolation"
    return found


def with_trl(model: Any, **settings: Any) -> Any:
    return trl(model, build_tokenizer(["The answer is 42."]), **settings)


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


def measure(build: Any, args: argparse.Namespace) -> tuple[float, int, str, str]:
    """Median seconds of a step, the model's parameters, its attention code, peak memory in GB."""
    cuda = args.device == "cuda"
    gc.collect()  # what is left of the program before
    if cuda:
        torch.cuda.empty_cache()
    model = build_model(args.size, torch.device(args.device))
    parameters = model.num_parameters()
    work = build(model)
    recompute(model)
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
    attention = model.config._attn_implementation
    return statistics.median(seconds), parameters, attention, peak


def matrix_rate(device: str) -> float:
    """Operations per second of a large matrix product, the best of five."""
    size, dtype = (8192, torch.bfloat16) if device == "cuda" else (512, torch.float32)
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(300 if device == "cuda" else 5):  # an idle GPU's clocks take a while to rise
        started = time.perf_counter()
        matrix @ matrix
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


if __name__ == "__main__":
    sys.exit(main())
