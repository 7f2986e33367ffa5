"""What the stages record when they end, for `rise.tracking.tracker`.

A resumed run records its results by turn, its tables and its page once, when every episode is
there; until then only the rates so far.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rise.episodes.episode import Episode
from rise.episodes.journal import RunDir
from rise.metrics.tables import fresh_differences, headline_order
from rise.tracking import tracker as tracking
from rise.tracking.tracker import Tracker

if TYPE_CHECKING:
    from rise.metrics.evaluation import EvaluatedRun
    from rise.runs.job import Job

MOST_DIALOGUES = 200
"""Rows of the table of dialogues."""
MOST_CHARACTERS = 1000
"""Of each text in it; what is cut ends with an ellipsis."""
USAGE = ("requests", "samples", "prompt_tokens", "completion_tokens", "cost_usd")


def flat(values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of nested objects, with their names joined; "value" stands for its parent.

    >>> flat({"m1@t1": {"value": 0.5, "n": 2}, "errors": {}, "note": "x", "acc@t": [1]})
    {'m1@t1': 0.5, 'm1@t1/n': 2}
    """
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            inner = flat(value)
            found |= {name if key == "value" else f"{name}/{key}": v for key, v in inner.items()}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = value
    return found


def log_evaluation(
    tracker: Tracker, job: Job, counts: dict[str, Any], *, own: EvaluatedRun, shown: EvaluatedRun
) -> None:
    """Record an evaluation, `own`; final values and page are those of `shown`, as the table."""
    from rise.report.page import render, transitions

    tracker.summary(flat(shown.metrics) | _usage_numbers(counts), len(own.episodes))
    if len(job.run.done) < job.size:
        return
    for turn in range(1, own.config["max_turns"] + 1):
        tracker.log(flat({"turn": _at_turn(own.metrics, turn)}), "turn", turn)
    _log_headline(tracker, shown)
    moves = transitions(own)
    if moves:
        tracker.table("transitions", list(moves[0]), [list(move.values()) for move in moves])
    _log_episodes(tracker, job.run, own.config["max_turns"], counts)
    page = job.run.path / "report.html"
    page.write_text(render([shown]), encoding="utf-8", errors="replace")
    tracker.file(page)
    tracker.complete()


def log_generation(tracker: Tracker, job: Job, counts: dict[str, Any]) -> None:
    success = {f"success_by_turn_{t}": v for t, v in enumerate(counts["success_by_turn"], start=1)}
    final = flat(success | {"errors": counts["errors"], "unanswered": counts["unanswered"]})
    tracker.summary(final | _usage_numbers(counts), len(job.run.done))
    if len(job.run.done) < job.size:
        return
    for turn, rate in enumerate(counts["success_by_turn"], start=1):
        numbers = {
            "success": rate,
            "verdicts": counts["verdicts"][turn - 1],
            "length": counts["length_share"][turn - 1],
        }
        tracker.log(flat({"turn": numbers}), "turn", turn)
    _log_episodes(tracker, job.run, job.config["max_turns"], counts)
    tracker.complete()


def log_conversion(
    args: argparse.Namespace, report: Mapping[str, Any], weights: Sequence[float]
) -> None:
    config = vars(args) | report["settings"]
    subject = tracking.Subject(
        stage="convert",
        name=args.output.stem,
        config=config | {"output": str(args.output)},
        directory=args.output.parent,
        events=args.output.with_name(f"{args.output.stem}_tensorboard"),
    )
    tracker = tracking.start(vars(args), subject)
    counts = {name: value for name, value in report.items() if name != "settings"}
    tracker.summary(flat(counts), report["episodes"])
    if weights:
        tracker.histogram("weights", weights)
    tracker.finish()


def dialogues(episodes: Iterator[Episode], turns: int) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of the table of dialogues: a problem per row, each attempt cut."""
    attempts = [f"turn {turn}" for turn in range(1, turns + 1)]
    rows = []
    for episode in itertools.islice(episodes, MOST_DIALOGUES):
        texts = [turn.action for turn in episode.turns]
        texts += [""] * (turns - len(texts))
        verdicts = " -> ".join(str(turn.verdict) for turn in episode.turns)
        known = [_cut(episode.query), _cut(episode.answer), verdicts]
        rows.append([episode.task_id, *known, *map(_cut, texts)])
    return ["task_id", "question", "reference", "verdicts", *attempts], rows


def _log_headline(tracker: Tracker, run: EvaluatedRun) -> None:
    rates = [(name, run.metrics[name]) for name in sorted(run.hits, key=headline_order)]
    rates += [*run.metrics["paired"].items(), *fresh_differences(run.metrics).items()]
    columns = ("value", "low", "high", "n", "p_value")
    rows = [[name, *(rate.get(column) for column in columns)] for name, rate in rates]
    tracker.table("headline", ["metric", *columns], rows)


def _log_episodes(tracker: Tracker, run: RunDir, turns: int, counts: dict[str, Any]) -> None:
    usage = counts["usage"].items()
    rows = [[model, *(used.get(name, 0) for name in USAGE)] for model, used in usage]
    tracker.table("usage", ["model", *USAGE], rows)
    tracker.table("dialogues", *dialogues(run.episodes(), turns))


def _at_turn(metrics: Mapping[str, Any], turn: int) -> dict[str, Any]:
    """What the metrics say of one turn: their lists run over the turns.

    >>> _at_turn({"acc@t": [0.5, 0.7], "check": {"recall": [1.0]}, "n": 9}, 1)
    {'acc@t': 0.5, 'check': {'recall': 1.0}}
    """
    found = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            found[name] = _at_turn(value, turn)
        elif isinstance(value, list) and len(value) >= turn:
            found[name] = value[turn - 1]
    return {name: value for name, value in found.items() if value != {}}


def _usage_numbers(counts: Mapping[str, Any]) -> dict[str, float]:
    return flat({name: counts[name] for name in ("usage", "cost_usd") if name in counts})


def _cut(text: str) -> str:
    """A text that every file takes: half a surrogate pair is replaced, what is too long is cut."""
    clean = text.encode("utf-8", errors="replace").decode("utf-8")
    return clean if len(clean) <= MOST_CHARACTERS else f"{clean[: MOST_CHARACTERS - 1]}…"
