"""The `vllm` command of an environment of its own: where it is, and what is asked of it."""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

from fastchat.model.adapters import ADAPTER_CONFIG
from fastchat.model.model_adapter import base_source, load_config, pick_device, pick_dtype

VARIABLE = "VLLM_BIN"
"""Names the environment variable with the path of the command."""
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Of the adapters that vLLM makes room for."""
_KV_SHARE = 0.3
"""Of the free memory for keys and values on a CPU, as the engine here may take."""


def find() -> str | None:
    """The command that VLLM_BIN names, or that is beside this Python or on PATH; None without one.

    ValueError if VLLM_BIN names no command.
    """
    given = os.environ.get(VARIABLE)
    if not given:
        return shutil.which(str(Path(sys.executable).with_name("vllm"))) or shutil.which("vllm")
    command = shutil.which(os.path.expanduser(given))
    if command is None:
        raise ValueError(f"{VARIABLE} is {given}, which is no command that can be run")
    return command


def is_for_cpus(command: str) -> bool:
    """Whether its environment has a build of vLLM for CPUs."""
    environment = Path(command).resolve().parent.parent
    return any(environment.glob("lib/python*/site-packages/vllm*cpu*.dist-info"))


def against(args: argparse.Namespace, command: str | None) -> str | None:
    """Why vLLM does not generate in place of the engine here; None where it does."""
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


def worker_options(args: argparse.Namespace, for_cpus: bool) -> list[str]:
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


def cpu_options() -> list[str]:
    """What a build for CPUs needs: it reserves nearly all memory, and dies of seeds in chunks."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    size = str(int(free * _KV_SHARE))
    return ["--no-enable-chunked-prefill", "--kv-cache-memory-bytes", size]


def adapter_options(adapter: str) -> list[str]:
    """What serves a LoRA adapter under the name of its directory, beside its base model.

    ValueError if vLLM has no room for its rank.
    """
    config = json.loads((Path(adapter) / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    rank = max(config["r"], *(config.get("rank_pattern") or {}).values(), 0)
    room = next((each for each in _LORA_RANKS if each >= rank), None)
    if room is None:
        raise ValueError(
            f"{adapter} has the rank {rank}, and vLLM takes {_LORA_RANKS[-1]} at most: merge it "
            "with `python -m fastchat.model.apply_lora`"
        )
    module = json.dumps({"name": adapter, "path": adapter})
    return ["--enable-lora", "--max-lora-rank", str(room), "--lora-modules", module]
