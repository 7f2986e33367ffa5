"""How many trained tokens per second of CPU time: this trainer, the published one, and TRL.

    python scripts/benchmarks/training.py > training.md
    python scripts/benchmarks/training.py --data_path data/gsm8k/train.jsonl --rounds 5

Reads GSM8K problems (`python data/fetch.py gsm8k` gets them), whose solutions, altered, are the
wrong attempts of trajectories of 2 and of 5 turns; writes markdown to standard output.

The rows are those of one optimizer step of 64, as a shuffled run takes them from all trajectories
(with --group_trajectories: as that takes them). A tiny Llama of 6.6 M parameters, float32, one
thread. Timed are forward and backward passes with all of their preparation, in rounds in which
every program has its turn; TRL in the setting that was fastest in a trial of four, on 16 of the
rows; the published loss on 3 of them, which all cost the same. Peak memory is measured in a
process of its own for each program.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training_modes import Mode, OneStep

ROOT = Path(__file__).resolve().parents[2]
STEP = 64
TRL_ROWS, PUBLISHED_ROWS = 16, 3


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data_path",
        type=Path,
        default=ROOT / "data/gsm8k/train.jsonl",
        help="GSM8K problems; default: data/gsm8k/train.jsonl",
    )
    parser.add_argument("--problems", type=int, default=400, help="trajectories; default 400")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds; default 3")
    parser.add_argument(
        "--turns", type=int, nargs="+", default=[2, 5], help="of the trajectories; default 2 5"
    )
    parser.add_argument(
        "--trl", metavar="SETTING", help="the setting of TRL; default: the best in a trial of four"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the model and the order; default 0")
    parser.add_argument("--memory", nargs=2, metavar=("PROGRAM", "TURNS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.data_path.is_file():
        parser.error(f"--data_path: no file {args.data_path}; python data/fetch.py gsm8k gets it")
    if args.rounds < 1:
        parser.error(f"--rounds is {args.rounds}: use 1 or more")
    if args.problems < STEP:
        parser.error(f"--problems is {args.problems}: use {STEP} or more")
    return args


@dataclass
class Case:
    """Trajectories of a number of turns as two steps of a run."""

    turns: int
    tokenizer: Any
    shuffled: OneStep
    grouped: OneStep

    @property
    def sample(self) -> list[Any]:
        """Rows of the shuffled step at equal distances of length, for TRL."""
        rows = sorted(self.shuffled.examples, key=lambda example: len(example.input_ids))
        return rows[:: STEP // TRL_ROWS]


def prepare(args: argparse.Namespace, turns: int) -> Case:
    from training_data import build_tokenizer, read_problems, rows_of
    from training_modes import LENGTH, OneStep

    from fastchat.conversation import ChatTemplate
    from fastchat.train.batches import StepBatches
    from fastchat.train.rwr_dataset import RWRDataset

    problems = read_problems(args.data_path, args.problems)
    tokenizer = build_tokenizer([f"{one['question']}\n{one['answer']}" for one in problems])
    rows = [row for i, problem in enumerate(problems) for row in rows_of(problem, i, turns)]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(rows, file)
        file.flush()
        data = RWRDataset(file.name, ChatTemplate(tokenizer), LENGTH)
    steps = []
    for trajectories in (None, data.trajectories):
        order = StepBatches(data.lengths, 1, STEP, args.seed, trajectories=trajectories)
        steps.append(OneStep([data[row] for row in order.epoch_order(0)[:STEP]]))
    return Case(turns, tokenizer, *steps)


def tiny_llama(seed: int) -> Any:
    import torch
    from training_data import VOCABULARY
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=640,
            num_hidden_layers=6,
            num_attention_heads=8,
            max_position_embeddings=2048,
        )
    )


def program(name: str, case: Case, model: Any, directory: Path) -> Mode:
    """A mode by its name; of TRL the name ends in the setting."""
    import training_modes as modes

    model = deepcopy(model)
    if name == "published":
        return modes.published(model, case.shuffled.examples[:PUBLISHED_ROWS])
    if name.startswith("TRL"):
        settings = modes.TRL_SETTINGS[name.removeprefix("TRL, ")]
        return modes.trl(model, case.tokenizer, case.sample, directory, **settings)
    step = case.grouped if "group" in name else case.shuffled
    return modes.ours(model, step, directory)


def useful(name: str, case: Case) -> float:
    """The trained tokens of a program's rows; of the published one's share of the step."""
    if name.startswith("TRL"):
        rows = case.sample
    else:
        rows = (case.grouped if "group" in name else case.shuffled).examples
    trained = sum(len(row.input_ids) - row.action_start for row in rows)
    return trained * PUBLISHED_ROWS / STEP if name == "published" else trained


def speed(name: str, case: Case, mode: Mode) -> float:
    """Trained tokens per second of CPU time."""
    started = time.process_time()
    mode()
    return useful(name, case) / (time.process_time() - started)


def best_setting(case: Case, model: Any, directory: Path) -> str:
    """The fastest setting of TRL on these rows."""
    from training_modes import TRL_SETTINGS

    names = [f"TRL, {setting}" for setting in TRL_SETTINGS]
    trial = {name: speed(name, case, program(name, case, model, directory)) for name in names}
    tried = ", ".join(f"{name.removeprefix('TRL, ')} {value:.0f}" for name, value in trial.items())
    print(f"TRL in its trial, {case.turns} turns, trained tokens per CPU second: {tried}.\n")
    return max(trial, key=trial.__getitem__)


def compare(case: Case, args: argparse.Namespace, directory: Path) -> None:
    """Print the table for one number of turns."""
    model = tiny_llama(args.seed)
    best = f"TRL, {args.trl}" if args.trl else best_setting(case, model, directory)
    names = ["published", best, "ours", "ours, group_trajectories"]
    modes = {name: program(name, case, model, directory) for name in names}
    speed("ours", case, modes["ours"])
    rounds = [{name: speed(name, case, modes[name]) for name in names} for _ in range(args.rounds)]
    print("| turns | program | trained tokens / CPU second | x published | x TRL |")
    print("|---|---|---|---|---|")
    for name in names:
        own = spread([one[name] for one in rounds], 0)
        first, second = (
            spread([one[name] / one[other] for one in rounds], 2) for other in names[:2]
        )
        print(f"| {case.turns} | {name} | {own} | {first} | {second} |", flush=True)
    print(f"\n{args.rounds} rounds, median (lowest to highest). Peak memory in MB:")
    for name in names:
        print(f"- {name}: {peak_memory(name, case.turns, args)}", flush=True)
    print()


def spread(values: Sequence[float], digits: int) -> str:
    middle, low, high = (f"{f(values):.{digits}f}" for f in (statistics.median, min, max))
    return f"{middle} ({low} to {high})"


def peak_memory(name: str, turns: int, args: argparse.Namespace) -> str:
    """Peak resident memory in MB of a process that runs the program once."""
    command = [sys.executable, __file__, "--memory", name, str(turns)]
    command += ["--data_path", str(args.data_path), "--problems", str(args.problems)]
    command += ["--seed", str(args.seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    return done.stdout.split()[-1]


def measure_memory(args: argparse.Namespace, directory: Path) -> None:
    name, turns = args.memory
    case = prepare(args, int(turns))
    program(name, case, tiny_llama(args.seed), directory)()
    # Not getrusage: a new process inherits that from the one that started it.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(round(int(status.split("VmHWM:")[1].split()[0]) / 1024))


def main() -> int:
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "CUDA_VISIBLE_DEVICES": "",  # CPU seconds are compared, which a GPU would make meaningless
        "TOKENIZERS_PARALLELISM": "false",
    }
    args = parse_args()
    import torch
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        if args.memory:
            measure_memory(args, Path(directory))
            return 0
        for turns in args.turns:
            compare(prepare(args, turns), args, Path(directory))
    return 0


if __name__ == "__main__":
    sys.exit(main())
