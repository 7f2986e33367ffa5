"""Puts the page together: numbers, pictures, texts and the browser of episodes in one file."""

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

from rise.compare import difference_table, paper_table
from rise.episodes.episode import Message
from rise.metrics.comparison import compare
from rise.metrics.evaluation import EvaluatedRun
from rise.metrics.tables import headline_order, statement
from rise.metrics.turns import acc_t
from rise.report import browser, charts

SETTINGS = """
env data_path problems prompt_style feedback revise_if_wrong shown_attempt context_window
num_of_samples temperature top_p max_new_tokens seed git_commit
""".split()
"""Keys of config.json that the page shows."""


def render(runs: Sequence[EvaluatedRun]) -> str:
    """The page, whose policy lets no script run but its own: what a model wrote cannot act."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("rise.report"), autoescape=True, undefined=StrictUndefined
    )
    templates = resources.files("rise.report") / "templates"
    script = (templates / "report.js").read_text(encoding="utf-8")
    style = (templates / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html").render(
        title=" and ".join(run.name for run in runs),
        runs=[_describe(run) for run in runs],
        settings=_settings(runs),
        headline=headline(runs),
        comparison=_comparison(runs),
        turns=max(run.config["max_turns"] for run in runs),
        charts=[
            ("Accuracy by turn", Markup(charts.accuracy_by_turn(runs))),
            ("Verdicts by turn", Markup(charts.verdicts_by_turn(runs))),
            ("Lengths of the answers", Markup(charts.lengths(runs))),
        ],
        episodes=browser.pack(runs),
        script=Markup(script),
        style=Markup(style),
        policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
    )


def headline(runs: Sequence[EvaluatedRun]) -> list[dict[str, Any]]:
    rows = []
    for run in runs:
        for name in sorted(run.hits, key=headline_order):
            rate = run.metrics[name]
            rows.append({"run": run.name, "metric": name} | _printed(rate))
    return rows


def transitions(run: EvaluatedRun) -> list[dict[str, Any]]:
    """How many problems neighbouring turns, and the first and the last, kept, fixed and broke."""
    last = run.config["max_turns"]
    pairs = [(turn, turn + 1) for turn in range(1, last)] + ([(1, last)] if last > 2 else [])
    right = {turn: acc_t(run.episodes, turn, run.config["feedback"]) for turn in range(1, last + 1)}
    found = []
    for t, u in pairs:
        moves = list(zip(right[t], right[u], strict=True))
        found.append(
            {
                "t": t,
                "u": u,
                "kept": moves.count((True, True)),
                "fixed": moves.count((False, True)),
                "broken": moves.count((True, False)),
                "wrong": moves.count((False, False)),
            }
        )
    return found


def _describe(run: EvaluatedRun) -> dict[str, Any]:
    return {
        "name": run.name,
        "model": run.config["models"][0],
        "n": len(run.episodes),
        "statement": statement(run.metrics),
        "warnings": run.metrics["warnings"],
        "transitions": transitions(run),
        "fresh": _fresh(run),
        "accuracy": [_printed(rate) for rate in run.metrics["acc@t"]],
        "prompt": _first_prompt(run),
    }


def _fresh(run: EvaluatedRun) -> list[list[str]]:
    """Each turn beside a fresh draw of turn 1, after a right and after a wrong attempt."""
    rows = []
    for name, rates in run.metrics.get("fresh_draw", {}).items():
        for turns, pair in rates.items():
            cells = [f"{p['value']} ({p['interval']})" for p in map(_printed, pair.values())]
            place = f"{turns.replace(',', ' to ')}, {name.replace('_', ' ')}"
            rows.append([place, *cells, str(pair["difference"]["n"])])
    return rows


def _first_prompt(run: EvaluatedRun) -> list[Message]:
    return next((episode.opening for episode in run.episodes if episode.dialogue), [])


def _printed(rate: dict[str, Any]) -> dict[str, str]:
    value, low, high = (f"{100 * rate[key]:.1f}" for key in ("value", "low", "high"))
    return {"value": value, "interval": f"{low} to {high}", "n": str(rate["n"])}


def _comparison(runs: Sequence[EvaluatedRun]) -> dict[str, Any] | None:
    if len(runs) < 2:
        return None
    found = compare(runs)
    header, rows = paper_table(found)
    tested, differences = difference_table(found)
    return {
        "header": header,
        "rows": rows,
        "tested": tested,
        "differences": differences,
        "notes": found["notes"],
    }


def _settings(runs: Sequence[EvaluatedRun]) -> list[tuple[str, list[str]]]:
    return [
        (key, [_setting(run.config.get(key)) for run in runs])
        for key in SETTINGS
        if any(run.config.get(key) is not None for run in runs)
    ]


def _setting(value: Any) -> str:
    if isinstance(value, list) and len(set(map(str, value))) == 1:
        return f"{value[0]} at each turn" if len(value) > 1 else str(value[0])
    return "-" if value is None else str(value)
