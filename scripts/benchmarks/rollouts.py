"""How many tokens per second of processor time rollouts cost: stock FastChat, HF generate, ours.

    python scripts/benchmarks/rollouts.py
    python scripts/benchmarks/rollouts.py --rounds 5 --json rollouts.json

Side by side in one run, on one random Llama and the same GSM8K prompts of about 400 tokens:
(a) controller and worker of stock fschat 0.2.36, one request at a time through the controller;
(b) `generate` of transformers on batches of 32; (c) our controller, worker and driver with 64
episodes in flight; 16 samples of a problem by (a) and (c); `workflow_gen.py` from beginning to end
beside the engine alone on the same requests. The systems take turns, round by round, so that what
else the machine does hits all of them; compare the ratios, not the rates.

Reads   data/gsm8k/test.jsonl, or else the embedded problems; --data_path gives another file.
Writes  a markdown table to standard output; --json writes every measurement.

Every process uses one thread. Ctrl-C ends with what the complete rounds have measured. The stock
package is installed once, into .cache/stock-fschat.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import ROOT, parser, spread, train_tokenizer

SAMPLES = 16
TURNS = 2
STOCK, HF, OURS = "(a) stock, one by one", "(b) HF generate", "(c) ours"
STOCK_BEST, OURS_BEST = f"(a) stock, {SAMPLES} samples", f"(c) ours, {SAMPLES} samples"
WORKFLOW, ENGINE = f"workflow_gen.py, {TURNS} turns", "its requests, engine alone"
RATIOS = {
    "(c) / (a)": (OURS, STOCK, 8.0),
    "(c) / (b)": (OURS, HF, 1.7),
    f"best of {SAMPLES}, (c) / (a)": (OURS_BEST, STOCK_BEST, 7.0),
    "workflow_gen.py / engine alone": (WORKFLOW, ENGINE, 0.9),
}
"""What is divided by what, and the bar."""
VOCABULARY = 704
"""So that a GSM8K question behind the instruction and the worked example has about 400 tokens."""


@dataclass(frozen=True)
class Timing:
    """One measurement; times in seconds."""

    system: str
    tokens: int
    server: float
    """Processor time of the processes that serve."""
    client: float
    """Processor time of this process and of workflow_gen.py."""
    wall: float

    @property
    def rate(self) -> float:
        return self.tokens / self.server


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    found = parser(__doc__)
    add = found.add_argument
    add("--rounds", type=int, default=3, help="measurements of every system; default 3")
    add("--problems", type=int, default=64, help="problems per round of ours; default 64")
    add("--stock_problems", type=int, default=4, help="of these, for stock; default 4")
    add("--max_new_tokens", type=int, default=128, help="limit of an answer; default 128")
    add("--concurrency", type=int, default=64, help="our episodes in flight; default 64")
    add("--batch", type=int, default=32, help="prompts per call of HF generate; default 32")
    add("--data_path", type=Path, help="problems of GSM8K, one JSON object per line")
    add("--stock_env", type=Path, help="environment of stock fschat; default .cache/stock-fschat")
    add("--json", type=Path, help="write all measurements to this file")
    args = found.parse_args(argv)
    for name in ("rounds", "problems", "stock_problems", "max_new_tokens", "concurrency", "batch"):
        if getattr(args, name) < 1:
            found.error(f"--{name} is {getattr(args, name)}: give 1 or more")
    if args.data_path and not args.data_path.is_file():
        found.error(f"--data_path {args.data_path} is not a file")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    # Read when torch and DeepSpeed are imported, here and in every process that is started.
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ |= {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    timings, facts = measure(args)
    print_tables(timings, facts)
    if args.json:
        found = {"facts": facts, "timings": [asdict(timing) for timing in timings]}
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def write_problems(count: int, given: Path | None, directory: Path) -> tuple[Path, str]:
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


def save_model(directory: Path, texts: list[str]) -> Path:
    """Write a checkpoint with random weights, 6.3 M parameters, and its tokenizer."""
    import torch
    from rollout_systems import CONTEXT
    from transformers import LlamaConfig, LlamaForCausalLM

    special = ["<pad>", "<|im_end|>", "<|im_start|>"]
    tokenizer = train_tokenizer(
        texts, VOCABULARY, special, "chatml", pad_token="<pad>", eos_token="<|im_end|>"
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=256,
            intermediate_size=704,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=4,
            max_position_embeddings=CONTEXT,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def measure(args: argparse.Namespace) -> tuple[list[Timing], dict[str, object]]:
    import stock_fschat
    from rollout_systems import HuggingFace, Ours, Replay, Stock
    from transformers.utils import logging as hub_logging

    import envs

    hub_logging.disable_progress_bar()
    python = stock_fschat.make(args.stock_env or stock_fschat.DEFAULT)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        problems, source = write_problems(args.problems, args.data_path, directory)
        env = envs.make("gsm8k", problems)
        dialogues = [env.opening(i) for i in range(args.problems)]
        texts = [dialogue[-1]["content"] for dialogue in dialogues]
        checkpoint = save_model(directory / "model", texts)
        hf = HuggingFace(checkpoint, args)
        replay = Replay(checkpoint, problems, args.concurrency)
        ours = stack.enter_context(Ours(checkpoint, problems, directory, args))
        stock = stack.enter_context(Stock(python, checkpoint, directory, args))
        facts = describe(args, source, [hf.length(dialogue) for dialogue in dialogues])
        ours.rollout(range(4))
        stock.one_by_one(dialogues[:1])
        timings: list[Timing] = []
        try:
            for number in range(args.rounds):
                found = [*one_round(args, number, dialogues, stock, hf, ours)]
                timings += [*found, *end_to_end(args, number + 1, ours, replay)]
                print(f"round {number + 1} of {args.rounds} done", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            if not timings:
                raise
            facts["interrupted"] = "the rounds that were complete count"
    return timings, facts | {"load_after": os.getloadavg()[0]}


def one_round(args, number, dialogues, stock, hf, ours) -> Iterable[Timing]:
    """Every system once; which goes first changes from round to round."""
    few, seed = dialogues[: args.stock_problems], 1000 + number
    best = range(number, number + 1)
    runs: list[tuple[str, object, Callable[[], int]]] = [
        (STOCK, stock, lambda: stock.one_by_one(few)),
        (OURS, ours, lambda: ours.rollout(range(args.problems), seed=seed)),
        (HF, hf, lambda: hf.batches(dialogues[: args.batch])),
        (STOCK_BEST, stock, lambda: stock.one_by_one(dialogues[:1], SAMPLES)),
        (OURS_BEST, ours, lambda: ours.rollout(best, SAMPLES, seed)),
    ]
    turned = number % len(runs)
    for name, system, run in runs[turned:] + runs[:turned]:
        yield timed(name, system.processes, run)


def end_to_end(args, seed, ours, replay) -> Iterable[Timing]:
    """`workflow_gen.py`, then its requests to the engine alone."""

    def workflow() -> int:
        return replay.prepare(ours.workflow(TURNS, seed), args.max_new_tokens, seed)

    yield timed(WORKFLOW, ours.processes, workflow)
    yield timed(ENGINE, [], replay.run)
    if replay.differing():
        raise RuntimeError(f"{replay.differing()} answers of the replay are not those of the run")


def timed(name: str, processes: list, run: Callable[[], int]) -> Timing:
    """Measure one call: without processes of its own, the system is in this process."""
    before, started = cpu_seconds(processes), time.perf_counter()
    own = os.times()
    tokens = run()
    wall, now = time.perf_counter() - started, os.times()
    here = sum(now[:4]) - sum(own[:4])
    server = cpu_seconds(processes) - before if processes else here
    return Timing(name, tokens, server, here if processes else 0.0, wall)


def cpu_seconds(processes: list) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def describe(args: argparse.Namespace, source: str, lengths: list[int]) -> dict[str, object]:
    middle = statistics.median(lengths)
    return {
        "problems": source,
        "prompt_tokens": f"{min(lengths)} to {max(lengths)}, median {middle:g}",
        "requests": {"ours": args.problems, "stock": args.stock_problems, "hf": args.batch},
        "max_new_tokens": args.max_new_tokens,
        "rounds": args.rounds,
        "processors": os.cpu_count(),
        "load_before": os.getloadavg()[0],
    }


def print_tables(timings: list[Timing], facts: dict[str, object]) -> None:
    print("\n".join(f"- {name}: {value}" for name, value in facts.items()) + "\n")
    by_system = defaultdict(list)
    for timing in timings:
        by_system[timing.system].append(timing)
    print("| system | tokens per round | tokens / CPU s of the servers | with the client | / s |")
    print("|---|---|---|---|---|")
    for name, found in by_system.items():
        cells = [
            f"{statistics.mean(each.tokens for each in found):.0f}",
            spread([each.rate for each in found]),
            spread([each.tokens / (each.server + each.client) for each in found]),
            spread([each.tokens / each.wall for each in found]),
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    print("\n| ratio, servers only | median (range over the rounds) | bar |\n|---|---|---|")
    for name, (one, other, bar) in RATIOS.items():
        pairs = zip(by_system[one], by_system[other], strict=True)
        print(f"| {name} | {spread([a.rate / b.rate for a, b in pairs], '.2f')} | {bar:g} |")


if __name__ == "__main__":
    sys.exit(main())
