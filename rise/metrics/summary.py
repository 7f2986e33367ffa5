"""The numbers of a run: what is measured, in one place.

| name | what | function | of |
|---|---|---|---|
| m1@t1 | one sample at turn 1 | `m1_t1` | any run |
| mK@t1 | vote of K independent turn-1 samples | `mk_t1` | K samples at turn 1 |
| m1@tK | vote of the K turns of one rollout | `m1_tk` | runs whose feedback knows no truth |
| p1@tK | any of the K turns right | `p1_tk` | the same; oracle, verdict with one sample per turn |
| pass@k | any of k independent samples right | `pass_at_k` | several samples at turn 1 |
| acc@t | right at turn t (oracle: by turn t) | `acc_t` | any run |
| delta, i->c, c->i | change between two turns | `delta`, `fixed`, `broken` | p1@tK, but no oracle |
| fresh draw | turn t + 1 beside another sample of turn 1 | `fresh_draws` | with more samples |
| check, revisions | what a model's own checks are worth | `rise.metrics.turns` | self, critique |
| turns_used, no_answer, timeout, length, copied | per turn | `rise.metrics.turns` | any run |
| repetition, similarity | per turn: loops, likeness to the last | `rise.metrics.turns` | any run |

`summarise` returns the headline rates m1@t1, mK@t1, m1@tK, p1@tK; "pass@k" keyed "k", for k = 1, 2,
4, ... and all samples of turn 1; "acc@t" (a list, turn 1 first); "paired", the differences of the
headline rates over the problems that both have, each a rate with McNemar's "p_value"; "gain", the
one of m1@tK and m1@t1; "delta", "i->c", "c->i" keyed "t,u"; "fresh_draw", see
`rise.metrics.turns.fresh_draw_rates`; "turns_used"; lists over the turns
"no_answer", "timeout", "length", "copied", "repetition", "similarity" (None where no problem
reached the turn); where the model judges itself "check" and "revisions"; where most attempts of
turn 1 have no answer "unread"; "warnings", sentences.

With several samples in a turn runs whose feedback knows the truth go on with the best one, so that
their rates by turn are those of best-of-N and say nothing about the change from turn to turn. A
problem whose episode failed with an error is owed, and in no denominator until it is answered: n
says how many are. One whose prompt never fits the context is in all of them, as not right:
`rise.metrics.evaluation`. `rise.metrics.cautions` says when numbers should not be believed yet.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from rise.episodes.episode import Episode
from rise.episodes.feedback import knows_truth
from rise.metrics.cautions import cautions, unread
from rise.metrics.statistics import bootstrap_mean, mean_share, paired, wilson
from rise.metrics.turns import (
    acc_t,
    broken,
    check_rates,
    copied,
    delta,
    fixed,
    fresh_draw_rates,
    m1_t1,
    p1_tk,
    pass_at_k,
    repeated,
    sample_share,
    similar,
    turns_used,
)
from rise.metrics.votes import SameAnswer, m1_tk, mk_t1

VOTE, ANY, CHANGES, CHECKS = "m1@tK", "p1@tK", "delta, i->c, c->i", "check, revisions"
ALLOWED = {
    "none": {VOTE, ANY, CHANGES},
    "oracle": {ANY},
    "verdict": {ANY, CHANGES},
    "self": {VOTE, ANY, CHANGES, CHECKS},
    "critique": {VOTE, ANY, CHANGES, CHECKS},
}
"""Feedback -> what the run measures beside what every run does. Where the feedback knows the truth
(verdict, oracle), that takes runs with one sample per turn, since it has chosen among several."""


class Summary(NamedTuple):
    """What is measured."""

    hits: dict[str, dict[int, bool]]
    """m1@t1, m1@tK, p1@tK, mK@t1, those that the run allows -> task id -> right or not."""
    metrics: dict[str, Any]
    """Every metric as JSON: each rate is {"value", "low", "high", "n"}."""


def summarise(
    episodes: Sequence[Episode],
    same_answer: SameAnswer,
    *,
    max_turns: int,
    feedback: str,
    parallel: Sequence[Episode] | None = None,
) -> Summary:
    """Every metric that the run allows; the keys are listed at the top of this module.

    `parallel` is a run of the same model on the same problems with K samples at turn 1, for mK@t1;
    by default the run itself, where it has several.

    >>> run = sketch("w7,r5,r5 r5", "r5,w7,w7 r5", "w7,w8,- -", "w7,w7,w7 r5")
    >>> hits, metrics = summarise(run, str.__eq__, max_turns=2, feedback="none")
    >>> [metrics[name]["value"] for name in ("m1@t1", "m3@t1", "m1@t2", "p1@t2")]
    [0.25, 0.25, 0.25, 0.75]
    >>> [rate["value"] for rate in metrics["acc@t"]], metrics["delta"]["1,2"]["value"]
    ([0.25, 0.75], 0.5)
    >>> hits["m3@t1"]
    {0: True, 1: False, 2: False, 3: False}
    """
    if feedback not in ALLOWED:
        raise ValueError(f"feedback is {feedback!r}: it must be one of {', '.join(ALLOWED)}")
    source = episodes if parallel is None else parallel
    chosen_by_truth = knows_truth(feedback) and not _one_sample(episodes)
    allowed = set() if chosen_by_truth else ALLOWED[feedback]
    vote, turns = f"m1@t{max_turns}", range(1, max_turns + 1)
    hits = {"m1@t1": _by_problem(episodes, m1_t1(episodes))}
    if max_turns > 1 and VOTE in allowed:
        hits[vote] = _by_problem(episodes, m1_tk(episodes, same_answer, max_turns, feedback))
    if max_turns > 1 and ANY in allowed:
        hits[f"p1@t{max_turns}"] = _by_problem(episodes, p1_tk(episodes, max_turns))
    samples, votes = _parallel(source, same_answer)
    if votes:
        hits[samples] = votes
    metrics: dict[str, Any] = {
        "feedback": feedback,
        "max_turns": max_turns,
        **{name: wilson(list(by_problem.values())).to_dict() for name, by_problem in hits.items()},
        "acc@t": [wilson(acc_t(episodes, turn, feedback)).to_dict() for turn in turns],
        "paired": _paired(hits, vote, samples if votes else ""),
    }
    if votes:
        metrics["pass@k"] = _passes(source)
    if CHANGES in allowed:
        metrics |= _transitions(episodes, max_turns)
        if votes and (fresh := fresh_draw_rates(episodes, max_turns, source)):
            metrics["fresh_draw"] = fresh
    if CHECKS in allowed:
        metrics |= check_rates(episodes, max_turns)
    if gain := metrics["paired"].get(f"{vote} - m1@t1"):
        metrics["gain"] = gain
    metrics["turns_used"] = bootstrap_mean(turns_used(episodes)).to_dict()
    metrics |= _troubles(episodes, turns)
    if shapes := unread(episodes):
        metrics["unread"] = shapes
    return Summary(hits, metrics | {"warnings": cautions(metrics)})


def _one_sample(episodes: Sequence[Episode]) -> bool:
    """Whether no turn has several samples, of which the truth could choose one."""
    return all(len(turn.actions) == 1 for episode in episodes for turn in episode.turns)


def _parallel(episodes: Sequence[Episode], same_answer: SameAnswer) -> tuple[str, dict[int, bool]]:
    """The name and the hits of mK@t1; no hits where some problem has a single sample."""
    k = min((len(episode.turns[0].actions) for episode in episodes if episode.turns), default=0)
    hits = mk_t1(episodes, same_answer, k) if k > 1 else []
    return f"m{k}@t1", _by_problem(episodes, hits) if hits else {}


def _passes(episodes: Sequence[Episode]) -> dict[str, dict[str, Any]]:
    most = min(len(episode.turns[0].actions) for episode in episodes)
    sizes = sorted({2**power for power in range(most.bit_length())} | {most})
    return {str(k): mean_share(pass_at_k(episodes, k)).to_dict() for k in sizes if k <= most}


def _by_problem(episodes: Sequence[Episode], values: Sequence[bool]) -> dict[int, bool]:
    return dict(zip((episode.task_id for episode in episodes), values, strict=True))


def _paired(hits: dict[str, dict[int, bool]], sequential: str, parallel: str) -> dict[str, Any]:
    found = {}
    for a, b in ((sequential, parallel), (sequential, "m1@t1"), (parallel, "m1@t1")):
        # At one turn the sequential metric is m1@t1 itself.
        if a in hits and b in hits and a != "m1@t1":
            found[f"{a} - {b}"] = paired(hits[a], hits[b])
    return found


def _transitions(episodes: Sequence[Episode], max_turns: int) -> dict[str, Any]:
    pairs = list(combinations(range(1, max_turns + 1), 2))
    return {
        "delta": {f"{t},{u}": delta(episodes, t, u).to_dict() for t, u in pairs},
        "i->c": {f"{t},{u}": wilson(fixed(episodes, t, u)).to_dict() for t, u in pairs},
        "c->i": {f"{t},{u}": wilson(broken(episodes, t, u)).to_dict() for t, u in pairs},
    }


def _troubles(episodes: Sequence[Episode], turns: range) -> dict[str, Any]:
    def over_turns(shares: Callable[[int], Sequence[float]]) -> list[dict[str, Any] | None]:
        values = [shares(turn) for turn in turns]
        return [mean_share(share).to_dict() if share else None for share in values]

    return {
        "no_answer": over_turns(lambda turn: sample_share(episodes, turn, "verdicts", "no_answer")),
        "timeout": over_turns(lambda turn: sample_share(episodes, turn, "verdicts", "timeout")),
        "length": over_turns(lambda turn: sample_share(episodes, turn, "finish_reasons", "length")),
        "copied": over_turns(lambda turn: copied(episodes, turn) if turn > 1 else []),
        "repetition": over_turns(lambda turn: repeated(episodes, turn)),
        "similarity": over_turns(lambda turn: similar(episodes, turn) if turn > 1 else []),
    }
