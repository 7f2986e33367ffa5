"""What a run shows while it goes on: a progress line, and its numbers for the tracker."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from rise.episodes.episode import Episode
from rise.policies.policy import Policy
from rise.runs.tally import Tally

log = logging.getLogger(__name__)

LOG_EVERY = 10.0
"""Seconds between two points of the tracker."""
FIRST_LINE = 3.0
"""Seconds after which there is a line, whatever has happened."""
LINE_EVERY = 30.0
"""Seconds between two lines where the output is no terminal but a file."""
COUNT_EVERY = 2.0
"""Seconds between two questions to the workers how much they have drawn."""
GONE_FOR = 3.0
"""Seconds without an answer after which it is said who is waited for."""
BAR = "{percentage:3.0f}%|{bar:16}| {desc}"


class Progress:
    """A line redrawn on a terminal, elsewhere a line now and then; `report` takes the episodes."""

    def __init__(self, tally: Tally, total: int, tracker: Any):
        self.tally = tally
        self.total = total
        self.tracker = tracker
        self._finished_before = tally.finished
        self._tokens_before = tally.completion_tokens
        self._started = self._logged_at = time.monotonic()
        self._shown_at = self._started - LINE_EVERY + FIRST_LINE
        self.answered = self.in_flight = 0
        """Turns asked for by this call: how many were answered, how many are not yet."""
        self._begun_at = 0.0
        """Sum of the times at which those in flight were asked."""
        self._took = 0.0
        """Seconds that the answered ones took, together."""
        self._in_episodes = 0
        """Turns of the episodes that this call finished."""
        self.policies: Sequence[Policy] = ()
        """Who answers, so that it is said who is waited for."""
        self._counts: dict[str, int] = {}
        """Worker -> tokens that it had drawn when it was asked last."""
        self._drawn = 0
        """Tokens that the workers have drawn since they were asked first."""
        self._counted = [0.0, 0.0]
        """When that was, and when it was last."""
        self._stack = contextlib.ExitStack()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from tqdm import tqdm
            from tqdm.contrib.logging import logging_redirect_tqdm

            self._stack.enter_context(logging_redirect_tqdm())
            initial = self.tally.finished
            bar = tqdm(total=self.total, initial=initial, bar_format=BAR, desc=self.line())
            self._bar = self._stack.enter_context(bar)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is None:
            print(self.line(), file=sys.stderr, flush=True)
        else:
            self._bar.set_description_str(self.line())
        self._stack.close()
        self._log()

    def report(self, episode: Episode) -> None:
        self.tally.add(episode)
        if log.isEnabledFor(logging.INFO):
            log.info("episode %d: %s", episode.task_id, _in_words(episode))
        if not episode.is_owed:
            self._in_episodes += len(episode.turns)
        self.show(0 if episode.is_owed else 1)

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Around a turn that is asked for: it is in flight, then answered, unless it fails."""
        begun = time.monotonic()
        self.in_flight += 1
        self._begun_at += begun
        try:
            yield
            self.answered += 1
            self._took += time.monotonic() - begun
        finally:
            self.in_flight -= 1
            self._begun_at -= begun

    async def keep_showing(self) -> None:
        counting = asyncio.create_task(self._keep_counting())
        try:
            while True:
                await asyncio.sleep(1.0)
                self.show()
        finally:
            counting.cancel()

    async def _keep_counting(self) -> None:
        while True:
            for policy in dict.fromkeys(self.policies):
                for worker, count in (await policy.drawn()).items():
                    self.count(worker, count)
            await asyncio.sleep(COUNT_EVERY if self._counts else 0.5)

    def count(self, worker: str, drawn: int) -> None:
        """Take how many tokens a worker has drawn since its start, for whomever."""
        self._counted = [self._counted[0] or time.monotonic(), time.monotonic()]
        self._drawn += max(0, drawn - self._counts.get(worker, drawn))
        self._counts[worker] = drawn

    def show(self, finished: int = 0) -> None:
        now = time.monotonic()
        if self._bar is not None:
            self._bar.set_description_str(self.line(), refresh=not finished)
            self._bar.update(finished)
        elif now - self._shown_at > LINE_EVERY:
            self._shown_at = now
            print(self.line(), file=sys.stderr, flush=True)
        if now - self._logged_at > LOG_EVERY:
            self._logged_at = now
            self._log()

    def _log(self) -> None:
        self.tracker.log(self.numbers(), "episodes", self.tally.finished)

    def numbers(self) -> dict[str, float]:
        """The counts so far, by the names that trackers show.

        Tokens per second are those of the answers recorded by this call; eta_seconds is missing
        until one turn is answered, and when all are.
        """
        tally = self.tally
        seconds = max(1e-9, time.monotonic() - self._started)
        finished = tally.finished - self._finished_before
        numbers: dict[str, float] = {"episodes": tally.finished, "total": self.total}
        numbers["errors"] = sum(tally.errors.values())
        for t, solved in enumerate(tally.solved):
            numbers[f"success/turn_{t + 1}"] = solved / max(1, tally.finished)
        new_tokens = tally.completion_tokens - self._tokens_before
        numbers["tokens_per_second"] = new_tokens / seconds
        if (left := self._seconds_left(seconds, finished)) is not None:
            numbers["eta_seconds"] = left
        if tally.prices:
            numbers["cost_usd"] = tally.cost_usd
        return numbers

    def _seconds_left(self, seconds: float, finished: int) -> float | None:
        """What is left, by how long a turn takes and how many are in flight; None if unknown."""
        episodes = self.total - self.tally.finished
        if not episodes or not (finished or self.answered):
            return None
        if not self.answered or not self.in_flight:
            return seconds / finished * episodes if finished else None
        age = time.monotonic() - self._begun_at / self.in_flight
        took = max(self._took / self.answered, age)
        turns = self._in_episodes / finished if finished else self.tally.max_turns
        begun = self.answered - self._in_episodes  # of episodes that are not finished
        return took * max(self.in_flight, episodes * turns - begun) / self.in_flight

    def line(self) -> str:
        numbers = self.numbers()
        shares = [100 * v for name, v in numbers.items() if name.startswith("success/")]
        solved = " ".join(f"{share:.1f}" for share in shares)
        # An oracle run counts what is solved by a turn, a forced run what is right at it.
        kind = "solved by" if self.tally.cumulative else "right at"
        parts = [f"{self.tally.finished} of {self.total} episodes"]
        if self.answered or self.in_flight:
            parts.append(f"{self.answered} requests answered, {self.in_flight} in flight")
        if self.tally.finished:
            parts.append(
                f"{kind} turn 1{f' to {len(shares)}' if len(shares) > 1 else ''}: {solved} %"
            )
        parts += [f"{numbers['errors']} failed"] if numbers["errors"] else []
        if self._drawn:
            rate = self._drawn / (self._counted[1] - self._counted[0])
            parts.append(f"{rate:.0f} tokens/s at the workers")
        elif self.tally.completion_tokens:
            parts.append(f"{numbers['tokens_per_second']:.0f} tokens/s")
        parts += [f"{numbers['cost_usd']:.2f} USD"] if "cost_usd" in numbers else []
        if "eta_seconds" in numbers:
            parts.append(f"{_clock(numbers['eta_seconds'])} left")
        for policy in dict.fromkeys(self.policies):
            retries = policy.retries
            left = retries.seconds_left() if retries else 0
            if retries and left and left < retries.patience - GONE_FOR:
                parts.append(f"{policy.name} is gone and waited for, {_clock(left)} at most")
        return ", ".join(parts)


def _clock(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))


def _in_words(episode: Episode) -> str:
    turns = [f"{turn.model} {turn.verdict} ({turn.answer})" for turn in episode.turns]
    if episode.error:
        turns.append(f"failed ({episode.error['kind']}: {episode.error['message']})")
    return " -> ".join(turns)
