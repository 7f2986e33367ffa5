"""Pair-SFT: a wrong attempt at a question, the feedback to it, and a right answer as the next turn.

The two come from any samples, turns and logs: nobody gave this right answer to that wrong attempt.
It is the baseline of turn-2 training without states of the model's own (SCoRe, arXiv 2409.12917).
Answers are stripped; empty ones, repeated ones and those whose grading timed out make no pair, nor
does a wrong attempt that nobody answered with feedback.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rise.conversion import opening_of
from rise.dataset import SUCCESS, Row, attempts_of
from rise.dataset_report import RowCounts
from rise.episode import Episode, Message
from rise.preferences import pairs_of
from rise.row_spill import RowSpill
from rise.sources import Pool
from rise.text_keys import groups, messages_key

UNPAIRED = "question without both a right and a wrong answer"


def repair_rows(
    pool: Pool, counts: RowCounts, *, env: str | None, style: str, output: Path, max_pairs: int
) -> Iterator[tuple[int, Row]]:
    """Yield (number of the log, row) for the pairs of each question, each with weight 1.

    The answers wait on the disk; 8 bytes per episode, and the answers of one question, are in
    memory.

    Args:
        pool: the logs.
        counts: takes the number of episodes and of different answers, and those without a pair.
        env: the environment of logs that do not say theirs; None is gsm8k.
        style: the prompt of logs without dialogues, as --prompt_style takes it.
        output: the answers wait on its disk.
        max_pairs: of one question at most; each answer is used once before one is used again.

    Raises:
        ValueError: if a record is no episode, or its prompt is unknown.
    """
    keys = array("Q")
    counts.attempts = 0
    with RowSpill(output) as spill:
        for number, episode in pool.episodes("read answers"):
            counts.episodes += 1
            opening = opening_of(episode, pool.sources[number], env, style) or episode.opening
            keys.append(messages_key(opening))
            ids = {"number": number, "task_id": episode.task_id}
            spill.append(ids | {"opening": opening, "answers": list(_answers(episode))})
        for places in groups(keys):
            visits = list(spill.rows(spill.offsets[place] for place in places))
            yield from _rows_of_question(visits, max_pairs, counts)


def _answers(episode: Episode) -> Iterator[tuple[str, bool, str]]:
    """(text, whether it is right, the feedback to it) of all samples of all turns."""
    for attempt in attempts_of(episode):
        turn = episode.turns[attempt.turn - 1]
        verdicts = turn.verdicts or [None] * len(turn.actions)
        samples = zip(turn.actions, turn.rewards, turn.observations, verdicts, strict=True)
        for action, reward, observation, verdict in samples:
            is_right = reward == SUCCESS
            if action.strip() and verdict != "timeout" and (is_right or observation):
                yield action.strip(), is_right, observation


def _rows_of_question(
    visits: list[dict[str, Any]], max_pairs: int, counts: RowCounts
) -> Iterator[tuple[int, Row]]:
    opening: list[Message] = visits[0]["opening"]
    found: dict[str, tuple[bool, str]] = {}
    for visit in visits:
        for text, is_right, feedback in visit["answers"]:
            found.setdefault(text, (is_right, feedback))
    counts.attempts += len(found)
    answers = [(text, int(is_right)) for text, (is_right, _) in found.items()]
    if len({is_right for _, is_right in answers}) < 2:
        counts.dropped[UNPAIRED] += len(answers)
    pairs = pairs_of(answers, max_pairs)
    for place, ((right, _), (wrong, _)) in enumerate(pairs, start=1):
        messages = [
            *opening,
            {"role": "assistant", "content": wrong},
            {"role": "user", "content": found[wrong][1]},
            {"role": "assistant", "content": right},
        ]
        task_id = visits[0]["task_id"]
        row = Row(task_id, 2, messages, len(opening), SUCCESS, weight=1.0, number=place)
        yield visits[0]["number"], row
