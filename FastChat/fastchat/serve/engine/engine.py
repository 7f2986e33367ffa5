"""Continuous batching: one thread that steps all running answers together.

A step admits waiting requests into free slots, computes a bounded piece of their prompts, and then
decodes one token of every running answer, so that a long prompt never holds up the others. Each row
has its own sampling parameters, stop conditions and random numbers. Whatever goes wrong ends the
requests it concerns and nothing else; the thread goes on, unless the GPU can compute nothing more.

Tests and offline use may call `step()` themselves instead of `start()`.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from copy import deepcopy
from dataclasses import asdict
from itertools import islice
from typing import Any

import torch

from fastchat.constants import ErrorCode, RequestError
from fastchat.serve.engine.batches import ForwardBatches
from fastchat.serve.engine.gpu_errors import is_lost
from fastchat.serve.engine.kv_pool import Copies, KVPool, affordable_tokens
from fastchat.serve.engine.model import EngineModel
from fastchat.serve.engine.request import EngineRequest, EngineStats, as_request_error
from fastchat.serve.engine.sampling import NO_NUMBER, penalize, sample, scores
from fastchat.serve.engine.slots import SHORTEST_SHARE, Row, SlotTable

_PREFILL_TOKENS = {"cpu": 1024, "cuda": 2048}
_LEFT_SHARE, _LEFT_FROM = 8, 4
"""One slot of so many, and of so few at least one, is left to others by requests for more samples
than there are slots."""
_ATTENDED_PER_TOKEN = 16
"""Of the prompt tokens of a step: so many, rows times the longest, are attended over in it at most.
Attention may copy their keys and values, and short pieces of many long prompts have many."""
_SCORED_AT_ONCE = 64
"""Places of a prompt whose logits are in memory at a time."""


class SlotEngine:
    """Generates for many requests at once, with a copy of the tokenizer to find stop texts.

    `max_rows` answers are generated at the same time; `max_length` is the longest prompt plus
    answer, `pool_tokens` the memory for keys and values, `prefill_tokens` the prompt tokens
    computed per step, all in tokens; `kv_bytes` and `memory_fraction` are for `affordable_tokens`.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_rows: int = 64,
        max_length: int = 2048,
        pool_tokens: int | None = None,
        kv_bytes: int | None = None,
        memory_fraction: float | None = None,
        prefill_tokens: int | None = None,
        logger: logging.Logger | None = None,
    ):
        self.model = EngineModel(model)
        shapes = self.model.layer_shapes()
        device = self.model.device
        self._prefill_tokens = prefill_tokens or _PREFILL_TOKENS.get(device.type, 1024)
        self._prefill_attended = max(max_length, _ATTENDED_PER_TOKEN * self._prefill_tokens)
        if pool_tokens is None:
            attended = max_rows * max_length
            if not self.model.repeats_in_decoding:
                attended = min(attended, self._prefill_attended)
            copies = Copies(self.model.repeated_bytes(shapes), attended)
            pool_tokens = affordable_tokens(
                shapes, device, max_rows, self.model.vocabulary, memory_fraction, copies, kv_bytes
            )
        # As many slots again keep what ended rows have computed, for the prompts that continue it.
        self.pool = KVPool(shapes, 2 * max_rows, max_length, pool_tokens, device)
        self.model.check(self.pool)
        self.stats = EngineStats()
        self.on_lost: Callable[[], None] = lambda: None
        """Called by the engine's thread before it ends because the GPU can compute nothing more."""
        self._table = SlotTable(self.pool, max_rows)
        # Tokenizers are not safe to share between threads.
        self._tokenizer = deepcopy(tokenizer)
        self._logger = logger or logging.getLogger(__name__)
        self._prefills = ForwardBatches(self.model, self.pool, self._logger)
        self._decodes = ForwardBatches(self.model, self.pool, self._logger)
        self._waiting: deque[Row] = deque()
        self._special: set[EngineRequest] = set()
        """Requests that are not over and not plain; while there are none a step does nothing more
        than draw."""
        self._wake = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None

    @property
    def max_length(self) -> int:
        """The longest prompt plus answer in tokens: by the model's context and the memory."""
        return self.pool.max_length

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="slot-engine", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()
        self._fail_all(RequestError(ErrorCode.INTERNAL_ERROR, "the worker is shutting down"))

    def check(self, request: EngineRequest) -> None:
        request.check(self.max_length, self.model.vocabulary)

    def submit(self, request: EngineRequest) -> Future[EngineRequest]:
        """Queue a request; the future resolves to it, cancelling the future stops it."""
        self.check(request)
        with self._wake:
            if self._stopping:
                raise RequestError(ErrorCode.INTERNAL_ERROR, "the worker is shutting down")
            if not request.plain:
                self._special.add(request)
                request.done.add_done_callback(lambda _: self._special.discard(request))
            self._waiting.append(Row(request, list(request.samples)))
            self._wake.notify()
        return request.done

    def step(self) -> bool:
        with torch.inference_mode():
            self._table.prune()
            self._admit()
            worked = bool(self._table.filling or self._table.active)
            if self._table.filling:
                self._prefill()
                self._table.prune()
            if self._table.active:
                self._decode()
        return worked

    def load(self) -> dict[str, int]:
        table = self._table
        return {
            **asdict(self.stats),
            "running": len(table.active) + len(table.filling),
            "waiting": len(self._waiting),
            "slots": min(self.pool.rows, self._table.max_rows),
            "slot_tokens": self.pool.length,
        }

    def _run(self) -> None:
        while not self._stopping:
            try:
                if not self.step():
                    with self._wake:
                        self._wake.wait_for(lambda: self._waiting or self._stopping)
            except Exception as error:
                if is_lost(error):
                    self._lose(error)
                    return
                self._logger.exception("an engine step failed; its requests end with an error")
                for row in self._table.clear():
                    row.request.fail(as_request_error(error))

    def _lose(self, error: Exception) -> None:
        """End everything: whoever came next would get an error at once, and so attract the most."""
        lost = as_request_error(error)
        self._logger.error("%s is lost, nothing can be generated: %s", self.model.device, lost)
        with self._wake:
            self._stopping = True
        self._fail_all(lost)
        self.on_lost()

    def _fail_all(self, error: RequestError) -> None:
        for row in (*self._table.clear(), *self._waiting):
            row.request.fail(error)

    def _admit(self) -> None:
        """Give waiting requests slots, first come first served.

        Requests for more samples than there are slots leave some to the others, and wait behind
        them for more.
        """
        self._order()
        for _ in range(len(self._waiting)):
            row = self._waiting[0]
            room = len(row.samples) if row.over else self._table.room(row.request.length)
            if room == 0:
                break
            slots = self._table.taken + room
            is_wide = row.request.n > slots and not row.over
            if is_wide:
                left = max(slots >= _LEFT_FROM, slots // _LEFT_SHARE)
                room = max(0, min(room, slots - left - self._table.taken_by(slots)))
            begun, rest = row.samples[:room], row.samples[room:]
            with self._wake:
                self._waiting.popleft()
                if rest:
                    row.samples = rest
                    (self._waiting.append if is_wide else self._waiting.appendleft)(row)
            if begun and not row.over:
                self._begin(row.request, begun)
            if rest and not is_wide:
                break
        with self._wake:
            waiting = list(self._waiting)
        self._table.expect(waiting)

    def _order(self) -> None:
        """Sort the requests that can all begin now: those that are computed together are padded."""
        head = list(islice(self._waiting, self._table.room(1)))
        longest = max((row.request.length for row in head), default=0)
        if len(head) > 1 and sum(len(row.samples) for row in head) <= self._table.room(longest):
            head.sort(key=lambda row: row.to_compute)
            with self._wake:
                for place, row in enumerate(head):
                    self._waiting[place] = row

    def _begin(self, request: EngineRequest, samples: list[Any]) -> None:
        try:
            self.stats.reused_tokens += self._table.admit(request, samples)
        except Exception as error:
            # It waits no longer and may have no slot yet: nobody else would end it.
            request.fail(as_request_error(error))
            raise
        self.stats.prompt_tokens += len(request.prompt)

    def _prefill(self) -> None:
        rows, pieces = self._next_pieces()
        watch = self._score_prompts if self._special else None
        rows, logits = self._prefills.forward(rows, pieces, watch)
        finished = []
        for i, row in enumerate(rows):
            row.length += len(pieces[row])
            row.begun = True
            self.stats.prefill_tokens += len(pieces[row])
            if row.length == len(row.request.prompt):
                if row.request.max_new_tokens:
                    finished.append(i)
                else:
                    for answer in row.samples:
                        row.request.finish(answer, "length")
        if finished:
            copies = [i for i in finished for _ in rows[i].samples]
            new = self._table.activate([rows[i] for i in finished])
            self._take(new, logits[copies])

    def _next_pieces(self) -> tuple[list[Row], dict[Row, list[int]]]:
        """The first filling rows whose padded batch stays within the budgets, at least one."""
        pieces: dict[Row, list[int]] = {}
        width = end = 0
        for row in self._table.filling:
            if not row.begun and not row.request.scores_prompt:
                self.stats.reused_tokens += self._table.reuse(row)
                if any(row.shared(other) >= row.length + SHORTEST_SHARE for other in pieces):
                    # In the next step there is something to copy.
                    break
            piece = row.request.prompt[row.length : row.length + self._prefill_tokens]
            width, end = max(width, len(piece)), max(end, row.length + len(piece))
            count = len(pieces) + 1
            if pieces and (
                width * count > self._prefill_tokens or end * count > self._prefill_attended
            ):
                break
            pieces[row] = piece
        return list(pieces), pieces

    def _decode(self) -> None:
        rows = list(self._table.active)
        pieces = {row: row.samples[0].tokens[-1:] for row in rows}
        rows, logits = self._decodes.forward(rows, pieces)
        for row in rows:
            row.length += 1
        self.stats.decode_steps += 1
        if rows:
            self._take(rows, logits)

    def _score_prompts(
        self, rows: list[Row], pieces: dict[Row, list[int]], hidden: torch.Tensor
    ) -> None:
        """Score the tokens that follow those of a pass in prompts that want it."""
        for row, states in zip(rows, hidden, strict=True):
            request, end = row.request, row.length + len(pieces[row])
            if not request.scores_prompt:
                continue
            for start in range(row.length, end, _SCORED_AT_ONCE):
                following = request.prompt[start + 1 : min(start + _SCORED_AT_ONCE, end) + 1]
                if following:
                    place = start - row.length
                    logits = self.model.logits(states[place : place + len(following)])
                    found = scores(logits, following, request.logprobs or 0)
                    request.prompt_scores[start + 1 : start + 1 + len(following)] = found

    def _score(self, rows: list[Row], tokens: list[int | None], logits: torch.Tensor) -> None:
        wanted = [
            (i, row, token)
            for i, (row, token) in enumerate(zip(rows, tokens, strict=True))
            if row.request.logprobs is not None and token is not None
        ]
        if wanted:
            places, scored, drawn = zip(*wanted, strict=True)
            most = max(row.request.logprobs or 0 for row in scored)
            found = scores(logits[list(places)], drawn, most)
            for row, score in zip(scored, found, strict=True):
                row.samples[0].scores.append(score)

    def _take(self, rows: list[Row], logits: torch.Tensor) -> None:
        params = [row.request.params for row in rows]
        uniforms = [
            0.0 if row.request.params.greedy else row.samples[0].rng.random() for row in rows
        ]
        if self._special:
            prompts = [row.request.prompt for row in rows]
            answers = [row.samples[0].tokens for row in rows]
            tokens = sample(penalize(logits, params, prompts, answers), params, uniforms)
            self._score(rows, tokens, logits)
        else:
            tokens = sample(logits, params, uniforms)
        for row, token in zip(rows, tokens, strict=True):
            try:
                self._append(row, token)
            except Exception as error:
                row.request.fail(as_request_error(error))

    def _append(self, row: Row, token: int | None) -> None:
        if token is None:
            self._table.forget(row)
            raise ValueError(NO_NUMBER)
        answer = row.samples[0]
        answer.tokens.append(token)
        self.stats.generated_tokens += 1
        reason = row.request.end_of(answer.tokens, self._tokenizer)
        if reason is not None:
            row.request.finish(answer, reason)
        if row.request.on_progress is not None:
            row.request.on_progress()
