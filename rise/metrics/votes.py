"""Majority votes: over samples in parallel (mK@t1) and over the turns of a rollout (m1@tK).

The published work does not say how it votes. Here an attempt without an answer does not vote,
answers that are equal by the grader are one candidate, and a tie goes to the earliest turn (for
parallel samples: to the first sample). A problem where no attempt has an answer counts as wrong.

Two answers are equal if the grader, given either of them as the reference, calls the other right.
That need not be transitive: it takes the list 1,2 for the point (1,2) and for the set {1,2}, and
the point for the set never. An answer is therefore compared with the first one of each candidate
alone, and joins the earliest that it equals: with such answers, and only then, the order decides
which of them are one candidate.
"""

from collections.abc import Callable, Sequence

from rise.episodes.episode import Episode, Turn
from rise.episodes.feedback import knows_truth

SameAnswer = Callable[[str, str], bool]


def vote(answers: Sequence[str | None], same_answer: SameAnswer) -> list[int]:
    """The indices of the attempts behind the winning answer; empty if no attempt has one.

    >>> vote(["7", None, "5", "5.0", "7"], lambda a, b: float(a) == float(b))
    [0, 4]
    >>> vote([None, None], str.__eq__)
    []
    """
    candidates: list[list[int]] = []
    for index, answer in enumerate(answers):
        if answer is None:
            continue
        for members in candidates:
            first = answers[members[0]]
            if answer == first or (first is not None and same_answer(first, answer)):
                members.append(index)
                break
        else:
            candidates.append([index])
    # Candidates stand in the order of their first vote, and max takes the first of equals.
    return max(candidates, key=len, default=[])


def mk_t1(episodes: Sequence[Episode], same_answer: SameAnswer, k: int) -> list[bool]:
    """mK@t1: is the vote of the first k independent samples of turn 1 right? One per problem.

    Formula: (problems whose winning answer is right) / (all problems). Of 5 problems the third
    below has no answer at all, and in the fourth the first of the tied answers wins.

    >>> episodes = sketch("w7,r5,r5", "r5,w7,w7", "-,-,-", "r5,w7,-", "-,-,r5")
    >>> mk_t1(episodes, str.__eq__, k=3)
    [True, False, False, True, True]
    """
    hits = []
    for episode in episodes:
        first = graded(episode, 1)
        winners = vote(first.answers[:k], same_answer)
        hits.append(_is_right([first.verdicts[index] for index in winners]))
    return hits


def m1_tk(
    episodes: Sequence[Episode], same_answer: SameAnswer, turns: int, feedback: str
) -> list[bool]:
    """m1@tK: is the vote of the turns of one forced rollout right? One per problem.

    Formula: (problems whose winning answer over turns 1..K is right) / (all problems). Where the
    model revises only what it calls wrong, the answer that stands votes at every further turn.

    >>> episodes = sketch("w7 r5 r5", "r5 w7 w8", "r5 w7 w7", "- - -")
    >>> m1_tk(episodes, str.__eq__, turns=3, feedback="none")
    [True, True, False, False]
    """
    if knows_truth(feedback):
        raise ValueError(
            f"m1@t{turns} needs turns that know nothing of the reference, this run has feedback "
            f"{feedback!r}: evaluate with --feedback none, self or critique"
        )
    hits = []
    for episode in episodes:
        played = [graded(episode, turn) for turn in range(1, turns + 1)]
        winners = vote([turn.answer for turn in played], same_answer)
        hits.append(_is_right([played[index].verdict or "" for index in winners]))
    return hits


def graded(episode: Episode, turn: int) -> Turn:
    if len(episode.turns) < turn:
        raise ValueError(
            f"problem {episode.task_id} has {len(episode.turns)} turns, turn {turn} is needed: "
            "the run was shorter, or stopped at its first success"
        )
    played = episode.turns[turn - 1]
    if not played.verdicts or not played.answers:
        raise ValueError(
            f"problem {episode.task_id} has no verdicts: published logs do not hold them; "
            "evaluate again with workflow_eval.py"
        )
    return played


def _is_right(verdicts: list[str]) -> bool:
    """Whether equal answers are right: by the first of them whose grading did not time out."""
    return next((v for v in verdicts if v != "timeout"), "timeout") == "right"
