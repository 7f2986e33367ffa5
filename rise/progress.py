"""What a run shows while it goes on: one progress line, and the same numbers at wandb."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from typing import Any

from rise.episode import Episode
from rise.tally import Tally

log = logging.getLogger(__name__)

LOG_EVERY = 10.0
"""Seconds between two points at wandb."""
SLOW_REFRESH = 30.0
"""Seconds between two progress lines where the output is a file."""


class Progress:
    """Context manager around a rollout; `report` takes every recorded episode.

    Args:
        tally: the counts, already including the episodes of earlier calls.
        total: how many episodes the run has.
        tracker: takes the numbers; see `rise.tracking`.
    """

    def __init__(self, tally: Tally, total: int, tracker: Any):
        self.tally = tally
        self.total = total
        self.tracker = tracker
        self._logged_at = time.monotonic()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Progress:
        from tqdm import tqdm
        from tqdm.contrib.logging import logging_redirect_tqdm

        self._stack.enter_context(logging_redirect_tqdm())
        self._bar = self._stack.enter_context(
            tqdm(
                total=self.total,
                initial=self.tally.finished,
                unit="episode",
                mininterval=0.2 if sys.stderr.isatty() else SLOW_REFRESH,
            )
        )
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.set_postfix(self.tally.rates())
        self._stack.close()

    def report(self, episode: Episode) -> None:
        """Count one recorded episode and show it."""
        self.tally.add(episode)
        self._bar.update(0 if episode.error else 1)
        self._bar.set_postfix(self.tally.rates(), refresh=False)
        if log.isEnabledFor(logging.INFO):
            log.info("episode %d: %s", episode.task_id, _in_words(episode))
        if time.monotonic() - self._logged_at > LOG_EVERY:
            self._logged_at = time.monotonic()
            self.tracker.log(self.numbers())

    def numbers(self) -> dict[str, float]:
        """The counts so far, by the names that wandb shows."""
        tally = self.tally
        numbers: dict[str, float] = {"episodes": tally.finished}
        numbers["errors"] = sum(tally.errors.values())
        for t, solved in enumerate(tally.solved):
            numbers[f"success/turn_{t + 1}"] = solved / max(1, tally.finished)
        return numbers


def _in_words(episode: Episode) -> str:
    turns = [f"{turn.model} {turn.verdict} ({turn.answer})" for turn in episode.turns]
    if episode.error:
        turns.append(f"failed ({episode.error['kind']}: {episode.error['message']})")
    return " -> ".join(turns)
