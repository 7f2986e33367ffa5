"""Episodes in shorthand, for worked examples and tests."""

from rise.episodes.episode import Episode, Turn

VERDICTS = {"r": "right", "w": "wrong", "t": "timeout", "-": "no_answer"}


def sketch(*problems: str) -> list[Episode]:
    """Episodes written as text: one string per problem, one word per turn.

    A word is `r`, `w` or `t` (right, wrong, grading timed out) with the answer behind it, or `-`
    for no answer. A comma separates the samples of a turn, of which the first goes on. A `~` at
    the end of a sample means that it was cut at the limit of new tokens. The rewards are those of
    GSM8K.

    >>> first, second = sketch("w7 r5", "r5,w6,-~ r5")
    >>> first.turns[1].verdicts, first.turns[1].answers, first.max_reward
    (['right'], ['5'], 1)
    >>> second.turns[0].rewards, second.turns[0].finish_reasons
    ([1, 0, -1], ['stop', 'stop', 'length'])
    """
    return [_episode(task_id, text) for task_id, text in enumerate(problems)]


def _episode(task_id: int, text: str) -> Episode:
    question = f"question {task_id}"
    turns = [_turn(word.split(",")) for word in text.split()]
    dialogue = [{"role": "user", "content": question}]
    for turn in turns:
        dialogue.append({"role": "assistant", "content": turn.action})
        dialogue.append({"role": "user", "content": turn.observation})
    return Episode(task_id, question, "5", turns, dialogue[:-1])


def _turn(samples: list[str]) -> Turn:
    bare = [sample.removesuffix("~") for sample in samples]
    verdicts = [VERDICTS[sample[0]] for sample in bare]
    rewards = {"right": 1, "wrong": 0, "timeout": 0, "no_answer": -1}
    return Turn(
        actions=[f"the answer is {sample[1:]}" if sample[1:] else "no idea" for sample in bare],
        answers=[sample[1:] or None for sample in bare],
        verdicts=verdicts,
        rewards=[rewards[verdict] for verdict in verdicts],
        observations=["incorrect" for _ in bare],
        finish_reasons=["length" if sample.endswith("~") else "stop" for sample in samples],
        model="sketch",
        usage={},
    )
