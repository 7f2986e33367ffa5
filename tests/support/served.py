"""Workers in the process of a test, and what they make of a checkpoint."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastchat.serve.engine.request import EngineRequest, SamplingParams
from fastchat.serve.model_worker import ModelWorker, build_worker, parse_args


@contextlib.contextmanager
def started(path: str | Path, *more: str) -> Iterator[ModelWorker]:
    """A worker of the checkpoint whose engine runs."""
    arguments = parse_args(["--model-path", str(path), "--device", "cpu", *more])
    worker = build_worker(arguments, logging.getLogger("test"))
    worker.engine.start()
    try:
        yield worker
    finally:
        worker.engine.stop()


def greedy(path: Path, *more: str) -> tuple[Any, list[int]]:
    """The model that a worker loads from `path`, and the likeliest answer to a question."""
    with started(path, "--context-length", "200", *more) as worker:
        prompt = worker.template.prompt_ids([{"role": "user", "content": "What is 1 + 2?"}])
        request = EngineRequest(prompt=prompt, params=SamplingParams(0.0), max_new_tokens=12)
        worker.engine.submit(request).result(timeout=60)
    return worker.engine.model.model, list(request.samples[0].tokens)
