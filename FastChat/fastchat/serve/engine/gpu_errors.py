"""What an exception says about the GPU: its memory is full, or this process cannot use it again."""

import os
import signal
import threading
from types import FrameType
from typing import Any

_CUDA = "CUDA error"
_NO_ROOM = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED")
"""CUDA's and cuBLAS's own words: they allocate beside torch, whose OutOfMemoryError this is not.
Where there is no room to begin, cuBLAS is not initialized."""


def is_full(error: BaseException) -> bool:
    """Whether memory was missing: what needs less of it may still succeed."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return True
    return _of_the_device(error) and any(words in str(error) for words in _NO_ROOM)


def is_lost(error: BaseException) -> bool:
    """Whether every later call fails too, as after an illegal access or a device assert."""
    return _of_the_device(error) and not is_full(error)


def end_when_lost(engine: Any) -> None:
    """End this process with code 1 once the engine's GPU is lost, so that no client is sent here.

    The requests that fail with it still get their replies. Called in the main thread.
    """
    lost = threading.Event()

    def report() -> None:
        lost.set()
        os.kill(os.getpid(), signal.SIGTERM)

    def end(number: int, _frame: FrameType | None) -> None:
        # uvicorn hands the signal on when it has ended.
        if lost.is_set():
            # Python's own end would free GPU memory, which aborts or hangs when the GPU is lost.
            os._exit(1)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    engine.on_lost = report
    signal.signal(signal.SIGTERM, end)


def _of_the_device(error: BaseException) -> bool:
    import torch

    # torch has the class since 2.8 and raises plain RuntimeErrors before that, and for cuBLAS.
    if isinstance(error, getattr(torch, "AcceleratorError", ())):
        return True
    return isinstance(error, RuntimeError) and str(error).startswith(_CUDA)
