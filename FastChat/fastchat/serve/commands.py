"""What the commands share: where to listen, whom to ask, what is done about stock FastChat's flags.

Of one model on several GPUs, and of quantized checkpoints, vLLM takes care.
"""

import argparse
import asyncio
import contextlib
import importlib.util
import os
import sys
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from fastchat.client.http import PeerError
from fastchat.client.process import ServerEnded
from fastchat.constants import CONTROLLER_ADDRESS
from fastchat.model.model_adapter import pick_device
from fastchat.utils import byte_count, normal_url, positive_int

T = TypeVar("T")
REMEDY = (
    "start a controller with python -m fastchat.serve.controller (or launch_all_serve, with a "
    "model), or say where one is with --controller-address"
)
VLLM = "python -m fastchat.serve.vllm_worker --vllm-bin vllm"
_QUANTIZED = f"serve quantized checkpoints with vLLM: {VLLM}"
_CORS = "a proxy in front of the server sets headers for other origins"
ELSEWHERE = {
    "--gptq": _QUANTIZED,
    "--awq": _QUANTIZED,
    "--enable-exllama": _QUANTIZED,
    "--exllama": _QUANTIZED,
    "--enable-xft": "leave it out: bfloat16 is taken where the CPU computes in it",
    "--xft": "leave it out: bfloat16 is taken where the CPU computes in it",
    "--cpu-offloading": f'vLLM offloads: {VLLM} --vllm-args="--cpu-offload-gb 8"',
    "--revision": "fetch it (hf download ORG/NAME --revision R --local-dir DIR) and give DIR",
    "--stream-interval": "leave it out: a stream has a frame for every second token",
    "--embed-in-truncate": "leave it out: there are no embeddings here",
    "--debug": "leave it out",
    "--judge-sent-end": "leave it out: an answer ends where the model ends it",
    "--ssl": "put a proxy that speaks TLS in front (caddy, nginx)",
    "--allow-credentials": _CORS,
    "--allowed-": _CORS,
    "--gradio-": "put a proxy with a login in front",
    "--concurrency-count": "leave it out: requests are not limited here",
    "--model-list-mode": "leave it out: the list is the controller's at each visit",
    "--moderate": "leave it out: the pages are for this machine",
    "--show-terms-of-use": "leave it out: the pages are for this machine",
    "--register-api-endpoint-file": "workflow_*.py reach those models as NAME@http://HOST:PORT/v1",
    "--share": "leave it out: forward the port (ssh -L 7860:localhost:7860 HOST)",
}
"""Flags of FastChat 0.2.36 that are not here, or their beginnings -> what to do instead; "" is any
other flag."""

ONE_GPU = (
    "the engine here computes on one GPU. Start a worker per GPU where the model fits on one "
    "(--gpus 0, --gpus 1)"
)
OF_VLLM = ELSEWHERE | {
    "--num-gpus": '--vllm-args="--tensor-parallel-size 2"',
    "--trust": '--vllm-args="--trust-remote-code"',
    "--gpu_memory_utilization": '--vllm-args="--gpu-memory-utilization 0.9"',
    "": 'options of vLLM go into --vllm-args="..."',
}


def add_address(parser: argparse.ArgumentParser, port: int) -> None:
    add = parser.add_argument
    add("--host", default="localhost", help="address to listen on (localhost)")
    add("--port", type=int, default=port, help=f"port, 0 takes a free one ({port})")


def add_controller(parser: argparse.ArgumentParser, flag: str = "--controller-address") -> None:
    parser.add_argument(
        flag,
        type=normal_url,
        default=CONTROLLER_ADDRESS,
        help=f"URL or port of the controller ({CONTROLLER_ADDRESS})",
    )


def add_asking(parser: argparse.ArgumentParser, temperature: float, tokens: int) -> None:
    """Whom a chat asks, and what for."""
    add_controller(parser)
    add = parser.add_argument
    add("--worker-address", type=normal_url, help="URL of a worker, asked without a controller")
    add("--temperature", type=float, default=temperature, help=f"0 is greedy ({temperature:g})")
    add("--max-new-tokens", type=positive_int, default=tokens, help=f"longest answer ({tokens})")


@contextlib.contextmanager
def refusals(args: argparse.Namespace) -> Iterator[None]:
    """What goes wrong at the start is one line: exit code 2, 1 for a server that ended, 130."""
    try:
        yield
    except ServerEnded as error:
        sys.exit(f"error: {error}")
    except (ValueError, OSError) as error:
        args.error(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


def run(work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns; a peer that gives no answer is one line and exit code 1, Ctrl-C 130."""
    try:
        return asyncio.run(work)
    except PeerError as error:
        remedy = f"; {REMEDY}" if error.kind in ("connection", "malformed") else ""
        sys.exit(f"error: {error}{remedy}")
    except KeyboardInterrupt:
        sys.exit(130)


def add_gpus(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--gpus", help="GPUs that it may see, such as 1 or 0,2 (all)")
    add(
        "--num-gpus",
        type=positive_int,
        default=1,
        help="GPUs for one model; with more than one vLLM generates (1)",
    )
    add(
        "--max-gpu-memory",
        type=byte_count,
        help="the most memory of the GPU for weights and cache, such as 13GiB, instead of "
        "--gpu-memory-fraction",
    )
    add(
        "--load-8bit",
        action="store_true",
        help="weights in 8 bits, of a GPU or a CPU (bitsandbytes: pip install 'fschat[qlora]')",
    )


def settle(args: argparse.Namespace) -> None:
    """Check them, and hide the GPUs that `--gpus` does not name; must run before torch is loaded.

    ValueError if they cannot be honoured.
    """
    if args.num_gpus > 1 and args.engine == "embedded":
        raise ValueError(f"--num-gpus {args.num_gpus}: {ONE_GPU}, else give --engine vllm")
    if args.max_gpu_memory and args.gpu_memory_fraction:
        raise ValueError("give either --max-gpu-memory or --gpu-memory-fraction")
    if args.load_8bit and importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError("--load-8bit needs bitsandbytes: pip install 'fschat[qlora]'")
    if args.gpus:
        gpus = [name.strip() for name in args.gpus.split(",")]
        if not all(name.isdecimal() or name.startswith(("GPU-", "MIG-")) for name in gpus):
            raise ValueError(f"--gpus {args.gpus}: give numbers of GPUs, such as 1 or 0,2")
        if args.num_gpus > len(gpus):
            raise ValueError(f"--num-gpus {args.num_gpus} are more than --gpus {args.gpus} names")
        if args.device != "auto" and not args.device.startswith("cuda"):
            raise ValueError(f"give either --gpus or --device {args.device}")
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)


def device_of(args: argparse.Namespace) -> str | None:
    """The device for `--device`; ValueError if there is none, nor one of `--gpus`."""
    device = pick_device(args.device)
    if args.gpus and device == "cpu":
        raise ValueError(f"--gpus {args.gpus}: torch sees no such GPU; without it the CPU computes")
    return device


def load_options(args: argparse.Namespace, device: str) -> dict[str, Any]:
    """What `load_model` gets beside the device: its dtype, and 8 bits where they are wanted."""
    if not args.load_8bit:
        return {"dtype": args.dtype}
    from transformers import BitsAndBytesConfig

    return {
        "dtype": "float16" if args.dtype == "auto" else args.dtype,
        "quantization_config": BitsAndBytesConfig(load_in_8bit=True),
        "device_map": {"": device},
    }


def memory_fraction(args: argparse.Namespace, device: str) -> float | None:
    """The share of the GPU that a worker may take; ValueError for a limit without a GPU."""
    if not args.max_gpu_memory:
        return args.gpu_memory_fraction
    if not device.startswith("cuda"):
        raise ValueError(
            f"--max-gpu-memory is about GPUs, not {device}: --kv-memory bounds a CPU's"
        )
    import torch

    return min(1.0, args.max_gpu_memory / torch.cuda.mem_get_info(device)[1])
