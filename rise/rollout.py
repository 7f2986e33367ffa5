"""Episodes: ask, grade, tell, ask again; many at a time, each of them recorded when it ends.

The prompts, the verdicts and the rewards come from the environment alone, the answers from the
policies alone. A request that fails ends its episode with a typed error; it is owed again, unless
its prompt does not fit the model's context, which no second try would change.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rise.episode import Episode, Message, Turn, visible
from rise.policies import Policy, PolicyError, Sample
from rise.trajectory import RunDir

if TYPE_CHECKING:
    from envs.base import Env

GIVE_UP_AFTER = 100
"""Failed episodes in a row after which no further one is begun: somebody who answered is gone."""
SEED_RANGE = 2**31 - 2**12
"""Seeds stay below 2**31 with the index of the sample added: servers take 32 bits."""


@dataclass(frozen=True)
class Plan:
    """How episodes are played. The lists run over the turns."""

    policies: Sequence[Policy]
    """Who answers."""
    num_of_samples: Sequence[int]
    """Answers per turn; one of them continues."""
    temperature: Sequence[float]
    """Sampling temperature; 0 is greedy."""
    max_new_tokens: Sequence[int]
    """Limit of one answer, in tokens."""
    top_p: float = 1.0
    """Share of the probability mass that is sampled from."""
    seed: int = 0
    """Seed of the run: every draw is derived from it."""
    feedback: str = "oracle"
    """oracle: the feedback is true, the best sample continues, and a success ends the episode;
    none: the feedback is "incorrect" whatever was answered, and the first sample continues."""
    context_window: int | None = None
    """c shows the opening and the last c - 1 attempts; None all of them."""
    correct_to_correct: bool = False
    """With the oracle: an episode that is right at turn 1 hears "incorrect" and goes on."""
    shown_attempt: str = "own"
    """own, or other: from turn 2 on the attempts shown are those of another problem."""

    @property
    def max_turns(self) -> int:
        """Turns that an episode takes at most."""
        return len(self.policies)

    def goes_on(self, turns: Sequence[Turn]) -> bool:
        """Whether an episode with these turns has another one."""
        if len(turns) >= self.max_turns:
            return False
        if not turns or self.feedback == "none" or turns[-1].verdict != "right":
            return True
        return self.correct_to_correct and len(turns) == 1


def draw_seed(run_seed: int, task_id: int, turn: int) -> int:
    """The seed of the first sample of a turn (counted from 0); sample i adds i.

    It depends on nothing else, so a resumed run draws what an undisturbed one would have drawn.
    """
    digest = hashlib.blake2b(f"{run_seed}/{task_id}/{turn}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % SEED_RANGE


def groups_of(task_ids: Sequence[int], shown_attempt: str, seed: int) -> Iterable[list[int]]:
    """The problems that must be played together: single ones, or pairs that exchange attempts.

    With `shown_attempt` "other" the problems are shuffled by the seed and paired; an odd one makes
    a group of three.

    Raises:
        ValueError: if attempts are to be exchanged and there is only one problem.
    """
    if shown_attempt == "own":
        return ([task_id] for task_id in task_ids)
    if len(task_ids) < 2:
        raise ValueError("--shown_attempt other needs two problems or more")
    shuffled = list(task_ids)
    random.Random(seed).shuffle(shuffled)
    groups = [shuffled[i : i + 2] for i in range(0, len(shuffled), 2)]
    if len(groups[-1]) == 1:
        odd = groups.pop()
        groups[-1] += odd
    return groups


async def play(env: Env, plan: Plan, task_ids: Sequence[int]) -> list[Episode]:
    """Play the episodes of one group, turn by turn together.

    An error ends its episode. Where attempts are exchanged it ends the whole group, since the
    others then have nothing to be shown.
    """
    episodes = [
        Episode(task_id, env.question(task_id), env.reference(task_id), dialogue=[])
        for task_id in task_ids
    ]
    for _ in range(plan.max_turns):
        going = [e for e in episodes if plan.goes_on(e.turns)]
        await asyncio.gather(*(_take_turn(env, plan, episode) for episode in going))
        failed = [episode for episode in episodes if episode.error]
        if failed:
            for episode in episodes:
                episode.error = episode.error or {
                    "kind": "partner",
                    "message": f"episode {failed[0].task_id}, whose attempts it is shown, failed",
                    "turn": len(failed[0].turns) + 1,
                    "final": not failed[0].is_owed,
                }
            break
        if plan.shown_attempt == "other":
            for episode, other in zip(episodes, episodes[1:] + episodes[:1], strict=True):
                shown = {"task_id": other.task_id, "action": other.turns[-1].action}
                episode.turns[-1].shown = shown
    return episodes


async def run_episodes(
    env: Env,
    plan: Plan,
    run: RunDir,
    groups: Iterable[Sequence[int]],
    *,
    concurrency: int,
    report: Callable[[Episode], None],
) -> bool:
    """Play all groups, at most `concurrency` episodes at a time, and append each to the run.

    An episode that the run has already is not recorded twice; `report` gets every other one,
    error rows included. Returns whether all groups were begun: False after GIVE_UP_AFTER failures
    in a row.
    """
    waiting = iter(groups)
    failures = 0

    async def lane() -> None:
        nonlocal failures
        while failures < GIVE_UP_AFTER and (group := next(waiting, None)) is not None:
            for episode in await play(env, plan, group):
                if episode.task_id in run.done:
                    continue
                run.append(episode)
                failures = failures + 1 if episode.is_owed else 0
                report(episode)

    size = 1 if plan.shown_attempt == "own" else 2
    lanes = [asyncio.create_task(lane()) for _ in range(max(1, concurrency // size))]
    try:
        await asyncio.gather(*lanes)
    finally:
        for task in lanes:
            task.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)
        await asyncio.gather(*(policy.close() for policy in set(plan.policies)))
    return failures < GIVE_UP_AFTER


async def _take_turn(env: Env, plan: Plan, episode: Episode) -> None:
    """Add one turn to the episode, or an error."""
    t, task_id = len(episode.turns), episode.task_id
    policy = plan.policies[t]
    try:
        samples = await policy.sample(
            next_prompt(env, episode, plan.context_window),
            n=plan.num_of_samples[t],
            seed=draw_seed(plan.seed, task_id, t),
            temperature=plan.temperature[t],
            top_p=plan.top_p,
            max_new_tokens=plan.max_new_tokens[t],
            problem={**env.problems[task_id], "task_id": task_id},
        )
    except PolicyError as error:
        episode.error = _failure(error, policy, t)
        return
    turn = await _grade(env, plan, task_id, t, policy.name, samples)
    if t == 0:
        episode.dialogue = env.opening(task_id)
    else:
        episode.dialogue.append({"role": "user", "content": episode.turns[-1].observation})
    episode.dialogue.append({"role": "assistant", "content": turn.action})
    episode.turns.append(turn)


def _failure(error: PolicyError, policy: Policy, t: int) -> dict[str, Any]:
    """The error of an episode, as it is recorded."""
    failure: dict[str, Any] = {"kind": error.kind, "message": error.message, "turn": t + 1}
    if error.kind == "context_overflow":
        failure["final"] = True
    if error.usage:
        failure |= {"model": policy.name, "usage": error.usage}
    return failure


def next_prompt(env: Env, episode: Episode, context_window: int | None) -> list[Message]:
    """What the model sees before its next attempt."""
    attempts = [turn.shown["action"] if turn.shown else turn.action for turn in episode.turns]
    observations = [turn.observation for turn in episode.turns]
    return visible(env.opening(episode.task_id), attempts, observations, context_window)


async def _grade(
    env: Env, plan: Plan, task_id: int, t: int, model: str, samples: list[Sample]
) -> Turn:
    """The turn with its verdicts, the sample that continues and the feedback that it gets."""
    grades = await asyncio.gather(*(env.grade_async(s.text, task_id) for s in samples))
    rewards = [grade.reward for grade in grades]
    forced = plan.feedback == "none"
    turn = Turn(
        actions=[sample.text for sample in samples],
        answers=[grade.answer for grade in grades],
        verdicts=[grade.verdict for grade in grades],
        rewards=rewards,
        observations=[],
        finish_reasons=[sample.finish_reason for sample in samples],
        model=model,
        usage={
            "prompt_tokens": samples[0].prompt_tokens,
            "completion_tokens": sum(sample.completion_tokens for sample in samples),
            **({"requests": samples[0].requests} if samples[0].requests > 1 else {}),
        },
        # Without an oracle nobody knows which sample is best.
        chosen=0 if forced else rewards.index(max(rewards)),
    )
    told = ["wrong"] * len(samples) if forced else list(turn.verdicts)
    if not forced and t == 0 and plan.correct_to_correct and plan.max_turns > 1:
        # The feedback of evaluation, so that a right answer is kept under it.
        told = ["wrong" if verdict == "right" else verdict for verdict in told]
    turn.observations = [env.feedback(task_id, verdict) for verdict in told]
    return turn
