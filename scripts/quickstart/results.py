"""The end of `quickstart.sh` and `real.sh`: table, plot, causal check and two episodes of the runs.

    python scripts/quickstart/results.py log/quickstart

Reads   DIR/eval/{control,rise,rise_other}, runs of workflow_eval.py, and base and warm, if there.
Writes  DIR/results.json and DIR/accuracy.png.
"""

import sys
from itertools import islice
from pathlib import Path
from typing import Any

from fastchat.utils import Parser, write_json
from rise.episodes.episode import Episode
from rise.episodes.journal import load_episodes
from rise.metrics.evaluation import read_config
from rise.metrics.tables import fresh_in_words
from rise.program.exits import run_program
from rise.program.files import read_object

RUNS = {"base": "base", "warm": "warm", "sft": "control", "rise": "rise"}
"""Key in results.json -> directory of the run."""
TITLES = {"base": "base", "warm": "warm start", "sft": "control (SFT)", "rise": "RISE"}
OWN, OTHER = "turn 2, own attempt shown", "turn 2, another problem's attempt shown"
COLUMNS = ("m1@t1", "m5@t1", "m1@t5", "p1@t5")


def collect(directory: Path) -> dict[str, Any]:
    paths = {key: directory / "eval" / name for key, name in RUNS.items()}
    for key, path in list(paths.items()):
        if key in ("base", "warm") and not path.is_dir():
            del paths[key]
        elif not (path / "summary.json").exists():
            raise ValueError(f"{path}/summary.json is missing: run the script again")
    results = {key: read_object(path / "summary.json")["metrics"] for key, path in paths.items()}
    runs = {key: load_episodes(path) for key, path in paths.items()}
    results["comparison"] = comparison(runs, read_config(paths["rise"]))
    other = load_episodes(directory / "eval" / "rise_other")
    results["causal_check"] = causal_check(runs["rise"], other)
    return results


def comparison(runs: dict[str, list[Episode]], config: dict[str, Any]) -> dict[str, Any]:
    """RISE's five turns and five samples of each run, on the problems that both have."""
    from rise.metrics.evaluation import grader_of
    from rise.metrics.statistics import paired_difference
    from rise.metrics.votes import m1_tk, mk_t1

    same_answer, count = grader_of(config), {key: len(run) for key, run in runs.items()}
    turns = m1_tk(runs["rise"], same_answer, 5, feedback="none")
    return {
        f"m1@t5 of RISE - m5@t1 of {TITLES[key]}": paired_difference(
            turns[: count[key]], mk_t1(run, same_answer, 5)
        ).to_dict()
        for key, run in runs.items()
    }


def causal_check(own: list[Episode], other: list[Episode]) -> dict[str, Any]:
    """What reading its own attempt is worth: two runs that differ in what turn 2 is shown alone."""
    from rise.metrics.statistics import paired_difference, wilson

    hits = [[e.turns[1].verdict == "right" for e in run] for run in (own, other)]
    first = [episode.turns[0].verdict == "right" for episode in own]
    return {
        "turn 1": wilson(first).to_dict(),
        OWN: wilson(hits[0]).to_dict(),
        OTHER: wilson(hits[1]).to_dict(),
        "own - other": paired_difference(*hits).to_dict(),
    }


def print_table(results: dict[str, Any]) -> None:
    turns = len(results["rise"]["acc@t"])
    head = "".join(f"{column:>8}" for column in COLUMNS)
    print(f"{'':<15}{head}   accuracy at turn 1 to {turns}")
    for key, title in _shown(results):
        metrics = results[key]
        cells = "".join(f"{100 * metrics[column]['value']:>8.1f}" for column in COLUMNS)
        by_turn = " -> ".join(f"{100 * rate['value']:.0f}" for rate in metrics["acc@t"])
        print(f"{title:<15}{cells}   {by_turn}")


def print_findings(results: dict[str, Any]) -> None:
    for key, title in _shown(results):
        print(f"m1@t5 - m1@t1 of {title}: {_points(results[key]['gain'])}")
    for name, rate in results["comparison"].items():
        print(f"{name}: {_points(rate)}")
    check = results["causal_check"]
    print(
        f"Causal check, RISE at turn 2: {_percent(check[OWN])} right with its own attempt shown, "
        f"{_percent(check[OTHER])} with another problem's (turn 1: {_percent(check['turn 1'])}); "
        f"own - other {_points(check['own - other'])}"
    )
    if lines := fresh_in_words(results["rise"]):
        print("A drop alone is no evidence, copying drops too; being above a fresh draw is:")
        print("\n".join(lines))


def _shown(results: dict[str, Any]) -> list[tuple[str, str]]:
    return [(key, title) for key, title in TITLES.items() if key in results]


def _percent(rate: dict[str, float]) -> str:
    return f"{100 * rate['value']:.1f} %"


def _points(rate: dict[str, float]) -> str:
    value, low, high = (100 * rate[end] for end in ("value", "low", "high"))
    return f"{value:+.1f} points (95 % interval {low:+.1f} to {high:+.1f}, n = {rate['n']})"


def example_episodes(episodes: list[Episode]) -> list[tuple[str, Episode]]:
    wanted = {"repaired": ["wrong", "right"], "kept": ["right", "right"]}
    found = []
    for title, verdicts in wanted.items():
        fits = (e for e in episodes if [turn.verdict for turn in e.turns[:2]] == verdicts)
        found += [(title, episode) for episode in islice(fits, 1)]
    return found


def print_episode(title: str, episode: Episode) -> None:
    print(f"\n--- an answer that was {title} (problem {episode.task_id}) ---")
    verdicts = iter(turn.verdict for turn in episode.turns)
    for message in episode.dialogue[:4]:
        who = f"model [{next(verdicts)}]" if message["role"] == "assistant" else "user"
        print(f"  {who}: {' / '.join(message['content'].splitlines())}")


def main() -> None:
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("directory", type=Path, help="output folder of scripts/quickstart.sh")
    directory = parser.parse_args().directory
    try:
        results = collect(directory)
    except ValueError as error:
        sys.exit(f"results.py: {error}")
    from rise.metrics.plots import plot_accuracy_by_turn

    write_json(directory / "results.json", results)
    lines = {title: results[key] for key, title in _shown(results)}
    plot_accuracy_by_turn(lines, directory / "accuracy.png")
    for title, episode in example_episodes(load_episodes(directory / "eval" / "rise")):
        print_episode(title, episode)
    print()
    print_table(results)
    print()
    print_findings(results)
    print(f"\nReport, with every episode: {directory}/report.html. Plot: {directory}/accuracy.png.")
    print(f"Numbers: {directory}/results.json.")


if __name__ == "__main__":
    run_program(main)
