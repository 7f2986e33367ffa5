"""Episodes: ask, grade, tell, ask again; many at a time, each of them recorded when it ends.

The prompts, the verdicts and the rewards come from the environment alone, the answers from the
policies alone. A request that fails ends its episode with a typed error; it is owed again, unless
its prompt does not fit the model's context, which no second try would change, or it was refused in
so many calls that it is given up.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from envs.base import Env, Verdict
from fastchat.conversation import pack_ids
from rise.episodes.episode import Episode, Message, Turn, visible
from rise.episodes.feedback import asks_itself
from rise.episodes.journal import RunDir
from rise.policies.policy import ENDS_RUN, Policy, PolicyError, Sample, usage_of
from rise.rollout.plan import CALLS, Plan, draw_seed
from rise.rollout.self_check import ask, keep, told

GIVE_UP_AFTER = 100
"""Failed episodes in a row after which no further one is begun: somebody who answered is gone."""


async def play(env: Env, plan: Plan, task_id: int) -> Episode:
    question, reference = env.question(task_id), env.reference(task_id)
    episode = Episode(task_id, question, reference, feedback=plan.feedback, date=plan.date)
    while episode.error is None and plan.goes_on(episode.turns):
        await _take_turn(env, plan, episode)
    return episode


async def run_episodes(
    env: Env,
    plan: Plan,
    run: RunDir,
    owed: Iterable[int],
    *,
    concurrency: int,
    report: Callable[[Episode], None],
) -> str | None:
    """Play the problems, at most `concurrency` at a time, and append each to the run.

    `report` gets every episode, error rows included. Returns why not all were begun: after
    GIVE_UP_AFTER failures in a row, or one of a kind that every further request would have.
    """
    waiting = iter(owed)
    failures = 0
    trouble: str | None = None

    async def lane() -> None:
        nonlocal failures, trouble
        while not trouble and (task_id := next(waiting, None)) is not None:
            episode = await play(env, plan, task_id)
            run.append(episode)
            # Whoever refuses everything may be set up wrongly: given up is a failure too.
            failures = failures + 1 if episode.is_owed or episode.is_given_up else 0
            if failures >= GIVE_UP_AFTER:
                trouble = trouble or "Given up after many failures in a row."
            if episode.error and episode.error["kind"] in ENDS_RUN:
                trouble = "Stopped at once: every further request would fail in the same way."
            report(episode)

    lanes = [asyncio.create_task(lane()) for _ in range(concurrency)]
    try:
        await asyncio.gather(*lanes)
    finally:
        for task in lanes:
            task.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)
        await asyncio.gather(*(policy.close() for policy in set(plan.policies)))
    return trouble


async def _take_turn(env: Env, plan: Plan, episode: Episode) -> None:
    """Add one turn to the episode, or an error; a model that judges itself does that before."""
    t, task_id = len(episode.turns), episode.task_id
    if t:
        last = episode.turns[-1]
        if asks_itself(plan.feedback) and not last.kept:
            with _failures(plan, episode, plan.policies[t - 1]):
                await _check(env, plan, episode)
            if episode.error:
                return
        says = (last.check or {}).get("says")
        if plan.revise_if_wrong and (last.kept or says == "right"):
            episode.turns.append(keep(last))
            return
    policy = plan.policies[t]
    with _failures(plan, episode, policy):
        with plan.watch():
            samples = await policy.sample(
                _asked(env, plan, episode),
                n=plan.num_of_samples[t],
                seed=draw_seed(plan.seed, task_id, t),
                **_sampling(env, plan, task_id, t),
            )
        turn = await _grade(env, plan, task_id, t, policy.name, samples)
        if len(samples) < plan.num_of_samples[t]:
            turn.filtered = sorted({*range(plan.num_of_samples[t])} - {s.place for s in samples})
        if plan.shown and t + 1 < plan.max_turns:
            turn.shown = plan.shown[task_id][t]
        if t == 0:
            episode.date = policy.day(plan.date)
            episode.dialogue = env.opening(task_id)
        else:
            episode.dialogue.append({"role": "user", "content": last.observation})
        episode.dialogue.append({"role": "assistant", "content": turn.action})
        episode.turns.append(turn)


@contextlib.contextmanager
def _failures(plan: Plan, episode: Episode, policy: Policy) -> Iterator[None]:
    try:
        yield
    except PolicyError as error:
        failure = {"kind": error.kind, "message": error.message, "turn": len(episode.turns) + 1}
        if error.kind == "context_overflow":
            failure["final"] = True
        if plan.gives_up(episode.task_id, error.kind):
            failure |= {"final": True, "given_up_after": CALLS}
        if error.usage:
            failure |= {"model": policy.name, "usage": error.usage}
        episode.error = failure


async def _check(env: Env, plan: Plan, episode: Episode) -> None:
    t, task_id = len(episode.turns) - 1, episode.task_id
    turn = episode.turns[t]
    turn.check = await ask(
        plan.policies[t],
        [*env.opening(task_id), {"role": "assistant", "content": turn.action}],
        env.text("judge" if plan.feedback == "self" else "critique", task_id),
        seed=draw_seed(plan.seed, task_id, t, "/check"),
        **_sampling(env, plan, task_id, t),
    )
    turn.observations[turn.chosen] = told(env, task_id, plan.feedback, turn.action, turn.check)


def _sampling(env: Env, plan: Plan, task_id: int, t: int) -> dict[str, Any]:
    limits = {"temperature": plan.temperature[t], "max_new_tokens": plan.max_new_tokens[t]}
    return limits | {"top_p": plan.top_p, "problem": {**env.problems[task_id], "task_id": task_id}}


def _asked(env: Env, plan: Plan, episode: Episode) -> list[Message]:
    if not episode.turns or plan.expert_sees == "feedback":
        return next_prompt(env, episode, plan.context_window)
    if plan.expert_sees == "none":
        return env.opening(episode.task_id)
    messages = next_prompt(env, episode, plan.context_window)
    hint = env.text("hint", episode.task_id, reference=episode.answer)
    messages[-1]["content"] += f"\n\n{hint}"
    return messages


def next_prompt(env: Env, episode: Episode, context_window: int | None) -> list[Message]:
    attempts = [turn.shown["action"] if turn.shown else turn.action for turn in episode.turns]
    observations = [turn.observation for turn in episode.turns]
    return visible(env.opening(episode.task_id), attempts, observations, context_window)


async def _grade(
    env: Env, plan: Plan, task_id: int, t: int, model: str, samples: list[Sample]
) -> Turn:
    grades = await asyncio.gather(*(env.grade_async(s.text, task_id) for s in samples))
    verdicts = [grade.verdict for grade in grades]
    rewards = [grade.reward for grade in grades]
    reasoning = [sample.reasoning for sample in samples]
    ids = [pack_ids(sample.token_ids) for sample in samples if sample.token_ids is not None]
    return Turn(
        actions=[sample.text for sample in samples],
        answers=[grade.answer for grade in grades],
        verdicts=[*verdicts],
        rewards=rewards,
        observations=[
            _feedback(env, plan, task_id, t, sample.text, verdict)
            for sample, verdict in zip(samples, verdicts, strict=True)
        ],
        finish_reasons=[sample.finish_reason for sample in samples],
        model=model,
        usage=usage_of(samples),
        reasoning=reasoning if any(reasoning) else [],
        # Without the truth nobody knows which sample is best.
        chosen=rewards.index(max(rewards)) if plan.picks_best else 0,
        sees=plan.expert_sees if t and plan.expert_sees != "feedback" else None,
        token_ids=ids if len(ids) == len(samples) else [],
        tokenizer=samples[0].tokenizer,
    )


def _feedback(env: Env, plan: Plan, task_id: int, t: int, attempt: str, verdict: Verdict) -> str:
    """What is said of an answer with this verdict; empty where the model is asked later."""
    if asks_itself(plan.feedback):
        return ""
    if plan.feedback == "verdict" and verdict == "right":
        return env.text("right_again", task_id)
    # The feedback of evaluation, so that a right answer is kept under it.
    keeps_right = t == 0 and plan.correct_to_correct and plan.max_turns > 1
    if plan.feedback == "none" or (keeps_right and verdict == "right"):
        verdict = "wrong"
    return env.feedback_on(attempt, task_id, verdict)
