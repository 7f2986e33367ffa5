"""The entry of a training process: run, and leave with its exit code."""

import contextlib
import importlib.util
import io
import logging
import os
import sys
import warnings

from fastchat.train import signals


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


def train(arguments: list[str]) -> int:
    if importlib.util.find_spec("torch") is None:
        remedy = "source .venv/bin/activate (bash scripts/setup.sh makes it)"
        print(f"train_mem.py: error: {sys.executable} has no torch: {remedy}", file=sys.stderr)
        return 2
    from fastchat.train.first_look import first_look
    from fastchat.train.processes import fail

    if problems := first_look(arguments):
        return fail("\n".join(problems), 2)
    name_accelerator()
    quiet()
    from fastchat.train.train import main

    return main(arguments)


def run(arguments: list[str]) -> None:
    signals.install()
    for stream in (sys.stdout, sys.stderr):
        # A file or pipe may be ASCII, and rows are not; a line is there when it is printed.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    if "--check" in arguments:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # no GPU is asked
    try:
        code = train(arguments)
    except KeyboardInterrupt:
        # While the packages are still being imported.
        code = signals.exit_code(signals.State.number)
        print("train_mem.py: interrupted before anything was begun", file=sys.stderr)
    signals.defer()
    leave(code)


def leave(code: int) -> None:
    if "wandb" in sys.modules:
        import wandb

        # Its process may be gone: a scheduler's signal reaches all processes of a job.
        with contextlib.suppress(Exception):
            wandb.finish(exit_code=code)
            wandb.teardown()
    sys.stdout.flush()
    sys.stderr.flush()
    # A thread of gloo that still wants the interpreter while that shuts down aborts the process
    # (seen in one of thirty finished runs of two processes), so it is not shut down.
    os._exit(code)
