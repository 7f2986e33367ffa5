"""Time and memory of workflow_convert.py by the number of episodes.

    python scripts/benchmarks/convert_scale.py
    python scripts/benchmarks/convert_scale.py --episodes 1000 10000 --trainer_rows 1000 10000

For each number a log of made-up GSM8K episodes is written into a temporary folder, about 3 kB each:
half right at turn 1, the rest with two turns; a tenth of the questions is asked twice. Every
conversion is a process of its own, whose peak of resident memory the kernel reports. Prints
Markdown tables.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench import ROOT, parser

WORDS = ["she", "has", "then", "buys", "gives", "away", "boxes", "with", "apples", "so", "there"]
WORDS += ["are", "left", "we", "add", "and", "subtract", "how", "many", "in", "total", "per", "day"]
REPEATED = 0.1
CASES = {
    "as published": ["--remove_duplication", "--shuffle"],
    "centered, near duplicates": ["--weighting", "centered", "--remove_near_duplicates", "0.8"],
    "preference pairs": ["--to", "dpo"],
}
READ_ROWS = (
    "import sys; from fastchat.train.data.rows import read_targets; "
    "print(sum(1 for row in read_targets(sys.argv[1])))"
)
COST = "seconds | CPU seconds | episodes per CPU second | peak memory, MB"


@dataclass(frozen=True)
class Cost:
    """What one process took: seconds by the clock and of the processor, MB of memory."""

    wall: float
    cpu: float
    peak: float

    def row(self, episodes: int) -> str:
        return f"{self.wall:.1f} | {self.cpu:.1f} | {episodes / self.cpu:,.0f} | {self.peak:.0f}"


def parse_args() -> argparse.Namespace:
    found = parser(__doc__)
    add = found.add_argument
    add("--episodes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    rows = "episodes whose rows the trainer's reader reads, for comparison; may be none"
    add("--trainer_rows", type=int, nargs="*", default=[10_000, 100_000], help=rows)
    add("--work_dir", type=Path, help="where the logs are written; default: the system's own")
    return found.parse_args()


def main() -> None:
    args = parse_args()
    print(f"| episodes | log | case | {COST} |\n|---|---|---|---|---|---|---|")
    readers = []
    for count in args.episodes:
        with tempfile.TemporaryDirectory(dir=args.work_dir) as folder:
            log, output = Path(folder, "2_turns.json"), Path(folder, "rows.json")
            write_log(log, count)
            size = f"{log.stat().st_size / 1e6:,.0f} MB"
            for name, flags in CASES.items():
                command = [ROOT / "workflow_convert.py", "--filepath", log, "--output", output]
                cost = measure([*command, "--env", "gsm8k", "--overwrite", *flags])
                print(f"| {count:,} | {size} | {name} | {cost.row(count)} |", flush=True)
            if count in args.trainer_rows:
                measure([*command, "--env", "gsm8k", "--overwrite"])
                readers.append((count, output.stat().st_size, measure(["-c", READ_ROWS, output])))
    print(f"\n| episodes | rows file | {COST} |\n|---|---|---|---|---|---|")
    for count, size, cost in readers:
        print(f"| {count:,} | {size / 1e6:,.0f} MB | {cost.row(count)} |")


def measure(arguments: list[str | Path]) -> Cost:
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{arguments} ended with {status}")
    cpu = usage.ru_utime + usage.ru_stime
    return Cost(time.monotonic() - start, cpu, usage.ru_maxrss / 1024)


def write_log(path: Path, count: int) -> None:
    draw = random.Random(0)
    with open(path, "w", encoding="utf-8") as file:
        file.write("{")
        for task_id in range(count):
            record = json.dumps(episode(task_id, int(task_id * (1 - REPEATED)), draw))
            file.write(f'{"," if task_id else ""}"{task_id}": {record}')
        file.write("}")


def episode(task_id: int, number: int, draw: random.Random) -> dict:
    """A record as workflow_gen.py writes it: right at turn 1, or a second turn."""
    question = f"Question {number}: {sentence(random.Random(number), 40)}?"
    rewards = [1] if draw.random() < 0.5 else [draw.choice([0, -1]), draw.choice([0, 1])]
    actions = [f"{sentence(draw, 60)}. \\boxed{{{draw.randrange(100)}}}" for _ in rewards]
    feedback = f"The answer is incorrect. Please try again. {question}"
    dialogue = [{"role": "user", "content": question}]
    for action in actions:
        dialogue.append({"role": "assistant", "content": action})
        dialogue.append({"role": "user", "content": feedback})
    turns = range(len(rewards))
    history = {
        "best_actions": actions,
        "best_observations": [feedback for _ in turns],
        "best_rewards": rewards,
        "actions": {str(t): [actions[t]] for t in turns},
        "observations": {str(t): [feedback] for t in turns},
        "rewards": {str(t): [rewards[t]] for t in turns},
    }
    record = {"task_id": task_id, "query": question, "answer": "5", "max_reward": max(rewards)}
    return record | {"turn_history": history, "dialogue": dialogue[:-1]}


def sentence(draw: random.Random, words: int) -> str:
    return " ".join(draw.choices(WORDS, k=words))


if __name__ == "__main__":
    main()
