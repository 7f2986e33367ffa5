"""How fast the worker's engine generates by itself, without HTTP: tokens per second by batch size.

    python scripts/benchmarks/engine.py --size tiny --rows 1 16 64
    python scripts/benchmarks/engine.py --size 7b --rows 1 16 64 256 --device cuda
    python scripts/benchmarks/engine.py --model data/smollm2 --dtype bfloat16 --rows 64 --profile

A Llama of random weights is built in memory (bfloat16 on a GPU, float32 on a CPU), or --model read.
For each number of rows the prompts (the first part of which they share) are computed first, and
then answers of a fixed length are generated from what the cache keeps, so that the two rates are
measured apart; the shared part counts for each prompt and is computed once.
Prints a markdown table. More rows than the memory holds at once are not measured: some would wait
for others to end. On a GPU the last columns are the limit that the memory's bandwidth sets to
decoding, weights and cache being read once per step, and the share of it that was reached.
"""

import argparse
import gc
import random
import statistics
import sys
import time
from typing import Any

from bench import failed_row, parser, spread

FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "tie_word_embeddings",
)
SHAPES: dict[str, tuple[Any, ...]] = {
    "tiny": (32000, 128, 352, 4, 4, 2, True),
    "1b": (128256, 2048, 8192, 16, 32, 8, True),
    "7b": (32000, 4096, 11008, 32, 32, 32, False),
}
"""Llamas: a toy, and the shapes of Llama-3.2-1B and Llama-2-7B."""
SIZES = {name: dict(zip(FIELDS, shape, strict=True)) for name, shape in SHAPES.items()}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    found = parser(__doc__)
    add = found.add_argument
    add("--size", choices=SIZES, default="tiny", help="the model; default tiny")
    add("--model", help="a checkpoint in place of --size")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="of --model; float32")
    add("--rows", type=int, nargs="+", default=[1, 16, 64, 256], help="answers at the same time")
    add("--device", default="auto", help="cpu, cuda, ...; auto takes a GPU")
    add("--prompt", type=int, default=400, help="prompt tokens; default 400")
    add("--shared", type=int, default=330, help="of them the same in all prompts; default 330")
    add("--new", type=int, default=128, help="tokens per answer; default 128")
    add("--runs", type=int, default=3, help="timed runs; default 3")
    add("--profile", action="store_true", help="and the operators of decoding")
    args = found.parse_args(argv)
    if min(*args.rows, args.prompt, args.new, args.runs) < 1:
        found.error("--rows, --prompt, --new and --runs must be above 0")
    if not 0 <= args.shared < args.prompt:
        found.error(f"--shared {args.shared} must be less than --prompt {args.prompt}")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    import torch

    auto = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(auto if args.device == "auto" else args.device)
    try:
        model = load(args, device) if args.model else build_model(args.size, device)
    except ValueError as error:
        print(f"engine.py: error: {error}", file=sys.stderr)
        return 2
    bandwidth = measured_bandwidth(device) if device.type == "cuda" else None
    print_head(args, model, bandwidth)
    failed = False
    for rows in args.rows:
        try:
            print(table_row(args, model, rows, bandwidth), flush=True)
        except Exception as error:  # the others are measured all the same
            failed = True
            print(failed_row(rows, error, len(head(bandwidth)) - 1), flush=True)
    return int(failed)


def load(args: argparse.Namespace, device: Any) -> Any:
    from fastchat.model.model_adapter import load_model

    return load_model(args.model, device=str(device), dtype=args.dtype)


def build_model(size: str, device: Any) -> Any:
    import torch
    from transformers import LlamaForCausalLM

    from fastchat.serve.engine.kv_pool import free_bytes

    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    empty, free = empty_model(size, dtype), free_bytes(device)
    needed = empty.num_parameters() * dtype.itemsize
    if needed > 0.8 * free:
        raise ValueError(
            f"the {size} model takes {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free "
            f"on {device}; use a smaller --size"
        )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            return LlamaForCausalLM(empty.config).eval()
    finally:
        torch.set_default_dtype(before)


def empty_model(size: str, dtype: Any) -> Any:
    """The model without memory."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        config = LlamaConfig(**SIZES[size], max_position_embeddings=4096)
        return LlamaForCausalLM(config).to(dtype)


def measured_bandwidth(device: Any) -> float:
    """Bytes per second that a large copy reads and writes."""
    import torch

    source = torch.empty(2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = 0.0
    for copies in (500, 50):  # the clocks of an idle GPU take a while to rise
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        for _ in range(copies):
            target.copy_(source)
        torch.cuda.synchronize(device)
        seconds = (time.perf_counter() - start) / copies
    return 2 * source.numel() / seconds


def print_head(args: argparse.Namespace, model: Any, bandwidth: float | None) -> None:
    import torch

    if bandwidth is None:
        name = f"CPU, {torch.get_num_threads()} threads"
    else:
        name = f"{torch.cuda.get_device_name(model.device)}, {bandwidth / 1e9:.0f} GB/s"
    dtype = str(model.dtype).removeprefix("torch.")
    print(
        f"{args.model or args.size}: {model.num_parameters() / 1e6:.1f} M parameters, {dtype}, "
        f"{name}; prompts of {args.prompt} tokens, {args.shared} of them shared; {args.new} new "
        f"tokens; median (range) of {args.runs}\n"
    )
    columns = head(bandwidth)
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


def head(bandwidth: float | None) -> list[str]:
    columns = ["rows", "generated tok/s", "tok per CPU-s", "prompt tok/s"]
    return columns if bandwidth is None else [*columns, "limit tok/s", "of the limit"]


def table_row(args: argparse.Namespace, model: Any, rows: int, bandwidth: float | None) -> str:
    from fastchat.serve.engine.engine import SlotEngine
    from fastchat.serve.engine.kv_pool import token_bytes

    gc.collect()  # what a failure held of the row before
    engine = SlotEngine(model, None, max_rows=rows, max_length=args.prompt + args.new)
    slots = slots_of(engine, args.prompt + args.new)
    if slots < rows:
        return does_not_fit(rows, slots, bandwidth)
    walls, cpus, prefills = [], [], []
    for run in range(args.runs + 1):
        prompts = make_prompts(args, rows, run, model.config.vocab_size)
        seconds, _ = drain(engine, prompts, 1)
        prefills.append(rows * args.prompt / seconds)
        seconds, cpu = drain(engine, prompts, args.new)
        walls.append(rows * args.new / seconds)
        cpus.append(rows * args.new / cpu)
    if args.profile:
        profile(engine, prompts, args.new)
    # The first run warms up.
    cells = [str(rows), *(spread(rates[1:]) for rates in (walls, cpus, prefills))]
    if bandwidth is not None:
        size = token_bytes(engine.model.layer_shapes())
        cells += share(args, model, size, rows, bandwidth, statistics.median(walls[1:]))
    return f"| {' | '.join(cells)} |"


def profile(engine: Any, prompts: list[list[int]], new: int) -> None:
    """Print the operators of one more run by the time that they take themselves."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recording

    with recording(activities=[ProfilerActivity.CPU]) as found:
        drain(engine, prompts, new)
    operators = found.key_averages()
    print(operators.table(sort_by="self_cpu_time_total", row_limit=10, max_name_column_width=40))


def slots_of(engine: Any, length: int) -> int:
    """`load()` tells how many the engine has now; without requests its slots are short."""
    pool = engine.pool
    return pool.rows_at(pool.slot_length(length)) if length <= pool.max_length else 0


def does_not_fit(rows: int, slots: int, bandwidth: float | None) -> str:
    rates = len(head(bandwidth)) - 2
    return f"| {rows} | does not fit: {slots} slots |{' |' * rates}"


def make_prompts(args: argparse.Namespace, rows: int, run: int, vocabulary: int) -> list[list[int]]:
    """Random prompts; every run shares another beginning, so that no run finds an older one's."""
    rng = random.Random(run)
    shared = [rng.randrange(vocabulary) for _ in range(args.shared)]
    own = args.prompt - args.shared
    return [[*shared, *(rng.randrange(vocabulary) for _ in range(own))] for _ in range(rows)]


def drain(engine: Any, prompts: list[list[int]], new: int) -> tuple[float, float]:
    from fastchat.serve.engine.request import EngineRequest, SamplingParams

    requests = [EngineRequest(prompt, SamplingParams(), new, seed=7) for prompt in prompts]
    wall, cpu = time.perf_counter(), time.process_time()
    for request in requests:
        engine.submit(request)
    while engine.step():
        pass
    spent = time.perf_counter() - wall, time.process_time() - cpu
    for request in requests:
        request.done.result(0)
    return spent


def share(
    args: argparse.Namespace, model: Any, token: int, rows: int, bandwidth: float, rate: float
) -> list[str]:
    """The limit in tokens per second, and the share of it that a rate is.

    A decode step has to read the weights, and of every row its cache, of `token` bytes a token, on
    average with half of the answer. The model may be one without memory.
    """
    weights = model.num_parameters()
    if not model.config.tie_word_embeddings:
        weights -= model.get_input_embeddings().weight.numel()
    read = weights * model.dtype.itemsize + rows * (args.prompt + args.new / 2) * token
    limit = rows * bandwidth / read
    return [f"{limit:.0f}", f"{rate / limit:.0%}"]


if __name__ == "__main__":
    sys.exit(main())
