"""Episodes: ask, grade, tell, ask again; many at a time, each of them recorded when it ends.

The prompts, the verdicts and the rewards come from the environment alone, the answers from the
policies alone. A request that fails ends its episode with a typed error; it is owed again, unless
its prompt does not fit the model's context, which no second try would change, or it was refused in
so many calls that it is given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rise.episodes.episode import Episode, Message, Turn, visible
from rise.episodes.feedback import asks_itself
from rise.episodes.journal import RunDir
from rise.policies.policy import Policy, PolicyError, Sample
from rise.rollout.plan import Plan, draw_seed
from rise.rollout.self_check import ask, keep, told

if TYPE_CHECKING:
    from envs.base import Env

GIVE_UP_AFTER = 100
"""Failed episodes in a row after which no further one is begun: somebody who answered is gone."""


async def play(env: Env, plan: Plan, task_ids: Sequence[int]) -> list[Episode]:
    """Play the episodes of one group, turn by turn together.

    An error ends its episode. Where attempts are exchanged it ends the whole group, since the
    others then have nothing to be shown.
    """
    episodes = [
        Episode(task_id, env.question(task_id), env.reference(task_id), feedback=plan.feedback)
        for task_id in task_ids
    ]
    for _ in range(plan.max_turns):
        going = [e for e in episodes if plan.goes_on(e.turns)]
        await asyncio.gather(*(_take_turn(env, plan, episode) for episode in going))
        failed = [episode for episode in episodes if episode.error]
        if failed:
            for episode in episodes:
                episode.error = episode.error or _as_partner(failed[0])
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
                # Whoever refuses everything may be set up wrongly: given up is a failure too.
                failures = failures + 1 if episode.is_owed or episode.is_given_up else 0
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
    last = episode.turns[-1] if t else None
    is_judged = last is not None and not last.kept and asks_itself(plan.feedback)
    policy = plan.policies[t - 1 if is_judged else t]
    try:
        if is_judged:
            await _check(env, plan, episode)
        if last and plan.revise_if_wrong and (last.kept or last.check["says"] == "right"):
            episode.turns.append(keep(last))
            return
        policy = plan.policies[t]
        samples = await policy.sample(
            _asked(env, plan, episode),
            n=plan.num_of_samples[t],
            seed=draw_seed(plan.seed, task_id, t),
            temperature=plan.temperature[t],
            top_p=plan.top_p,
            max_new_tokens=plan.max_new_tokens[t],
            problem={**env.problems[task_id], "task_id": task_id},
        )
    except PolicyError as error:
        episode.error = _failure(plan, error, policy, task_id, t)
        return
    turn = await _grade(env, plan, task_id, t, policy.name, samples)
    if len(samples) < plan.num_of_samples[t]:
        turn.filtered = sorted({*range(plan.num_of_samples[t])} - {s.place for s in samples})
    if t == 0:
        episode.dialogue = env.opening(task_id)
    else:
        episode.dialogue.append({"role": "user", "content": last.observation})
    episode.dialogue.append({"role": "assistant", "content": turn.action})
    episode.turns.append(turn)


async def _check(env: Env, plan: Plan, episode: Episode) -> None:
    """Let the model that gave the last answer judge it, and make feedback of what it says."""
    t, task_id = len(episode.turns) - 1, episode.task_id
    turn = episode.turns[t]
    turn.check = await ask(
        plan.policies[t],
        [*env.opening(task_id), {"role": "assistant", "content": turn.action}],
        env.text("judge" if plan.feedback == "self" else "critique", task_id),
        seed=draw_seed(plan.seed, task_id, t, "/check"),
        temperature=plan.temperature[t],
        top_p=plan.top_p,
        max_new_tokens=plan.max_new_tokens[t],
        problem={**env.problems[task_id], "task_id": task_id},
    )
    turn.observations[turn.chosen] = told(env, task_id, plan.feedback, turn.check)


def _asked(env: Env, plan: Plan, episode: Episode) -> list[Message]:
    """What the model is asked next, an expert's hint included."""
    if not episode.turns or plan.expert_sees == "feedback":
        return next_prompt(env, episode, plan.context_window)
    if plan.expert_sees == "none":
        return env.opening(episode.task_id)
    messages = next_prompt(env, episode, plan.context_window)
    hint = env.text("hint", episode.task_id, reference=episode.answer)
    messages[-1]["content"] += f"\n\n{hint}"
    return messages


def _failure(
    plan: Plan, error: PolicyError, policy: Policy, task_id: int, t: int
) -> dict[str, Any]:
    """The error of an episode, as it is recorded."""
    failure: dict[str, Any] = {"kind": error.kind, "message": error.message, "turn": t + 1}
    if error.kind == "context_overflow":
        failure["final"] = True
    if plan.gives_up(task_id, error.kind):
        failure |= {"final": True, "given_up_after": plan.give_up_after}
    if error.usage:
        failure |= {"model": policy.name, "usage": error.usage}
    return failure


def _as_partner(failed: Episode) -> dict[str, Any]:
    """The error of an episode that was to be shown the attempts of one that failed."""
    error = {
        "kind": "partner",
        "message": f"episode {failed.task_id}, whose attempts it is shown, failed",
        "turn": len(failed.turns) + 1,
        "final": not failed.is_owed,
    }
    shared = {"given_up_after": failed.error["given_up_after"]} if failed.is_given_up else {}
    return error | shared


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
    verdicts = [grade.verdict for grade in grades]
    rewards = [grade.reward for grade in grades]
    return Turn(
        actions=[sample.text for sample in samples],
        answers=[grade.answer for grade in grades],
        verdicts=verdicts,
        rewards=rewards,
        observations=[_feedback(env, plan, task_id, t, verdict) for verdict in verdicts],
        finish_reasons=[sample.finish_reason for sample in samples],
        model=model,
        usage={
            "prompt_tokens": samples[0].prompt_tokens,
            "completion_tokens": sum(sample.completion_tokens for sample in samples),
            **({"requests": samples[0].requests} if samples[0].requests > 1 else {}),
        },
        # Without the truth nobody knows which sample is best.
        chosen=rewards.index(max(rewards)) if plan.picks_best else 0,
        sees=plan.expert_sees if t and plan.expert_sees != "feedback" else None,
    )


def _feedback(env: Env, plan: Plan, task_id: int, t: int, verdict: str) -> str:
    """What is said of an answer with this verdict; empty where the model is asked later."""
    if asks_itself(plan.feedback):
        return ""
    if plan.feedback == "verdict" and verdict == "right":
        return env.text("right_again", task_id)
    # The feedback of evaluation, so that a right answer is kept under it.
    keeps_right = t == 0 and plan.correct_to_correct and plan.max_turns > 1
    if plan.feedback == "none" or (keeps_right and verdict == "right"):
        verdict = "wrong"
    return env.feedback(task_id, verdict)
