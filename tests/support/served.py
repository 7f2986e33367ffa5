"""What a worker makes of a checkpoint, without its HTTP server."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from fastchat.serve.engine.request import EngineRequest
from fastchat.serve.engine.sampling import SamplingParams
from fastchat.serve.model_worker import build_worker, parse_args


def greedy(path: Path, *more: str) -> tuple[Any, list[int]]:
    """The model that a worker loads from `path`, and the likeliest answer to a question."""
    arguments = ["--model-path", str(path), "--device", "cpu", "--context-length", "200", *more]
    worker = build_worker(parse_args(arguments), logging.getLogger("test"))
    worker.engine.start()
    prompt = worker.template.prompt_ids([{"role": "user", "content": "What is 1 + 2?"}])
    request = EngineRequest(prompt=prompt, params=SamplingParams(0.0), max_new_tokens=12)
    try:
        worker.engine.submit(request).result(timeout=60)
    finally:
        worker.engine.stop()
    return worker.engine.model.model, list(request.samples[0].tokens)
