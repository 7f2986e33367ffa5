"""A worker without a model, as a process: the product's endpoints around a text that grows.

    python -m tests.support.pacing_worker --port 0 --controller-address 21001

`n` is the number of frames. With `top_k` K a stream waits after its first frame until K requests
are there at the same time.
"""

import argparse
import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastchat.constants import heart_beat_interval
from fastchat.protocol.worker_protocol import GenerateRequest
from fastchat.serve.base_model_worker import (
    BaseModelWorker,
    add_worker_arguments,
    advertised_url,
    create_app,
)
from fastchat.serve.registration import Registration
from fastchat.utils import build_logger, listen, serve, url_of


class PacingWorker(BaseModelWorker):
    """Repeats the prompt, one dot longer in every frame."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._together = asyncio.Event()

    context_length = 100

    def prepare(self, request: GenerateRequest) -> GenerateRequest:
        return request

    async def generate(self, prepared: GenerateRequest) -> dict[str, Any]:
        return [reply async for reply in self.stream(prepared)][-1]

    async def stream(self, prepared: GenerateRequest) -> AsyncIterator[dict[str, Any]]:
        if self.in_flight >= prepared.top_k:
            self._together.set()
        for i in range(1, prepared.n + 1):
            yield {
                "text": (prepared.prompt or "") + "." * i,
                "error_code": 0,
                "usage": {"prompt_tokens": 1, "completion_tokens": i, "total_tokens": i + 1},
                "finish_reason": "length" if i == prepared.n else None,
            }
            await self._together.wait()

    def count_tokens(self, prompt: str) -> int:
        return len(prompt)

    def conv_fields(self) -> dict[str, Any]:
        return {}


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    add_worker_arguments(parser, "requests")
    args = parser.parse_args()
    logger = build_logger("pacing_worker")
    sock = listen(args.host, args.port)
    url = advertised_url(args, url_of(args.host, sock))
    worker = PacingWorker(args.model_names, args.limit_worker_concurrency, logger)
    registration = Registration(
        args.controller_address, url, worker.status, heart_beat_interval(), logger
    )
    serve(create_app(worker, registration), sock)


if __name__ == "__main__":
    main()
