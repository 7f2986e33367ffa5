r"""How many tokens per second rollouts cost: stock FastChat, HF, vLLM, llama.cpp, ours.

    python scripts/benchmarks/rollouts.py
    python scripts/benchmarks/rollouts.py --rounds 5 --json rollouts.json
    python scripts/benchmarks/rollouts.py --model data/smollm2 --dtype bfloat16 --systems ours vllm
    python scripts/benchmarks/rollouts.py --model data/smollm2 --dtype bfloat16 \
        --systems ours llama.cpp --llama_server llama-server --gguf smollm2-bf16.gguf

Side by side in one run, on one random Llama, or `--model`, and the same GSM8K prompts of about 400
tokens: (a) controller and worker of stock fschat 0.2.36, one request at a time through the
controller; (b) `generate` of transformers on batches of 32; (c) our controller, worker and driver
with 64 episodes in flight; (d) the same with a vLLM as the engine (VLLM_BIN, or where
`scripts/setup.sh --vllm` put it), its default being compiled: `--vllm_args=--enforce-eager` is not.
(e) llama.cpp's server, asked by our driver. 16 samples of a problem by (a), (c) and (d) (llama.cpp
counts the tokens of one of them alone), episodes of 5 turns by (c), (d) and (e). The systems take
turns, round by round, so that what else the machine does hits all of them; compare the ratios, not
the rates, and on a busy machine only those per second of processor time.

Reads   data/gsm8k/test.jsonl, or else the embedded problems; --data_path gives another file.
Writes  a markdown table to standard output; --json writes every measurement.

Every process uses `--threads`. Ctrl-C ends with what the complete rounds have measured. The stock
package is installed once, into .cache/stock-fschat.
"""

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
from typing import Any

from bench import ROOT, parser, spread, train_tokenizer

SAMPLES = 16
EPISODE = 5
"""Turns of an evaluation."""
SYSTEMS = ("stock", "hf", "ours", "vllm", "llama.cpp")
OURS_DRIVE = {"ours", "vllm", "llama.cpp"}
"""Asked by our driver."""
STOCK, HF, OURS = "(a) stock, one by one", "(b) HF generate", "(c) ours"
STOCK_BEST, OURS_BEST = f"(a) stock, {SAMPLES} samples", f"(c) ours, {SAMPLES} samples"
VLLM, VLLM_BEST = "(d) vLLM", f"(d) vLLM, {SAMPLES} samples"
OURS_TURNS, VLLM_TURNS = f"(c) ours, {EPISODE} turns", f"(d) vLLM, {EPISODE} turns"
LLAMA, LLAMA_TURNS = "(e) llama.cpp", f"(e) llama.cpp, {EPISODE} turns"
RATIOS = {
    "(c) / (a)": (OURS, STOCK, 8.0),
    "(c) / (b)": (OURS, HF, 1.7),
    f"best of {SAMPLES}, (c) / (a)": (OURS_BEST, STOCK_BEST, 7.0),
    "(c) / (d)": (OURS, VLLM, 1.0),
    f"best of {SAMPLES}, (c) / (d)": (OURS_BEST, VLLM_BEST, 1.3),
    f"{EPISODE} turns, (c) / (d)": (OURS_TURNS, VLLM_TURNS, 1.3),
    "(c) / (e)": (OURS, LLAMA, 1.0),
    f"{EPISODE} turns, (c) / (e)": (OURS_TURNS, LLAMA_TURNS, 1.0),
}
"""What is divided by what, and the bar, which for vLLM and llama.cpp is one by the clock."""
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
    """Processor time of this process."""
    wall: float

    @property
    def rate(self) -> float:
        return self.tokens / self.server

    @property
    def speed(self) -> float:
        return self.tokens / self.wall


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    found = parser(__doc__)
    add = found.add_argument
    add("--systems", nargs="+", choices=SYSTEMS, help="default stock hf ours")
    add("--model", type=Path, help="checkpoint; default a random Llama of 6.3 M parameters")
    add("--dtype", default="float32", choices=("float32", "bfloat16"), help="default float32")
    add("--threads", type=int, default=1, help="of every process; default 1")
    add("--vllm_args", default="", help="further options of `vllm serve`, in one string")
    add("--llama_server", type=Path, help="the program of llama.cpp")
    add("--gguf", type=Path, help="--model for it (convert_hf_to_gguf.py --outtype bf16 or f32)")
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
    args.systems = args.systems or ["stock", "hf", "ours"]
    counts = ("rounds", "problems", "stock_problems", "max_new_tokens", "concurrency", "batch")
    for name in (*counts, "threads"):
        if getattr(args, name) < 1:
            found.error(f"--{name} is {getattr(args, name)}: give 1 or more")
    if args.model and not (args.model / "config.json").is_file():
        found.error(f"--model {args.model} is no directory with a checkpoint")
    needed = ["llama_server", "gguf"] if "llama.cpp" in args.systems else []
    for name in ("data_path", *needed):
        path = getattr(args, name)
        if name in needed and path is None:
            found.error(f"--systems llama.cpp needs --{name}")
        if path and not path.is_file():
            found.error(f"--{name} {path} is not a file")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    # Read when torch and DeepSpeed are imported, here and in every process that is started.
    os.environ |= {"OMP_NUM_THREADS": str(args.threads), "TOKENIZERS_PARALLELISM": "false"}
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
    from transformers.utils import logging as hub_logging

    import envs
    from fastchat.conversation import ChatTemplate
    from fastchat.model.model_adapter import load_tokenizer

    hub_logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        problems, source = write_problems(args.problems, args.data_path, directory)
        env = envs.make("gsm8k", problems)
        dialogues = [env.opening(i) for i in range(args.problems)]
        texts = [dialogue[-1]["content"] for dialogue in dialogues]
        checkpoint = args.model or save_model(directory / "model", texts)
        template = ChatTemplate(load_tokenizer(str(checkpoint)))
        facts = describe(args, source, [len(template.prompt_ids(d)) for d in dialogues])
        systems = start(args, checkpoint, problems, directory, stack)
        for name in OURS_DRIVE & systems.keys():
            systems[name].rollout(range(4))
        if "stock" in systems:
            systems["stock"].one_by_one(dialogues[:1])
        timings: list[Timing] = []
        try:
            for number in range(args.rounds):
                timings += [*one_round(args, number, dialogues, systems)]
                print(f"round {number + 1} of {args.rounds} done", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            if not timings:
                raise
            facts["interrupted"] = "the rounds that were complete count"
        for name, system in systems.items():
            if getattr(system, "processes", None):
                facts[f"peak memory of {name}, MB"] = round(sum(map(peak, system.processes)))
    return timings, facts | {"load_after": os.getloadavg()[0]}


def start(args, checkpoint: Path, problems: Path, directory: Path, stack) -> dict[str, Any]:
    """The systems that are compared, by their names."""
    import stock_fschat
    from rollout_systems import HuggingFace, LlamaCpp, Ours, Stock

    def stock() -> Stock:
        python = stock_fschat.make(args.stock_env or stock_fschat.DEFAULT)
        return stack.enter_context(Stock(python, checkpoint, directory, args))

    def ours(engine: str, *options: str) -> Ours:
        (directory / engine).mkdir()
        worker = ["--engine", engine, *options]
        return stack.enter_context(Ours(checkpoint, problems, directory / engine, args, worker))

    makers = {
        "hf": lambda: HuggingFace(checkpoint, args),
        "ours": lambda: ours("embedded"),
        "vllm": lambda: ours("vllm", f"--vllm-args={args.vllm_args}"),
        "llama.cpp": lambda: stack.enter_context(LlamaCpp(args.gguf, problems, args)),
        "stock": stock,
    }
    return {name: make() for name, make in makers.items() if name in args.systems}


def one_round(args, number, dialogues, systems) -> Iterable[Timing]:
    """Every system once; which goes first changes from round to round."""
    few, seed = dialogues[: args.stock_problems], 1000 + number
    all_, best = range(args.problems), range(number, number + 1)
    runs: list[tuple[str, str, Callable[[Any], int]]] = [
        (STOCK, "stock", lambda stock: stock.one_by_one(few)),
        (OURS, "ours", lambda ours: ours.rollout(all_, seed=seed)),
        (VLLM, "vllm", lambda ours: ours.rollout(all_, seed=seed)),
        (LLAMA, "llama.cpp", lambda ours: ours.rollout(all_, seed=seed)),
        (HF, "hf", lambda hf: hf.batches(dialogues[: args.batch])),
        (STOCK_BEST, "stock", lambda stock: stock.one_by_one(dialogues[:1], SAMPLES)),
        (OURS_BEST, "ours", lambda ours: ours.rollout(best, SAMPLES, seed)),
        (VLLM_BEST, "vllm", lambda ours: ours.rollout(best, SAMPLES, seed)),
    ]
    if {"vllm", "llama.cpp"} & systems.keys():
        episode = {"seed": seed, "turns": EPISODE}
        runs += [
            (OURS_TURNS, "ours", lambda ours: ours.rollout(all_, **episode)),
            (VLLM_TURNS, "vllm", lambda ours: ours.rollout(all_, **episode)),
            (LLAMA_TURNS, "llama.cpp", lambda ours: ours.rollout(all_, **episode)),
        ]
    runs = [run for run in runs if run[1] in systems]
    turned = number % len(runs)
    for name, key, run in runs[turned:] + runs[:turned]:
        yield timed(name, systems[key].processes, lambda: run(systems[key]))  # noqa: B023


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


def peak(process: Any) -> float:
    """The most memory that a process has held at a time, in MB."""
    lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def describe(args: argparse.Namespace, source: str, lengths: list[int]) -> dict[str, object]:
    middle = statistics.median(lengths)
    return {
        "problems": source,
        "prompt_tokens": f"{min(lengths)} to {max(lengths)}, median {middle:g}",
        "requests": {"ours": args.problems, "stock": args.stock_problems, "hf": args.batch},
        "max_new_tokens": args.max_new_tokens,
        "model": str(args.model or "random Llama, 6.3 M parameters"),
        "dtype": args.dtype,
        "threads": args.threads,
        "vllm_args": args.vllm_args,
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
            spread([each.speed for each in found]),
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    print("\n| ratio, servers only | median (range over the rounds) | bar |\n|---|---|---|")
    for name, (one, other, bar) in RATIOS.items():
        if not (by_system[one] and by_system[other]):
            continue
        pairs = [*zip(by_system[one], by_system[other], strict=True)]
        print(f"| {name} | {spread([a.rate / b.rate for a, b in pairs], '.2f')} | {bar:g} |")
        if other.startswith(("(d)", "(e)")):
            clock = spread([a.speed / b.speed for a, b in pairs], ".2f")
            print(f"| {name}, by the clock | {clock} | |")


if __name__ == "__main__":
    sys.exit(main())
