"""How fast vLLM generates by itself: what `engine.py` measures, by vLLM's own engine.

    VLLM_ENVIRONMENT/bin/python scripts/benchmarks/vllm_engine.py --size 7b --rows 1 64 256
    .venv-vllm/bin/python scripts/benchmarks/vllm_engine.py --size tiny --device cpu --eager

Runs in vLLM's environment, on a Llama of random weights that vLLM makes up, in the dtype, with the
prompts and the lengths of `engine.py`. `--eager` compiles nothing. Prints a markdown table.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import engine
import torch
from bench import spread


def main() -> int:
    argv = [word for word in sys.argv[1:] if word != "--eager"]
    args = engine.parse_args(argv)
    from vllm import LLM, __version__

    on_cpu = args.device == "cpu"
    with tempfile.TemporaryDirectory() as name:
        config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
        config |= {**engine.SIZES[args.size], "max_position_embeddings": 4096}
        config |= {"dtype": "float32" if on_cpu else "bfloat16"}
        Path(name, "config.json").write_text(json.dumps(config), encoding="utf-8")
        cpu: dict[str, Any] = {"kv_cache_memory_bytes": 2**28, "enable_chunked_prefill": False}
        llm = LLM(
            name,
            load_format="dummy",
            skip_tokenizer_init=True,
            max_model_len=max(args.prompt + args.new, 512),
            max_num_seqs=max(args.rows),
            enforce_eager=len(argv) < len(sys.argv) - 1,
            **cpu if on_cpu else {},
        )
        print(f"{args.size}: vLLM {__version__}, {config['dtype']}; {args.new} new tokens\n")
        # Beside vLLM, which leaves a tenth of the GPU and begins with a GPU that nobody has used.
        bandwidth = None if on_cpu else engine.measured_bandwidth(torch.device("cuda"))
        columns = [name for name in engine.head(bandwidth) if name != "tok per CPU-s"]
        print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
        for rows in args.rows:
            print(table_row(args, llm, rows, bandwidth), flush=True)
    return 0


def table_row(args: Any, llm: Any, rows: int, bandwidth: float | None) -> str:
    vocabulary = engine.SIZES[args.size]["vocab_size"]
    rates, prefills = [], []
    for run in range(args.runs + 1):
        prompts = engine.make_prompts(args, rows, run, vocabulary)
        first = timed(llm, prompts, 1)
        prefills.append(rows * args.prompt / first)
        # The prompts are cached now, as in engine.py.
        rates.append(rows * args.new / timed(llm, prompts, args.new))
    # The first run warms up.
    cells = [str(rows), spread(rates[1:]), f"{statistics.median(prefills[1:]):.0f}"]
    if bandwidth is not None:
        model, shape = engine.empty_model(args.size, torch.bfloat16), engine.SIZES[args.size]
        token = 2 * shape["num_hidden_layers"] * shape["num_key_value_heads"] * model.dtype.itemsize
        token *= shape["hidden_size"] // shape["num_attention_heads"]
        cells += engine.share(args, model, token, rows, bandwidth, statistics.median(rates[1:]))
    return f"| {' | '.join(cells)} |"


def timed(llm: Any, prompts: list[list[int]], new: int) -> float:
    from vllm import SamplingParams

    settings = SamplingParams(
        temperature=1.0, seed=7, max_tokens=new, ignore_eos=True, detokenize=False
    )
    started = time.perf_counter()
    llm.generate([{"prompt_token_ids": ids} for ids in prompts], settings, use_tqdm=False)
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
