"""How many trained tokens per second of CPU time: this trainer, the published one, and TRL.

    python scripts/benchmarks/training.py > training.md
    python scripts/benchmarks/training.py --data_path data/gsm8k/train.jsonl --rounds 5

Reads GSM8K problems (`python data/fetch.py gsm8k` gets them), whose solutions, altered, are the
wrong attempts of trajectories of 2 and of 5 turns; writes markdown to standard output.

The rows are those of one optimizer step of 64, as a shuffled run takes them from all trajectories
(with --group_trajectories: as that takes them). A tiny Llama of 6.6 M parameters, float32, one
thread. Timed are forward and backward passes with all of their preparation, in rounds in which
every program has its turn; TRL at batches of 1, its fastest setting on a CPU, on 16 of the rows;
the published loss on 3 of them, which all cost the same.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import re
import sys
import tempfile
import time
import warnings
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import ROOT, parser, spread, train_tokenizer

if TYPE_CHECKING:
    from training_modes import Mode, OneStep

STEP = 64
TRL_ROWS, PUBLISHED_ROWS = 16, 3
VOCABULARY = 4096
WEIGHTS = {1: 12.18, 0: 1.0}
"""exp(r / tau) at tau = 0.4, of a right and of a wrong answer."""
SAID_BY = {"system": "system", "user": "human", "assistant": "gpt"}


def parse_args() -> argparse.Namespace:
    found = parser(__doc__)
    add, data = found.add_argument, ROOT / "data/gsm8k/train.jsonl"
    add("--data_path", type=Path, default=data, help="default: data/gsm8k/train.jsonl")
    add("--problems", type=int, default=400, help="trajectories; default 400")
    add("--rounds", type=int, default=3, help="timed rounds; default 3")
    add("--turns", type=int, nargs="+", default=[2, 5], help="of the trajectories; default 2 5")
    add("--seed", type=int, default=0, help="of the model and the order; default 0")
    args = found.parse_args()
    if not args.data_path.is_file():
        found.error(f"--data_path: no file {args.data_path}; python data/fetch.py gsm8k gets it")
    if args.rounds < 1:
        found.error(f"--rounds is {args.rounds}: use 1 or more")
    if args.problems < STEP:
        found.error(f"--problems is {args.problems}: use {STEP} or more")
    return args


def solution(answer: str) -> str:
    """A reference of GSM8K as an attempt: no calculator marks, the result in a box."""
    steps, _, result = re.sub(r"<<[^>]*>>", "", answer).partition("####")
    return f"{steps.strip()}\nThe answer is \\boxed{{{result.strip()}}}"


def altered(text: str, rng: random.Random) -> str:
    """An attempt with the last number of one of its lines changed, and the result with it."""
    lines = text.split("\n")
    for line in {rng.randrange(len(lines)), len(lines) - 1}:
        lines[line] = re.sub(
            r"\d+(?!.*\d)", lambda found: str(int(found[0]) + rng.randint(1, 30)), lines[line]
        )
    return "\n".join(lines)


def rows_of(problem: dict[str, str], number: int, turns: int) -> list[dict[str, Any]]:
    """The rows of a trajectory whose last of `turns` attempts is right, as converted."""
    from envs.prompts import load_style

    rng, prompts = random.Random(number), load_style("gsm8k", "default")
    right = solution(problem["answer"])
    wrong = prompts.wrong.replace("{question}", problem["question"])
    messages = prompts.opening(problem["question"])
    opening, rows = len(messages), []
    for turn in range(1, turns + 1):
        reward = int(turn == turns)
        attempt = right if reward else altered(right, rng)
        shown = [
            {"from": SAID_BY[message["role"]], "value": message["content"], "loss": 0.0}
            for message in messages
        ]
        row = {"id": f"{number}-{turn}", "task_id": number, "turn": turn, "opening": opening}
        row |= {"reward": reward, "weight": WEIGHTS[reward]}
        shown.append({"from": "gpt", "value": attempt, "loss": WEIGHTS[reward]})
        rows.append(row | {"conversations": shown})
        messages += [{"role": "assistant", "content": attempt}, {"role": "user", "content": wrong}]
    return rows


def build_tokenizer(texts: list[str]) -> Any:
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    return train_tokenizer(texts, VOCABULARY, ["<s>", "</s>"], "llama-2", **names)


@dataclass
class Case:
    """Trajectories of a number of turns as two steps of a run."""

    turns: int
    tokenizer: Any
    shuffled: OneStep
    grouped: OneStep

    def rows(self, name: str) -> list[Any]:
        """Those of a program; TRL has rows of the shuffled step at equal distances of length."""
        rows = (self.grouped if "group" in name else self.shuffled).examples
        if name.startswith("TRL"):
            return sorted(rows, key=lambda row: len(row.input_ids))[:: STEP // TRL_ROWS]
        return rows

    def speed(self, name: str, mode: Mode) -> float:
        trained = sum(len(row.input_ids) - row.action_start for row in self.rows(name))
        share = PUBLISHED_ROWS / STEP if name == "published" else 1
        started = time.process_time()
        mode()
        return trained * share / (time.process_time() - started)


def prepare(args: argparse.Namespace, turns: int) -> Case:
    from training_modes import LENGTH, OneStep

    from fastchat.conversation import ChatTemplate
    from fastchat.train.data.batches import StepBatches
    from fastchat.train.data.rwr_dataset import RWRDataset

    with args.data_path.open(encoding="utf-8") as lines:
        problems = [json.loads(line) for line in islice(lines, args.problems)]
    if len(problems) < args.problems:
        raise ValueError(
            f"{args.data_path} has {len(problems)} problems, and {args.problems} are asked for"
        )
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
    import training_modes as modes

    model = deepcopy(model)
    if name == "published":
        return modes.published(model, case.rows(name)[:PUBLISHED_ROWS])
    if name.startswith("TRL"):
        return modes.trl(model, case.tokenizer, case.rows(name), directory)
    return modes.ours(model, case.grouped if "group" in name else case.shuffled, directory)


def compare(case: Case, args: argparse.Namespace, directory: Path) -> None:
    model = tiny_llama(args.seed)
    names = ["published", "TRL, batch 1", "ours", "ours, group_trajectories"]
    modes = {name: program(name, case, model, directory) for name in names}
    case.speed("ours", modes["ours"])
    rounds = [{name: case.speed(name, modes[name]) for name in names} for _ in range(args.rounds)]
    print("| turns | program | trained tokens / CPU second | x published | x TRL |")
    print("|---|---|---|---|---|")
    for name in names:
        own = spread([one[name] for one in rounds])
        first, second = (
            spread([one[name] / one[other] for one in rounds], ".2f") for other in names[:2]
        )
        print(f"| {case.turns} | {name} | {own} | {first} | {second} |", flush=True)
    print(f"\n{args.rounds} rounds, median (lowest to highest).\n")


def main() -> int:
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    # CPU seconds are compared, which a GPU would make meaningless.
    os.environ |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    args = parse_args()
    import torch
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        for turns in args.turns:
            compare(prepare(args, turns), args, Path(directory))
    return 0


if __name__ == "__main__":
    sys.exit(main())
