"""A model worker whose GPU fails for good at the first long prompt, as a process on the CPU.

    python -m tests.support.losing_worker --model-path CHECKPOINT --port 0

Its options are those of fastchat.serve.model_worker.
"""

from typing import Any

from fastchat.serve import model_worker
from fastchat.serve.engine.model import EngineModel

LONG = 40
"""Tokens of a long prompt."""
MESSAGE = "CUDA error: an illegal memory access was encountered"

_forward = EngineModel.forward


def _forward_or_fail(self: EngineModel, pool: Any, span: Any, tokens: Any) -> Any:
    if any(len(row) >= LONG for row in tokens):
        raise RuntimeError(f"{MESSAGE}\nCUDA kernel errors might be reported later.")
    return _forward(self, pool, span, tokens)


if __name__ == "__main__":
    EngineModel.forward = _forward_or_fail
    model_worker.main()
