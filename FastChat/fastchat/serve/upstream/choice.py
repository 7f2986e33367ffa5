"""Whether a vLLM generates in place of the engine here, and the options that it is given."""

from __future__ import annotations

import argparse

from fastchat.model.model_adapter import base_source, load_config, pick_device, pick_dtype
from fastchat.serve.upstream.command import VARIABLE, is_for_cpus


def against(args: argparse.Namespace, command: str | None) -> str | None:
    """Why vLLM does not generate; None where it does."""
    if args.engine == "embedded":
        return "--engine embedded"
    if args.engine == "auto" and not str(pick_device(args.device)).startswith("cuda"):
        return "it computes on the CPU (--engine vllm overrides)"
    if command is None:
        return (
            f"no vLLM is found: name its command in {VARIABLE}, or install one with `bash "
            "scripts/setup.sh --vllm`"
        )
    device = "cpu" if is_for_cpus(command) else "cuda"
    if args.device not in ("auto", device):
        return (
            f"--device {args.device} is not what {command} is built for: leave it out, or choose a "
            "GPU with CUDA_VISIBLE_DEVICES"
        )
    if args.engine == "auto" and device == "cpu":
        return f"{command} is built for CPUs"
    unknown = {
        "--seed (leave it out, or seed the requests)": args.seed is not None,
        '--load-8bit (but --vllm-args="--quantization bitsandbytes")': args.load_8bit,
        "--max-gpu-memory (but --gpu-memory-fraction)": args.max_gpu_memory,
    }
    given = [flag for flag, value in unknown.items() if value]
    return f"it does not know {', '.join(given)}" if given else None


def options(args: argparse.Namespace, for_cpus: bool) -> list[str]:
    """What `vllm serve` gets of the worker's own options."""
    config = load_config(base_source(args.model_path, args.base_model_path))
    dtype = pick_dtype(args.dtype, "cpu" if for_cpus else "cuda", config)
    given = {
        "--dtype": str(dtype).removeprefix("torch."),
        "--max-model-len": args.context_length,
        "--kv-cache-memory-bytes": args.kv_memory,
        "--gpu-memory-utilization": args.gpu_memory_fraction,
        "--tensor-parallel-size": args.num_gpus if args.num_gpus > 1 else None,
    }
    return [str(word) for pair in given.items() if pair[1] for word in pair]
