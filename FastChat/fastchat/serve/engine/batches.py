"""Forward passes over many rows, in as few parts as the memory allows."""

import logging
from collections.abc import Callable
from functools import partial

import torch

from fastchat.serve.engine.gpu_errors import is_lost
from fastchat.serve.engine.kv_pool import KVPool, Span
from fastchat.serve.engine.model import EngineModel
from fastchat.serve.engine.request import as_request_error
from fastchat.serve.engine.slots import Row

_HALVINGS_UNTIL_RETRY = 512
"""Halvings by a limit until twice as much is tried: what filled the memory may be gone."""


class ForwardBatches:
    """Computes rows together and remembers how many fit; one object per kind of step.

    A batch that fails is computed in halves. If all its rows succeed there, its size was the cause,
    and later batches are halved down to the size that worked before any is tried.
    """

    def __init__(self, model: EngineModel, pool: KVPool, logger: logging.Logger):
        self._model = model
        self._pool = pool
        self._logger = logger
        self._limit: int | None = None
        """Tokens of a pass with its padding, which are its rows when decoding; None is no limit."""
        self._lowest: int | None = None
        """The lowest limit so far, which is the last one that was logged."""
        self._halvings = 0

    def forward(
        self,
        rows: list[Row],
        pieces: dict[Row, list[int]],
        watch: Callable[..., None] | None = None,
    ) -> tuple[list[Row], torch.Tensor]:
        """Compute the tokens that come next in rows whose slots follow each other.

        Returns the rows that were computed, in their order, and the logits after them, (B, V). Rows
        that cannot be computed fail alone; it raises only what `is_lost`. `watch` is shown rows,
        pieces and the hidden states of each pass, even of one that fails afterwards.
        """
        if len(rows) > 1 and self._limit is not None and _size(rows, pieces) > self._limit:
            self._count_halving()
            return _joined([self.forward(half, pieces, watch) for half in _halves(rows)])
        logits, cause = self._try(rows, pieces, watch)
        if logits is not None:
            return rows, logits
        # Only here: while the error was handled, its traceback held what the pass had allocated.
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(rows) == 1:
            return [], torch.empty(0)
        done, logits = _joined([self.forward(half, pieces, watch) for half in _halves(rows)])
        if len(done) == len(rows):
            self._lower(max(_size(half, pieces) for half in _halves(rows)), cause)
        return done, logits

    def _try(
        self, rows: list[Row], pieces: dict[Row, list[int]], watch: Callable[..., None] | None
    ) -> tuple[torch.Tensor | None, str]:
        """The logits of one pass, or None and why it failed; a single row's request fails too."""
        try:
            counts = [len(pieces[row]) for row in rows]
            span = Span(rows[0].slot, [row.length for row in rows], counts)
            tokens = [pieces[row] for row in rows]
            if watch is None:
                return self._model.forward(self._pool, span, tokens), ""
            return self._model.forward(self._pool, span, tokens, partial(watch, rows, pieces)), ""
        except Exception as error:
            if is_lost(error):
                raise
            cause = f"{type(error).__name__}: {error}"
            if len(rows) == 1:
                self._logger.error("a request failed: %s", cause)
                rows[0].request.fail(as_request_error(error))
            return None, cause

    def _lower(self, limit: int, cause: str) -> None:
        # A half that failed too has found a lower limit already.
        if self._limit is not None and self._limit <= limit:
            return
        self._limit, self._halvings = limit, 0
        if self._lowest is None or limit < self._lowest:
            self._lowest = limit
            self._logger.warning(
                "a batch failed (%s); at most %d tokens are computed at a time", cause, limit
            )

    def _count_halving(self) -> None:
        self._halvings += 1
        if self._halvings == _HALVINGS_UNTIL_RETRY and self._limit is not None:
            self._limit, self._halvings = 2 * self._limit, 0


def _size(rows: list[Row], pieces: dict[Row, list[int]]) -> int:
    return len(rows) * max(len(pieces[row]) for row in rows)


def _halves(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    middle = (len(rows) + 1) // 2
    return rows[:middle], rows[middle:]


def _joined(parts: list[tuple[list[Row], torch.Tensor]]) -> tuple[list[Row], torch.Tensor]:
    computed = [logits for rows, logits in parts if rows]
    logits = torch.cat(computed) if computed else torch.empty(0)
    return [row for rows, _ in parts for row in rows], logits
