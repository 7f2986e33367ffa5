"""What surrounds a training process: launch variables, DeepSpeed's start, trackers, versions."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import netrc
import os
import platform
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path
from urllib.parse import urlsplit

from fastchat.train.checkpoints import read_json, write_json

logger = logging.getLogger("fastchat.train")

OTHER_RANKS_WAIT = 5.0
"""Seconds in which the first process can print its error: launchers end all when one leaves."""
TRACKING = "tracking.json"
"""In the output directory: the id of the run at wandb."""
PACKAGES = ("fschat", "torch", "transformers", "accelerate", "deepspeed", "flash_attn")


def name_accelerator() -> None:
    """Tell DeepSpeed that there is no GPU, before it is imported: it would warn at each guess."""
    import torch

    if not torch.accelerator.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def quiet() -> None:
    """Leave out progress bars of single files, and warnings that nobody here can act on."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    # DeepSpeed calls collectives by names that torch 2.13 deprecates.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    # peft asks for a property by the name that it had before transformers 5.18.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
    # It also imports bitsandbytes, which looks for kernels that nothing here uses.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


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


def say(text: str) -> None:
    """Print on the first process."""
    if is_first_process():
        print(text, flush=True)


def fail(text: str, code: int) -> int:
    """Print an error and return its exit code."""
    if not is_first_process() and code != 1:
        # A launcher ends this wait if the first process has the same to say.
        time.sleep(OTHER_RANKS_WAIT)
    if is_first_process() or code != 130:
        print(f"train_mem.py: error: {text}", file=sys.stderr, flush=True)
    return code


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


def start_wandb(report_to: list[str], output_dir: str, run_name: str | None) -> list[str]:
    """Begin the wandb run if it is asked for; transformers' callback then logs into it.

    Without a login, or where the server cannot be reached, the run is kept offline in
    `output_dir`, with one notice. WANDB_MODE, WANDB_PROJECT, WANDB_RUN_GROUP and wandb's other
    variables are respected. A resumed run goes on under the id that `output_dir` keeps.

    Returns:
        The trackers to use: `report_to`, or TensorBoard in place of a wandb that is not installed
        or broken.
    """
    if "wandb" not in report_to:
        return report_to
    if importlib.util.find_spec("wandb") is None:
        return _without_wandb(report_to, "wandb is not installed (pip install wandb)")
    if not is_first_process():
        return report_to
    try:
        _begin_wandb(output_dir, run_name)
    except Exception as error:  # whatever a foreign package raises: training goes on
        return _without_wandb(report_to, f"wandb cannot start ({error})")
    return report_to


def run(arguments: list[str]) -> None:
    """Train as a command line says and end this process with the exit code."""
    code = 130
    try:
        name_accelerator()
        quiet()
        from fastchat.train.train import main

        code = main(arguments)
    except KeyboardInterrupt:
        # While the packages are still being imported.
        print("train_mem.py: interrupted before anything was begun", file=sys.stderr)
    leave(code)


def leave(code: int) -> None:
    """End this process with an exit code, and its wandb run with it."""
    if "wandb" in sys.modules:
        import wandb

        wandb.finish(exit_code=code)
        wandb.teardown()
    sys.stdout.flush()
    sys.stderr.flush()
    # A thread of gloo that still wants the interpreter while that shuts down aborts the process
    # (seen in one of thirty finished runs of two processes), so it is not shut down.
    os._exit(code)


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


def _begin_wandb(output_dir: str, run_name: str | None) -> None:
    import wandb

    project = os.environ.get("WANDB_PROJECT", "rise")
    settings = {
        "project": project,
        "name": run_name or Path(output_dir).name,
        "group": os.environ.get("WANDB_RUN_GROUP"),
        "job_type": os.environ.get("WANDB_JOB_TYPE", "train"),
        "dir": os.environ.get("WANDB_DIR", output_dir),
    }
    Path(settings["dir"]).mkdir(parents=True, exist_ok=True)
    state = Path(output_dir) / TRACKING
    known = (read_json(state) or {}).get(f"wandb/{project}", {})
    if known and "WANDB_RUN_ID" not in os.environ:
        settings |= {"id": known["id"], "resume": "allow"}
    if "WANDB_MODE" not in os.environ and not _wandb_login():
        _offline(settings, "there is no wandb login")
    else:
        try:
            wandb.init(**settings)
        except wandb.Error as error:
            _offline(settings, f"wandb could not start ({str(error).splitlines()[0]})")
    write_json(state, {f"wandb/{project}": {"id": wandb.run.id}})


def _without_wandb(report_to: list[str], cause: str) -> list[str]:
    others = [name for name in report_to if name != "wandb"]
    if "tensorboard" in others or importlib.util.find_spec("tensorboard") is None:
        _notice(f"{cause}: it gets nothing")
        return others
    _notice(f"{cause}: TensorBoard's files get the numbers instead")
    return [*others, "tensorboard"]


def _wandb_login() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    path = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    try:
        return netrc.netrc(str(path)).authenticators(host or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _offline(settings: dict[str, str], cause: str) -> None:
    import wandb

    _notice(
        f"{cause}: metrics are kept offline in {settings['dir']}/wandb (wandb login, then wandb "
        "sync, uploads them)"
    )
    wandb.init(**settings, mode="offline")


def _notice(text: str) -> None:
    if is_first_process():
        logger.warning(text)
