"""What happens turn by turn: accuracy, repairs, losses, missing and cut answers, copies, loops.

Turns are counted from 1. Functions that answer yes or no give one value per problem, in the order
of the episodes, so that two runs can be compared problem by problem; `rise.metrics.statistics`
turns them into rates with intervals. An attempt without an answer, or whose grading timed out, is
not right. A model's check calls an answer wrong unless it says that it is right; the answers of the
last turn are not checked, nor is an answer that stands checked again.

The examples write episodes by `sketch` of `rise.episodes.shorthand`.
"""

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

from rise.episodes.episode import Episode, Turn
from rise.episodes.feedback import is_forced
from rise.metrics.statistics import Rate, bootstrap_mean, mean_share, paired_difference, wilson
from rise.metrics.texts import edit_similarity, repetition
from rise.metrics.votes import graded

NOT_MADE = "none"
"""Finish reason of an attempt that could not be made: it is a copy of nothing, like nothing."""


def m1_t1(episodes: Sequence[Episode]) -> list[bool]:
    """m1@t1: is the first sample of turn 1 right?

    Formula: (problems whose first sample is right) / (all problems). Where turn 1 has more
    samples, the others do not count: choosing among them would need the truth.

    >>> m1_t1(sketch("r5", "w7,r5", "-"))
    [True, False, False]
    """
    return [graded(episode, 1).verdicts[0] == "right" for episode in episodes]


def acc_t(episodes: Sequence[Episode], turn: int, feedback: str) -> list[bool]:
    """acc@t: is the problem right at turn t?

    Formula: (problems right at turn t) / (all problems). In a forced run (any feedback but
    "oracle") it is the attempt at turn t that counts, whatever came before. An oracle run stops at
    its first success, so a problem once solved stays solved: acc@t counts the problems solved at
    any of the turns 1..t, and it cannot fall. With several samples per turn a run whose feedback
    knows the truth goes on with the best, and its acc@t is that of best-of-N.

    >>> acc_t(sketch("r5 w7", "w7 r5", "- w7"), 2, feedback="none")
    [False, True, False]
    >>> acc_t(sketch("r5", "w7 r5", "- w7"), 2, feedback="oracle")
    [True, True, False]
    """
    if is_forced(feedback):
        return [graded(episode, turn).verdict == "right" for episode in episodes]
    return p1_tk(episodes, turn)


def p1_tk(episodes: Sequence[Episode], turns: int) -> list[bool]:
    """p1@tK: is any attempt of the turns 1..K right?

    Formula: (problems with at least one right attempt) / (all problems). Without an oracle nobody
    knows which attempt that is. A forced run and an oracle run agree on it.

    >>> p1_tk(sketch("r5 w7", "w7 w8", "w7 -"), 2), p1_tk(sketch("r5", "w7 w8", "w7 -"), 2)
    ([True, False, False], [True, False, False])
    """
    return [
        any(
            graded(episode, turn).verdict == "right"
            for turn in range(1, max(1, min(turns, len(episode.turns))) + 1)
        )
        for episode in episodes
    ]


def pass_at_k(episodes: Sequence[Episode], k: int) -> list[float]:
    """pass@k: how likely is it that one of k independent samples is right?

    Formula, per problem with n samples at turn 1 of which c are right: 1 - C(n-c, k) / C(n, k),
    the share of the subsets of k samples that hold a right one (unbiased for k <= n; Chen et al.
    2021, eq. 1). Only the samples of turn 1 count: the attempts of later turns have seen each
    other, see `p1_tk` for them.

    >>> run = sketch("r5,w7,w8,w9", "w7,r5,-,r5", "w7,w7,w8,-")
    >>> pass_at_k(run, 1), pass_at_k(run, 2)
    ([0.25, 0.5, 0.0], [0.5, 0.8333333333333334, 0.0])
    """
    shares = []
    for episode in episodes:
        verdicts = graded(episode, 1).verdicts
        wrong = len(verdicts) - verdicts.count("right")
        shares.append(1 - math.comb(wrong, k) / math.comb(len(verdicts), k))
    return shares


def fixed(episodes: Sequence[Episode], t: int, u: int) -> list[bool]:
    """i->c: is the problem wrong at turn t and right at turn u? Forced runs only.

    Formula: (problems wrong at t, right at u) / (all problems), so that
    Delta(t, u) = i->c minus c->i.

    >>> fixed(sketch("w7 r5", "r5 r5", "r5 w7"), 1, 2)
    [True, False, False]
    """
    return [not at_t and at_u for at_t, at_u in _pairs(episodes, t, u)]


def broken(episodes: Sequence[Episode], t: int, u: int) -> list[bool]:
    """c->i: is the problem right at turn t and wrong (or unanswered) at turn u? Forced runs only.

    Formula: (problems right at t, not right at u) / (all problems).

    >>> broken(sketch("w7 r5", "r5 r5", "r5 -"), 1, 2)
    [False, False, True]
    """
    return [at_t and not at_u for at_t, at_u in _pairs(episodes, t, u)]


def delta(episodes: Sequence[Episode], t: int, u: int) -> Rate:
    """Delta(t, u): acc@u minus acc@t over all problems, paired bootstrap. Forced runs only.

    >>> delta(sketch("w7 r5", "w7 r5", "r5 w7", "r5 r5"), 1, 2).value
    0.25
    """
    return paired_difference(acc_t(episodes, u, "none"), acc_t(episodes, t, "none"))


def fresh_draws(
    episodes: Sequence[Episode], t: int, right: bool, samples: Sequence[Episode] | None = None
) -> list[tuple[bool, float]]:
    """Is the attempt at turn t + 1 better than a fresh draw, an answer to the question alone?

    One pair per problem whose attempt at turn t is right (`right`) or not (wrong, no answer): is
    the attempt at turn t + 1 right, and the share of right ones among the other samples of turn 1,
    all but the one that the episode went on with. They are independent of it given the problem, so
    a model that answers afresh at every turn has the same mean on both sides, one that copies has
    more after a right attempt and less after a wrong one, and one that corrects has more after
    both. Problems without another sample, and attempts that were not the model's own
    (`--shown_attempts`), are left out. Each problem counts once, however many samples it has;
    intervals are those of `mean_share`, of the difference the paired bootstrap over these problems.
    Forced runs only.

    `samples` is a run of the same model with several samples at turn 1, by default this one. In
    the example two problems begin right: 1 of 2 stays so, fresh draws are right in 1/2 and 2/2.

    >>> run = sketch("r5,r5,w7 r5", "r5,r5,r5 w7", "w7,r5,w8 r5", "w7,-,w8 w7")
    >>> fresh_draws(run, 1, right=True)
    [(True, 0.5), (False, 1.0)]
    >>> fresh_draws(run, 1, right=False)
    [(True, 0.5), (False, 0.0)]
    """
    drawn = {episode.task_id: graded(episode, 1).verdicts for episode in samples or episodes}
    found = []
    for episode, (at_t, after) in zip(episodes, _pairs(episodes, t, t + 1), strict=True):
        verdicts, own = drawn.get(episode.task_id, []), episode.turns[0].chosen
        others = [verdict == "right" for i, verdict in enumerate(verdicts) if i != own]
        if at_t == right and others and not episode.turns[t - 1].shown:
            found.append((after, sum(others) / len(others)))
    return found


def fresh_draw_rates(
    episodes: Sequence[Episode], max_turns: int, samples: Sequence[Episode]
) -> dict[str, Any]:
    """{"after_right", "after_wrong"}: "t,u" -> {"next", "fresh", "difference"}, if n > 0.

    Empty where all samples of a problem are the same, as at temperature 0: none of them is fresh.
    """
    if all(len({*episode.turns[0].actions}) == 1 for episode in samples if episode.turns):
        return {}
    found: dict[str, Any] = {"after_right": {}, "after_wrong": {}}
    for (name, rates), t in product(found.items(), range(1, max_turns)):
        if pairs := fresh_draws(episodes, t, name == "after_right", samples):
            after, fresh = zip(*pairs, strict=True)
            rates[f"{t},{t + 1}"] = {
                "next": wilson(after).to_dict(),
                "fresh": mean_share(fresh).to_dict(),
                "difference": paired_difference(after, fresh).to_dict(),
            }
    return found if any(found.values()) else {}


def turns_used(episodes: Sequence[Episode]) -> list[int]:
    """The number of turns that each problem took: K in a forced run, fewer where an oracle stops.

    >>> turns_used(sketch("r5", "w7 r5", "w7 w8 w9"))
    [1, 2, 3]
    """
    return [len(episode.turns) for episode in episodes]


def sample_share(episodes: Sequence[Episode], turn: int, key: str, value: str) -> list[float]:
    """The share of a turn's samples with a verdict (no_answer, timeout) or finish reason (length).

    One value per problem that reached the turn: the denominator is those problems, and all samples
    of a problem count alike.

    >>> sample_share(sketch("-,w7 r5", "r5", "w7 -"), 1, "verdicts", "no_answer")
    [0.5, 0.0, 0.0]
    >>> sample_share(sketch("w7~ r5", "r5", "w7 w8~"), 2, "finish_reasons", "length")
    [0.0, 1.0]
    """
    reached = [getattr(played, key) for played in _reached(episodes, turn)]
    return [values.count(value) / len(values) for values in reached]


def copied(episodes: Sequence[Episode], turn: int) -> list[bool]:
    """Is the attempt at this turn, but for outer white space, the previous attempt again?

    One value per problem that was asked at the turn: an answer that stands without being asked for
    again is no copy. Attempts without an answer count too.

    >>> copied(sketch("w7 w7", "w7 r5", "r5"), 2)
    [True, False]
    """
    return [
        before.action.strip() == now.action.strip() and _is_made(now)
        for before, now in _consecutive(episodes, turn)
    ]


def repeated(episodes: Sequence[Episode], turn: int) -> list[float]:
    """The share of a turn's text that repeats itself: `rise.metrics.texts.repetition`.

    One value per problem that reached the turn, the mean over all its samples.

    >>> run = sketch("w7 r5", "r5")
    >>> run[0].turns[0].actions = ["it is 4 so it is 4 so it is 4"]
    >>> repeated(run, 1)
    [0.5, 0.0]
    """
    reached = _reached(episodes, turn)
    return [sum(map(repetition, played.actions)) / len(played.actions) for played in reached]


def similar(episodes: Sequence[Episode], turn: int) -> list[float]:
    """How alike this turn's attempt and the previous one are: `rise.metrics.texts.edit_similarity`.

    One value per problem that was asked at the turn. Attempts without an answer count too.

    >>> similar(sketch("w7 w7", "w7 r5", "r5"), 2)
    [1.0, 0.75]
    """
    return [
        edit_similarity(before.action, now.action) if _is_made(now) else 0.0
        for before, now in _consecutive(episodes, turn)
    ]


def _reached(episodes: Sequence[Episode], turn: int) -> list[Turn]:
    return [episode.turns[turn - 1] for episode in episodes if len(episode.turns) >= turn]


def _is_made(turn: Turn) -> bool:
    return turn.finish_reasons[turn.chosen] != NOT_MADE


def _consecutive(episodes: Sequence[Episode], turn: int) -> list[list[Turn]]:
    reached = (episode.turns[turn - 2 : turn] for episode in episodes if len(episode.turns) >= turn)
    return [pair for pair in reached if not pair[1].kept]


def _pairs(episodes: Sequence[Episode], t: int, u: int) -> list[tuple[bool, bool]]:
    return list(zip(acc_t(episodes, t, "none"), acc_t(episodes, u, "none"), strict=True))


def check_rates(episodes: Sequence[Episode], max_turns: int) -> dict[str, Any]:
    """{"check", "revisions"}; "check" has lists over the turns 1 to K - 1 (None where n is 0)."""
    by_turn = [own_checks(episodes, turn) for turn in range(1, max_turns)]
    found = {
        name: [wilson(hits[name]).to_dict() if hits[name] else None for hits in by_turn]
        for name in ("precision", "recall", "unclear")
    }
    return {"check": found, "revisions": bootstrap_mean(revisions(episodes)).to_dict()}


def own_checks(episodes: Sequence[Episode], turn: int) -> dict[str, list[bool]]:
    """How good a model's checks of the answers of a turn are, over the answers that were checked.

    precision: of those that it calls wrong, is the answer not right? recall: of those that are not
    right, does it call them wrong? unclear: did it say neither right nor wrong?

    >>> run = sketch("w7", "r5", "w7", "-")
    >>> for episode, says in zip(run, ["wrong", "wrong", "right", "unclear"]):
    ...     episode.turns[0].check = {"says": says}
    >>> found = own_checks(run, 1)
    >>> found["precision"], found["recall"], found["unclear"]
    ([True, False, True], [True, False, True], [False, False, False, True])
    """
    reached = _reached(episodes, turn)
    checks = [(t.check["says"], t.verdict == "right") for t in reached if t.check]
    return {
        "precision": [not right for says, right in checks if says != "right"],
        "recall": [says != "right" for says, right in checks if not right],
        "unclear": [says == "unclear" for says, _ in checks],
    }


def revisions(episodes: Sequence[Episode]) -> list[int]:
    """How many answers each problem got after its first one; those that stand are none.

    >>> run = sketch("w7 r5 r5", "r5 r5 r5")
    >>> run[0].turns[2].kept = True
    >>> revisions(run)
    [1, 2]
    """
    return [sum(not turn.kept for turn in episode.turns[1:]) for episode in episodes]
