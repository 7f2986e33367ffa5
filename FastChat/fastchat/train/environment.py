"""What surrounds a training process: launch variables, DeepSpeed's start, trackers, versions."""

from __future__ import annotations

import importlib.metadata
import logging
import netrc
import os
import platform
import socket
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

logger = logging.getLogger("fastchat.train")

PACKAGES = ("fschat", "torch", "transformers", "accelerate", "deepspeed", "flash_attn")


def name_accelerator() -> None:
    """Tell DeepSpeed that there is no GPU, before it is imported: it would warn at each guess."""
    import torch

    if not torch.accelerator.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def set_single_process() -> None:
    """Set the variables of a launcher for one process, if no launcher has set them.

    DeepSpeed reads them, and without them looks for MPI. With several GPUs and no launcher,
    transformers would copy the model to every GPU in one process instead of using one.
    """
    if "RANK" in os.environ or "LOCAL_RANK" in os.environ:
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(
        RANK="0",
        LOCAL_RANK="0",
        WORLD_SIZE="1",
        LOCAL_WORLD_SIZE="1",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )


def is_first_process() -> bool:
    """Whether this process is the one that prints and writes."""
    return int(os.environ.get("RANK", "0")) == 0


def start_deepspeed(on_cpu: bool) -> None:
    """Tell DeepSpeed about the process group before a model is loaded.

    transformers opens the group itself on CPUs, and ZeRO-3's partitioned loading would then take
    every process for the only one.
    """
    import deepspeed

    if on_cpu and not os.environ.get("FASTCHAT_SHM_COMM"):
        # An optional all-reduce through shared memory is compiled at the first start, which
        # takes over a minute and a compiler; gloo does without. FASTCHAT_SHM_COMM=1 keeps it.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed()


def prepare_wandb(report_to: list[str], output_dir: str) -> list[str]:
    """The trackers to use: wandb goes offline without a login, and is left out if not installed.

    Args:
        report_to: names of trackers, as transformers takes them.
        output_dir: where wandb keeps its files unless WANDB_DIR is set.
    """
    if "wandb" not in report_to:
        return report_to
    try:
        importlib.metadata.version("wandb")
    except importlib.metadata.PackageNotFoundError:
        _notice("wandb is not installed, so nothing is tracked (pip install wandb)")
        return [name for name in report_to if name != "wandb"]
    os.environ.setdefault("WANDB_PROJECT", "rise")
    os.environ.setdefault("WANDB_DIR", output_dir)
    if "WANDB_MODE" not in os.environ and not _wandb_login():
        os.environ["WANDB_MODE"] = "offline"
        _notice(
            f"no wandb login: metrics are kept offline in {os.environ['WANDB_DIR']}/wandb "
            "(wandb login, then wandb sync, uploads them)"
        )
    return report_to


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that decide the result; None where missing."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def git_commit() -> str | None:
    """The commit of the tree that this file lies in ("-dirty" if changed); None outside git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _wandb_login() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    path = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    try:
        return netrc.netrc(str(path)).authenticators(host or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _notice(text: str) -> None:
    if is_first_process():
        logger.warning(text)
