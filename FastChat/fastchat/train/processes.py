"""What surrounds a training process: launch variables, who is first, DeepSpeed's start."""

import logging
import os
import sys
import time

from fastchat.utils import threads_of

logger = logging.getLogger("fastchat.train")

OTHER_RANKS_WAIT = 5.0
"""Seconds in which the first process can print its error: launchers end all when one leaves."""


def set_single_process() -> None:
    """Set the variables of a launcher for one process, if no launcher has set them.

    DeepSpeed reads them, and without them looks for MPI. With several GPUs and no launcher,
    transformers would copy the model to every GPU in one process instead of using one.
    """
    if "RANK" in os.environ or "LOCAL_RANK" in os.environ:
        return
    from fastchat.client.process import free_ports

    [port] = free_ports(1)
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def share_cores() -> int:
    """Give torch this process's share of the machine's cores; returns the number of threads."""
    import torch

    threads = threads_of(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    torch.set_num_threads(threads)
    return threads


def is_first_process() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def say(text: str) -> None:
    if is_first_process():
        print(text, flush=True)


def fail(text: str, code: int) -> int:
    if not is_first_process() and code == 2:
        # A launcher ends this wait if the first process has the same to say.
        time.sleep(OTHER_RANKS_WAIT)
    if is_first_process() or code in (1, 2):
        error = "error: " * (code in (1, 2))
        print(f"train_mem.py: {error}{text}", file=sys.stderr, flush=True)
    return code


def start_deepspeed(on_cpu: bool) -> None:
    """Tell DeepSpeed about the process group before a model is loaded.

    transformers opens the group itself on CPUs, and ZeRO-3's partitioned loading would then take
    every process for the only one.
    """
    import deepspeed

    if on_cpu:
        # An optional all-reduce through shared memory is compiled at the first start, which
        # takes over a minute and a compiler; gloo does without.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed()
