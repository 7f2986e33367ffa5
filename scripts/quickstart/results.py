"""The end of `scripts/quickstart.sh`: table, plot, causal check and two episodes of its runs.

    python scripts/quickstart/results.py log/quickstart

Reads   DIR/eval/{base,control,rise,rise_other}: runs of workflow_eval.py.
Writes  DIR/results.json and DIR/accuracy.png.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from fastchat.utils import Parser
from rise.episodes.episode import Episode
from rise.episodes.journal import load_episodes
from rise.program.exits import run_program
from rise.program.files import read_json, write_json

RUNS = {"base": "base", "sft": "control", "rise": "rise"}
"""Key in results.json -> directory of the run."""
TITLES = {"base": "base", "sft": "control (SFT)", "rise": "RISE"}
COLUMNS = ("m1@t1", "m5@t1", "m1@t5", "p1@t5")


def collect(directory: Path) -> dict[str, Any]:
    """The metrics of the three models and the causal check, as written to results.json."""
    results: dict[str, Any] = {}
    for key, name in RUNS.items():
        summary = directory / "eval" / name / "summary.json"
        if not summary.exists():
            raise ValueError(f"{summary} is missing: run bash scripts/quickstart.sh again")
        results[key] = read_json(summary)["metrics"]
    runs = {key: load_episodes(directory / "eval" / name) for key, name in RUNS.items()}
    other = load_episodes(directory / "eval" / "rise_other")
    results["comparison"] = comparison(runs, directory / "data" / "test.jsonl")
    results["causal_check"] = causal_check(runs["rise"], other)
    return results


def comparison(runs: dict[str, list[Episode]], problems: Path) -> dict[str, Any]:
    """RISE's five turns against five parallel samples of each model, paired over the problems."""
    import envs
    from rise.metrics.statistics import paired_difference
    from rise.metrics.votes import m1_tk, mk_t1

    same_answer = envs.make("gsm8k", problems, prompt_style="bare").same_answer
    turns = m1_tk(runs["rise"], same_answer, 5, feedback="none")
    return {
        f"m1@t5 of RISE - m5@t1 of {TITLES[key]}": paired_difference(
            turns, mk_t1(episodes, same_answer, 5)
        ).to_dict()
        for key, episodes in runs.items()
    }


def causal_check(own: list[Episode], other: list[Episode]) -> dict[str, Any]:
    """Accuracy at turn 2 with the model's own attempt shown and with another problem's.

    Both runs have the same problems, seeds and first attempts; only what is shown differs. If the
    model reads its attempt, the difference between the two is what reading it is worth.
    """
    from rise.metrics.statistics import paired_difference, wilson

    hits = [[e.turns[1].verdict == "right" for e in run] for run in (own, other)]
    first = [episode.turns[0].verdict == "right" for episode in own]
    return {
        "turn 1": wilson(first).to_dict(),
        "turn 2, own attempt shown": wilson(hits[0]).to_dict(),
        "turn 2, another problem's attempt shown": wilson(hits[1]).to_dict(),
        "own - other": paired_difference(*hits).to_dict(),
    }


def print_table(results: dict[str, Any]) -> None:
    """One line per model: the four metrics and the accuracy of every turn, in percent."""
    turns = len(results["base"]["acc@t"])
    head = "".join(f"{column:>8}" for column in COLUMNS)
    print(f"{'':<15}{head}   accuracy at turn 1 to {turns}")
    for key, title in TITLES.items():
        metrics = results[key]
        cells = "".join(f"{100 * metrics[column]['value']:>8.1f}" for column in COLUMNS)
        by_turn = " -> ".join(f"{100 * rate['value']:.0f}" for rate in metrics["acc@t"])
        print(f"{title:<15}{cells}   {by_turn}")


def print_findings(results: dict[str, Any]) -> None:
    """What the numbers show, with their intervals, whether or not it is what was hoped for."""
    for key, title in TITLES.items():
        print(f"m1@t5 - m1@t1 of {title}: {_points(results[key]['gain'])}")
    for name, rate in results["comparison"].items():
        print(f"{name}: {_points(rate)}")
    check = results["causal_check"]
    print(
        f"Causal check, RISE at turn 2: {_percent(check[_OWN])} right with its own attempt shown, "
        f"{_percent(check[_OTHER])} with another problem's (turn 1: {_percent(check['turn 1'])}); "
        f"own - other {_points(check['own - other'])}"
    )


_OWN, _OTHER = "turn 2, own attempt shown", "turn 2, another problem's attempt shown"


def _percent(rate: dict[str, float]) -> str:
    return f"{100 * rate['value']:.1f} %"


def _points(rate: dict[str, float]) -> str:
    value, low, high = (100 * rate[end] for end in ("value", "low", "high"))
    return f"{value:+.1f} points (95 % interval {low:+.1f} to {high:+.1f}, n = {rate['n']})"


def example_episodes(episodes: list[Episode]) -> list[tuple[str, Episode]]:
    """The first episode that was repaired at turn 2, and the first whose right answer was kept."""
    wanted = {"repaired": ["wrong", "right"], "kept": ["right", "right"]}
    found = []
    for title, verdicts in wanted.items():
        for episode in episodes:
            if [turn.verdict for turn in episode.turns[:2]] == verdicts:
                found.append((title, episode))
                break
    return found


def print_episode(title: str, episode: Episode) -> None:
    """The first two turns of an episode, every message in full."""
    print(f"\n--- an answer that was {title} (problem {episode.task_id}) ---")
    verdicts = iter(turn.verdict for turn in episode.turns)
    for message in episode.dialogue[:4]:
        text = message["content"].replace("\n", "\n    ")
        if message["role"] == "assistant":
            print(f"  model [{next(verdicts)}]:\n    {text}")
        else:
            print(f"  user:\n    {text}")


def main() -> None:
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("directory", type=Path, help="output folder of scripts/quickstart.sh")
    directory = parser.parse_args().directory
    try:
        results = collect(directory)
    except ValueError as error:
        sys.exit(f"quickstart: {error}")
    from rise.metrics.plots import plot_accuracy_by_turn

    write_json(directory / "results.json", results)
    plot_accuracy_by_turn({TITLES[key]: results[key] for key in RUNS}, directory / "accuracy.png")
    for title, episode in example_episodes(load_episodes(directory / "eval" / "rise")):
        print_episode(title, episode)
    print()
    print_table(results)
    print()
    print_findings(results)
    print(f"\nReport, with every episode: {directory}/report.html. Plot: {directory}/accuracy.png.")
    print(f"Numbers: {directory}/results.json.")
    print("Next: EXPERT=self OUT=log/self bash scripts/quickstart.sh (the model teaches itself)")


if __name__ == "__main__":
    run_program(main)
