"""What the page's browser of episodes needs, as compact JSON.

The page holds it gzipped: 1,319 problems with 5 attempts each then take a megabyte or two, and
every current browser unpacks it in a moment.
"""

import base64
import gzip
import json
from collections.abc import Sequence
from typing import Any

from rise.episodes.episode import Episode, Turn
from rise.episodes.feedback import is_forced
from rise.metrics.evaluation import EvaluatedRun
from rise.report.mathematics import Formulas


def pack(runs: Sequence[EvaluatedRun]) -> str:
    """The episodes of all runs as base64 of gzipped JSON.

    The JSON is {"formulas", "questions": {task id: {"text", "reference"}}, "runs": [{"name",
    "turns", "forced", "episodes"}]}. An episode is {"id", "turns", "vote"}: a turn is {"samples",
    "chosen"}, a sample {"v": verdict, "a": extracted answer, "cut", "text"}; "vote" is whether the
    vote over the turns is right, null where none was taken. Where the model judged its answer, the
    turn has "check" {"says", "text"}; where the answer before it stands, "stands". A text is
    {"plain"}, and {"pieces"} where it has formulas, see `rise.report.mathematics`.
    """
    formulas = Formulas()
    questions: dict[int, Any] = {}
    packed = []
    for run in runs:
        for episode in run.episodes:
            questions.setdefault(episode.task_id, _question(episode, formulas))
        votes = run.hits.get(f"m1@t{run.config['max_turns']}", {})
        forced = is_forced(run.config["feedback"])
        packed.append(
            {
                "name": run.name,
                "turns": run.config["max_turns"],
                "forced": forced,
                "episodes": [
                    _episode(episode, votes.get(episode.task_id) if forced else None, formulas)
                    for episode in run.episodes
                ],
            }
        )
    data = {"formulas": formulas.trees, "questions": questions, "runs": packed}
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    # A model's text may hold half a surrogate pair.
    raw = text.encode("utf-8", errors="replace")
    return base64.b64encode(gzip.compress(raw, mtime=0)).decode("ascii")


def _question(episode: Episode, formulas: Formulas) -> dict[str, Any]:
    return {"text": _text(episode.query, formulas), "reference": _text(episode.answer, formulas)}


def _episode(episode: Episode, voted: bool | None, formulas: Formulas) -> dict[str, Any]:
    turns = [
        _own_check(turn, formulas)
        | {
            "chosen": turn.chosen,
            "samples": [
                {
                    "v": turn.verdicts[i],
                    "a": turn.answers[i],
                    "cut": turn.finish_reasons[i] == "length",
                    "text": _text(action, formulas),
                }
                for i, action in enumerate(turn.actions)
            ],
        }
        for turn in episode.turns
    ]
    return {"id": episode.task_id, "turns": turns, "vote": voted}


def _own_check(turn: Turn, formulas: Formulas) -> dict[str, Any]:
    found: dict[str, Any] = {"stands": True} if turn.kept else {}
    if turn.check:
        found["check"] = {"says": turn.check["says"], "text": _text(turn.check["text"], formulas)}
    return found


def _text(text: str, formulas: Formulas) -> dict[str, Any]:
    pieces = formulas.pieces(text)
    has_formulas = any(isinstance(piece, list) for piece in pieces)
    return {"plain": text} | ({"pieces": pieces} if has_formulas else {})
