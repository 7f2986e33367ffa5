"""The page's pictures, as SVG that follows the page's colours in light and dark.

Every picture stands beside a table with the same numbers, or has a text that says them.
"""

import io
import re
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Any

from rise.metrics import plots
from rise.metrics.evaluation import EvaluatedRun
from rise.metrics.plots import COLOURS, INK

VERDICT_COLOURS = {
    "right": "#009E73",
    "wrong": "#D55E00",
    "no_answer": "#999999",
    "timeout": "#CC79A7",
}
BINS = 30


def accuracy_by_turn(runs: Sequence[EvaluatedRun]) -> str:
    figure = plots.accuracy_by_turn({run.name: run.metrics["acc@t"] for run in runs})
    return _svg(figure, "Accuracy by turn with 95 % intervals; the table below has the numbers")


def verdicts_by_turn(runs: Sequence[EvaluatedRun]) -> str:
    """Stacked bars: the share of each verdict (so of each reward) at each turn, a panel per run."""
    from matplotlib.patches import Patch

    figure, panels = plots.canvas(len(runs))
    for axes, run in zip(panels, runs, strict=True):
        counts = _verdicts(run)
        below = [0.0] * len(counts)
        for verdict, colour in VERDICT_COLOURS.items():
            shares = [100 * count[verdict] / max(1, sum(count.values())) for count in counts]
            if any(shares):
                turns = range(1, len(counts) + 1)
                axes.bar(turns, shares, bottom=below, color=colour, width=0.7)
                below = [a + b for a, b in zip(below, shares, strict=True)]
        axes.set_xticks(range(1, len(counts) + 1))
        axes.set_xlabel("turn")
        axes.set_title(_short(run.name), loc="left", fontsize=10, color=INK)
    panels[0].set_ylabel("answers, %")
    seen = {verdict for run in runs for count in _verdicts(run) for verdict in count}
    handles = [Patch(color=c, label=_spoken(v)) for v, c in VERDICT_COLOURS.items() if v in seen]
    place = {"loc": "outside upper right", "ncols": 4}
    figure.legend(handles=handles, frameon=False, labelcolor=INK, **place)
    return _svg(figure, "Verdicts by turn: " + "; ".join(map(_said, runs)))


def lengths(runs: Sequence[EvaluatedRun]) -> str:
    figure, panels = plots.canvas(len(runs))
    found = [_lengths(run) for run in runs]
    longest = max((max(turn, default=0) for turns in found for turn in turns), default=0) or 1
    for axes, run, turns in zip(panels, runs, found, strict=True):
        for turn, values in enumerate(turns, start=1):
            colour = COLOURS[(turn - 1) % len(COLOURS)]
            axes.hist(
                values,
                bins=BINS,
                range=(0, longest),
                histtype="step",
                color=colour,
                label=f"turn {turn}",
                linewidth=1.5,
            )
        axes.set_xlabel("tokens of an answer")
        axes.set_title(_short(run.name), loc="left", fontsize=10, color=INK)
    panels[0].set_ylabel("problems")
    panels[0].legend(frameon=False, labelcolor=INK, fontsize=8)
    medians = [
        f"{run.name}: median by turn {', '.join(f'{median(turn or [0]):.0f}' for turn in turns)}"
        for run, turns in zip(runs, found, strict=True)
    ]
    return _svg(figure, "Lengths of the answers in tokens. " + "; ".join(medians))


def _verdicts(run: EvaluatedRun) -> list[Counter[str]]:
    counts: list[Counter[str]] = [Counter() for _ in range(run.config["max_turns"])]
    for episode in run.episodes:
        for count, turn in zip(counts, episode.turns, strict=False):
            count.update(turn.verdicts)
    return counts


def _said(run: EvaluatedRun) -> str:
    shares = [
        f"turn {turn} {100 * count['right'] / max(1, sum(count.values())):.0f} % right"
        for turn, count in enumerate(_verdicts(run), start=1)
    ]
    return f"{run.name}: {', '.join(shares)}"


def _lengths(run: EvaluatedRun) -> list[list[float]]:
    """Tokens per answer at each turn: the mean over the samples; an answer that stands has none."""
    found: list[list[float]] = [[] for _ in range(run.config["max_turns"])]
    for episode in run.episodes:
        for values, turn in zip(found, episode.turns, strict=False):
            if not turn.kept:
                values.append(turn.usage.get("completion_tokens", 0) / len(turn.actions))
    return found


def _spoken(verdict: str) -> str:
    return verdict.replace("_", " ")


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:27]}…"


def _svg(figure: Any, description: str) -> str:
    import matplotlib
    from markupsafe import escape

    buffer = io.StringIO()
    # Text stays text: smaller, searchable, and readable aloud. The salt makes ids repeatable.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": description}):
        figure.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1)
