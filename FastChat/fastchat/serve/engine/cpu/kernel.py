"""The compiled kernel of forward passes (kernel.c), by shape of attention.

It is compiled by the worker that needs it, in a second, with the machine's own C compiler.
"""

import ctypes
import logging
import os
import re
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

import torch

_SOURCE = Path(__file__).with_suffix(".c")
_FLAGS = ("-O3", "-march=native", "-ffast-math", "-fno-finite-math-only", "-fPIC", "-fopenmp")
"""Infinite scores stand for masked tokens, and what is not a number has to stay visible."""


@lru_cache
def kernel(groups: int, key_size: int, value_size: int, dtype: torch.dtype) -> ctypes.CDLL | None:
    """For so many query heads to a key/value head; None where it cannot be had, which is logged."""
    if dtype not in (torch.float32, torch.bfloat16):
        return None
    shape = [f"-DGROUPS={groups}", f"-DSIZE={key_size}", f"-DVALUES={value_size}"]
    if dtype == torch.bfloat16:
        shape.append("-DBF16")
    try:
        return _compiled(shape)
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()
        logging.getLogger(__name__).warning(
            "no compiled kernel (%s): PyTorch computes, more slowly; a C compiler "
            "that CC names or PATH has as cc makes it faster",
            said[-1] if said else type(error).__name__,
        )
        return None


def _compiled(shape: list[str]) -> ctypes.CDLL:
    compiler = os.environ.get("CC") or shutil.which("cc") or "gcc"
    with tempfile.TemporaryDirectory() as folder:
        built, library = f"{folder}/kernel.o", f"{folder}/kernel.so"
        for command in (
            [*_FLAGS, *shape, "-c", str(_SOURCE), "-o", built],
            # With PyTorch's own OpenMP: the threads of a second one would fight with its threads.
            ["-shared", built, _openmp(), "-lm", "-o", library],
        ):
            subprocess.run(
                [*compiler.split(), *command],
                check=True,
                capture_output=True,
                text=True,
                timeout=60,
            )
        loaded = ctypes.CDLL(library)
    pointer, long = ctypes.c_void_p, ctypes.c_long
    loaded.attend.argtypes = [*[pointer] * 5, *[long] * 3, pointer, ctypes.c_float, ctypes.c_int]
    loaded.compute.argtypes = [pointer, long, *[pointer] * 5, long, *[pointer] * 3, ctypes.c_int]
    loaded.attend.restype = loaded.compute.restype = None
    return loaded


def _openmp() -> str:
    """The OpenMP library of this process, which PyTorch has loaded."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    found = re.search(r"/\S*/lib(?:gomp|iomp5|omp)\b[^/\s]*", maps)
    if found is None:
        raise OSError("PyTorch has loaded no OpenMP library")
    return found[0]
