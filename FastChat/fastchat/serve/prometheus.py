"""The numbers that a server shows to Prometheus under GET /metrics."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

HUNG_UP = "hung_up"
"""The code of a request whose client did not wait for the end of its answer."""

_ENGINE_COUNTS = {
    "prompt_tokens": "Tokens of all admitted prompts",
    "prefill_tokens": "Prompt tokens that were computed",
    "reused_tokens": "Prompt tokens that another slot held already (cache hits)",
    "generated_tokens": "Tokens that were drawn, those of cancelled answers included",
    "decode_steps": "Steps that drew one token for every running answer",
}
_ENGINE_LEVELS = {
    "running": "Answers and prompts in slots (batch size)",
    "waiting": "Requests that wait for a slot",
    "slots": "Slots for running answers",
    "slot_tokens": "Tokens that a slot holds",
}


class Metrics:
    """The metrics of one server, in a registry of their own; every name begins with `rise_`.

    `server` is the second part of every name: worker, controller, api.
    """

    def __init__(self, server: str, *, tokens: bool = True):
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self._readings: list[tuple[Any, str, str, Callable[[], float]]] = []
        self._prefix = f"rise_{server}_"
        self._requests = self._counter("requests", "Requests that have ended", "path", "code")
        if tokens:
            self._prompt = self._counter("prompt_tokens", "Prompt tokens of answered requests")
            self._generated = self._counter("generated_tokens", "Tokens of the answers")

    def count_request(
        self, path: str, code: int | str, usage: Mapping[str, int] | None = None
    ) -> None:
        """Note that a request has ended.

        `path` is never what a client may choose; `code` is 0 for an answer, else an error code, or
        HUNG_UP.
        """
        self._requests.labels(path, str(code)).inc()
        if usage is not None:
            self._prompt.inc(usage["prompt_tokens"])
            self._generated.inc(usage["completion_tokens"])

    def read(
        self, name: str, meaning: str, value: Callable[[], float], *, grows: bool = False
    ) -> None:
        """Show a number that is kept elsewhere, read anew for every scrape.

        `value` is called from the event loop. What `grows` is a count since the start, and its name
        ends in `_total`.
        """
        family = CounterMetricFamily if grows else GaugeMetricFamily
        self._readings.append((family, self._prefix + name, meaning, value))

    def collect(self) -> Iterator[Any]:
        """What the registry asks for at every scrape."""
        for family, name, meaning, value in self._readings:
            yield family(name, meaning, value=value())

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def add_route(self, app: FastAPI) -> None:
        @app.get("/metrics")
        async def metrics() -> Response:
            return Response(self.text(), media_type=CONTENT_TYPE_LATEST)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(self._prefix + name, meaning, labels, registry=self.registry)


def read_engine(metrics: Metrics, load: Callable[[], Mapping[str, float]]) -> None:
    """Show what an engine tells about itself, as `rise_worker_engine_...`.

    `load` is `SlotEngine.load`.
    """

    def read(key: str, meaning: str, grows: bool) -> None:
        metrics.read(f"engine_{key}", meaning, lambda: load()[key], grows=grows)

    for key, meaning in _ENGINE_COUNTS.items():
        read(key, meaning, True)
    for key, meaning in _ENGINE_LEVELS.items():
        read(key, meaning, False)
