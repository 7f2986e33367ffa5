"""How the episodes of a run are played: what `rise.rollout.play` follows."""

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from rise.episodes.episode import REFUSALS, Turn
from rise.episodes.feedback import is_forced, knows_truth
from rise.policies.policy import Policy

CALLS = 3
"""Calls of the program after which an episode that is refused again is owed no longer."""
SEED_RANGE = 2**31 - 2**12
"""Seeds stay below 2**31 with the index of the sample added: servers take 32 bits."""


@dataclass(frozen=True)
class Plan:
    """How episodes are played. The lists run over the turns."""

    policies: Sequence[Policy]
    num_of_samples: Sequence[int]
    """Answers per turn; one of them continues."""
    temperature: Sequence[float]
    max_new_tokens: Sequence[int]
    top_p: float = 1.0
    seed: int = 0
    date: str | None = None
    """The day (YYYY-MM-DD) that prompts print whose template prints today's."""
    feedback: str = "oracle"
    """none, oracle, verdict, self or critique: see `rise.episodes.feedback`."""
    generation: bool = False
    """The best sample continues, as it becomes data, whatever the feedback is. Otherwise it does
    where the feedback rests on the truth, and elsewhere the first sample continues."""
    revise_if_wrong: bool = False
    """Where the model judges itself: an answer that it calls right stands to the end."""
    expert_sees: str = "feedback"
    """What is asked from turn 2 on, see --expert_sees; the recorded dialogue is the same."""
    context_window: int | None = None
    """c shows the opening and the last c - 1 attempts; None all of them."""
    correct_to_correct: bool = False
    """With the oracle: an episode that is right at turn 1 hears "incorrect" and goes on."""
    shown: Mapping[int, Sequence[dict[str, Any]]] = field(default_factory=dict)
    """Task id -> what is shown in place of its own attempts (`Turn.shown`), turn by turn."""
    refused: Mapping[int, int] = field(default_factory=dict)
    """Task id -> how many earlier calls ended with a refusal."""
    watch: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    """Entered while a turn is asked for; raises what is raised inside."""

    @property
    def max_turns(self) -> int:
        return len(self.policies)

    @property
    def picks_best(self) -> bool:
        return self.generation or knows_truth(self.feedback)

    def gives_up(self, task_id: int, kind: str) -> bool:
        return kind in REFUSALS and self.refused.get(task_id, 0) + 1 >= CALLS

    def goes_on(self, turns: Sequence[Turn]) -> bool:
        if len(turns) >= self.max_turns:
            return False
        if not turns or is_forced(self.feedback) or turns[-1].verdict != "right":
            return True
        return self.correct_to_correct and len(turns) == 1


def draw_seed(run_seed: int, task_id: int, turn: int, purpose: str = "") -> int:
    """The seed of the first sample of a turn (counted from 0); sample i adds i.

    It depends on nothing else, so a resumed run draws what an undisturbed one would have drawn. A
    check of an answer (`purpose`) has seeds of its own.
    """
    key = f"{run_seed}/{task_id}/{turn}{purpose}"
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % SEED_RANGE
