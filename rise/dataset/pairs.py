"""Pairs of answers: in one state (--to dpo), or to one question (--to pair_sft).

A state is what the model saw. It has several answers where a turn has several samples, and where
it was visited several times: turn 1 of one question in two iterations, say. An expert's answer
counts for the dialogue that is recorded, also where `--expert_sees` showed it something else.

Pair-SFT is a wrong attempt at a question, the feedback to it, and a right answer as the next turn,
from any samples, turns and logs: nobody gave this answer to that attempt, its text is trained. It
is the baseline of turn-2 training without states of the model's own (SCoRe, arXiv 2409.12917). A
wrong attempt without feedback makes no pair, nor does a right answer that was cut.

Answers are stripped; empty, repeated and those whose grading timed out make no pair.
"""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice
from pathlib import Path
from typing import Any

from rise.dataset.report import RowCounts, in_words
from rise.dataset.rules import SUCCESS, Row, Rules, attempts_of, until_success
from rise.dataset.sources import Pool
from rise.dataset.text_keys import groups, messages_key
from rise.dataset.writer import RowSpill
from rise.episodes.episode import Episode, Message, visible

Answer = tuple[str, int]
"""What was said, and its reward."""


@dataclass
class PairCounts:
    """What became of the answers."""

    episodes: int = 0
    answers: int = 0
    """Different answers of all states."""
    states: int = 0
    undecided: int = 0
    """States without two answers of different rewards."""
    by_turn: Counter[int] = field(default_factory=Counter)
    by_rewards: Counter[str] = field(default_factory=Counter)

    def to_dict(self) -> dict[str, Any]:
        return {
            "episodes": self.episodes,
            "states": self.states,
            "states_without_pair": self.undecided,
            "answers": self.answers,
            "pairs": sum(self.by_turn.values()),
            "pairs_by_turn": {str(turn): n for turn, n in sorted(self.by_turn.items())},
            "pairs_by_rewards": dict(sorted(self.by_rewards.items())),
        }


def preference_pairs(
    pool: Pool, rules: Sequence[Rules], counts: PairCounts, output: Path, max_pairs: int
) -> Iterator[dict[str, Any]]:
    """Yield {"id", "prompt", "chosen", "rejected", ...} for every state, in the order of the logs.

    Of the rules, one per log, the window and correct_to_correct are read. The answers wait on the
    disk of `output`: 16 bytes per visit, and the answers of one state, are in memory.
    """
    keys = array("Q")
    with RowSpill(output) as spill:
        for number, episode in pool.episodes("read states"):
            counts.episodes += 1
            for visit in _visits(episode, rules[number], pool.opening(number, episode)):
                keys.append(messages_key(visit["prompt"]))
                spill.append({"id": f"{number}-{episode.task_id}-{visit['turn']}", **visit})
        for places in groups(keys):
            visits = spill.rows(spill.offsets[place] for place in places)
            yield from _pairs_of_state(list(visits), max_pairs, counts)


def pairs_of(answers: Sequence[Answer], max_pairs: int) -> Iterator[tuple[Answer, Answer]]:
    """Up to `max_pairs` pairs (better, worse), widest gap first; each answer once before any twice.

    >>> answers = [("a", 1), ("b", 0), ("c", 1), ("d", 0)]
    >>> [better + worse for (better, _), (worse, _) in pairs_of(answers, 3)]
    ['ab', 'cd', 'ad']
    """
    rewards = sorted({reward for _, reward in answers}, reverse=True)
    gaps = sorted(combinations(rewards, 2), key=lambda pair: pair[1] - pair[0])
    pairs = (
        pair
        for high, low in gaps
        for pair in _round_robin(
            [answer for answer in answers if answer[1] == high],
            [answer for answer in answers if answer[1] == low],
        )
    )
    return islice(pairs, max_pairs)


def format_pairs(report: dict[str, Any]) -> str:
    turns, rewards = (
        ", ".join(f"{name}: {count}" for name, count in report[key].items())
        for key in ("pairs_by_turn", "pairs_by_rewards")
    )
    return (
        f"{report['episodes']} episodes, {report['states']} states, {report['answers']} different "
        f"answers -> {report['pairs']} pairs\n"
        f"pairs by turn: {turns}; by rewards: {rewards}\n"
        f"states without two answers of different rewards: {report['states_without_pair']}\n"
        f"prompts: {in_words(report['prompt_styles'])}"
    )


def _visits(
    episode: Episode, rules: Rules, opening: list[Message] | None
) -> Iterator[dict[str, Any]]:
    start = episode.opening if opening is None else opening
    actions: list[str] = []
    observations: list[str] = []
    for number, turn in until_success(attempts_of(episode), rules.correct_to_correct):
        verdicts = turn.verdicts or [""] * len(turn.actions)
        answers = [
            (action.strip(), reward)
            for action, reward, verdict in zip(turn.actions, turn.rewards, verdicts, strict=True)
            if action.strip() and verdict != "timeout"
        ]
        prompt = visible(start, actions, observations, rules.context_window)
        yield {"task_id": episode.task_id, "turn": number, "prompt": prompt, "answers": answers}
        actions.append(turn.action)
        observations.append(turn.observation)


def _pairs_of_state(
    visits: list[dict[str, Any]], max_pairs: int, counts: PairCounts
) -> Iterator[dict[str, Any]]:
    rewards: dict[str, int] = {}
    for visit in visits:
        for action, reward in visit["answers"]:
            rewards.setdefault(action, reward)
    counts.states += 1
    counts.answers += len(rewards)
    first = visits[0]
    number = 0
    for number, (better, worse) in enumerate(pairs_of(list(rewards.items()), max_pairs), start=1):
        counts.by_turn[first["turn"]] += 1
        counts.by_rewards[f"{better[1]} over {worse[1]}"] += 1
        yield {
            "id": f"{first['id']}-{number}",
            "prompt": first["prompt"],
            "chosen": [{"role": "assistant", "content": better[0]}],
            "rejected": [{"role": "assistant", "content": worse[0]}],
            "chosen_reward": better[1],
            "rejected_reward": worse[1],
            "task_id": first["task_id"],
            "turn": first["turn"],
        }
    counts.undecided += number == 0


def _round_robin(better: list[Answer], worse: list[Answer]) -> Iterator[tuple[Answer, Answer]]:
    """Every pair once: the lists side by side, then one of them shifted by one place, ..."""
    for shift in range(max(len(better), len(worse))):
        for place in range(min(len(better), len(worse))):
            if len(better) <= len(worse):
                yield better[place], worse[(place + shift) % len(worse)]
            else:
                yield better[(place + shift) % len(better)], worse[place]


UNPAIRED = "question without both a right and a wrong answer"


def repair_rows(
    pool: Pool, counts: RowCounts, output: Path, max_pairs: int
) -> Iterator[tuple[int, Row]]:
    """Yield (number of the log, row) of each question's pairs; the answers wait on the disk."""
    keys = array("Q")
    counts.attempts = 0
    with RowSpill(output) as spill:
        for number, episode in pool.episodes("read answers"):
            counts.episodes += 1
            opening = pool.opening(number, episode) or episode.opening
            keys.append(messages_key(opening))
            ids = {"number": number, "task_id": episode.task_id, "date": episode.date}
            spill.append(ids | {"opening": opening, "answers": list(_answers(episode))})
        for places in groups(keys):
            visits = list(spill.rows(spill.offsets[place] for place in places))
            yield from _rows_of_question(visits, max_pairs, counts)


def _answers(episode: Episode) -> Iterator[tuple[str, bool, str]]:
    """(text, whether it is right, the feedback to it) of all samples of all turns."""
    for _, turn in attempts_of(episode):
        verdicts = turn.verdicts or [""] * len(turn.actions)
        reasons = turn.finish_reasons or [""] * len(turn.actions)
        samples = zip(turn.actions, turn.rewards, turn.observations, verdicts, reasons, strict=True)
        for action, reward, observation, verdict, reason in samples:
            is_right = reward == SUCCESS
            is_usable = reason != "length" if is_right else observation
            if action.strip() and verdict != "timeout" and is_usable:
                yield action.strip(), is_right, observation


def _rows_of_question(
    visits: list[dict[str, Any]], max_pairs: int, counts: RowCounts
) -> Iterator[tuple[int, Row]]:
    opening: list[Message] = visits[0]["opening"]
    found: dict[str, tuple[bool, str]] = {}
    for visit in visits:
        for text, is_right, feedback in visit["answers"]:
            found.setdefault(text, (is_right, feedback))
    counts.attempts = (counts.attempts or 0) + len(found)
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
        about = {"task_id": visits[0]["task_id"], "date": visits[0]["date"], "number": place}
        row = Row(
            turn=2, messages=messages, opening=len(opening), reward=SUCCESS, weight=1.0, **about
        )
        yield visits[0]["number"], row
