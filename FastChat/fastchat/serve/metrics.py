"""The numbers that a server shows to Prometheus under GET /metrics.

metrics = Metrics("worker")
metrics.read("running_rows", "Answers being generated", lambda: engine.load()["running"])
metrics.add_route(app)
metrics.count_request(0, {"prompt_tokens": 400, "completion_tokens": 120})
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily


class Metrics:
    """The metrics of one server, in a registry of their own; every name begins with `rise_`.

    Args:
        server: the second part of every name: worker, controller, api.
    """

    def __init__(self, server: str):
        self.registry = CollectorRegistry()
        self._prefix = f"rise_{server}_"
        self._requests = self._counter("requests", "Requests for answers that have ended", "code")
        self._prompt = self._counter("prompt_tokens", "Prompt tokens of answered requests")
        self._generated = self._counter("generated_tokens", "Tokens of the answers that were sent")

    def count_request(self, code: int | str, usage: Mapping[str, int] | None = None) -> None:
        """Note that a request has ended.

        Args:
            code: 0 for an answer, otherwise what went wrong: an error code or a short word.
            usage: `prompt_tokens` and `completion_tokens` of its answer.
        """
        self._requests.labels(str(code)).inc()
        if usage is not None:
            self._prompt.inc(usage["prompt_tokens"])
            self._generated.inc(usage["completion_tokens"])

    def read(
        self, name: str, meaning: str, value: Callable[[], float], *, grows: bool = False
    ) -> None:
        """Show a number that is kept elsewhere, read anew for every scrape.

        Args:
            name: without the prefix of this server's names.
            meaning: one line for people.
            value: gives the number; called from the event loop.
            grows: it is a count since the start and never falls; its name then ends in `_total`.
        """
        self.registry.register(_Reading(self._prefix + name, meaning, value, grows))

    def text(self) -> bytes:
        """All numbers in the Prometheus text format."""
        return generate_latest(self.registry)

    def add_route(self, app: FastAPI) -> None:
        """Serve the numbers under GET /metrics."""

        @app.get("/metrics")
        async def metrics() -> Response:
            return Response(self.text(), media_type=CONTENT_TYPE_LATEST)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(self._prefix + name, meaning, labels, registry=self.registry)


class _Reading:
    """A collector of one number."""

    def __init__(self, name: str, meaning: str, value: Callable[[], float], grows: bool):
        self._family = CounterMetricFamily if grows else GaugeMetricFamily
        self._name, self._meaning, self._value = name, meaning, value

    def collect(self) -> Iterator[Any]:
        yield self._family(self._name, self._meaning, value=self._value())
