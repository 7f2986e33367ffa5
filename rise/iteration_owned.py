"""Flags of the stages that `rise.iterate` sets itself, so that nothing passed on may set them.

They say what a stage reads and writes: with another value the next stage would read something else
than this one wrote, and lineage.json would record what did not happen.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

ASKING = {
    "log_dir": "--out",
    "seed": "--seed",
    "controller_address": "--controller_address",
    "dry_run": "--dry-run",
    "smoke": "a short run is one with --limit here",
    "shard": "its stages are not split",
}
GENERATION = {
    **ASKING,
    "models": "--model and --expert",
    "data_path": "--train_data",
    "max_turns": "it generates an attempt and one further turn, or a boost's one turn",
    "num_of_samples": "--expert_samples",
}
OWNED = {
    "gen_args": GENERATION,
    "boost_args": GENERATION,
    "convert_args": {
        "filepath": "--pool",
        "output": "--out",
        "format": "the trainer reads the published one",
        "model_path": "--model",
        "seed": "--seed",
        "dry_run": "--dry-run",
    },
    "train_args": {
        "model_name_or_path": "--model and --train_from",
        "data_path": "--convert_args",
        "output_dir": "--out",
        "seed": "--seed",
    },
    "eval_args": {**ASKING, "model": "--model", "data_path": "--test_data"},
}
"""Argument of `rise.iterate` -> flag of the stage -> what to give instead, or why nothing is given.

--max_turns and --num_of_samples of evaluation may be given: nothing later rests on them.
"""


ADAPTING = ("use_lora", "lora", "q_lora")
"""Flags of the trainer with which it saves an adapter."""


def saves_adapter(words: Sequence[str]) -> bool:
    """Whether the trainer, given these words, saves an adapter instead of a model.

    >>> saves_adapter(["--bf16", "True", "--use_lora"]), saves_adapter(["--use-lora=False"])
    (True, False)
    >>> saves_adapter(["--q_lora", "true", "--bf16"]), saves_adapter(["--lora_r", "8"])
    (True, False)
    """
    for word, following in itertools.pairwise([*words, ""]):
        flag, _, value = word.partition("=")
        if flag.removeprefix("--").replace("-", "_") in ADAPTING:
            value = value or ("" if following.startswith("--") else following)
            return value.lower() not in ("false", "no", "f", "n", "0")
    return False


def overridden(name: str, words: Sequence[str]) -> list[str]:
    """What is wrong with the words that one argument passes on.

    >>> overridden("gen_args", ["--log_dir=foo", "--limit", "3"])
    ['--gen_args has --log_dir, which rise.iterate sets: give its --out instead']
    >>> overridden("eval_args", ["--data-path", "x", "--max_turns", "2"])
    ['--eval_args has --data-path, which rise.iterate sets: give its --test_data instead']
    """
    problems = []
    for word in words:
        flag = word.partition("=")[0]
        given = flag[2:].replace("-", "_") if flag.startswith("--") else ""
        remedy = OWNED[name].get(given)
        if remedy:
            said = f"give its {remedy} instead" if remedy.startswith("--") else remedy
            problems.append(f"--{name} has {flag}, which rise.iterate sets: {said}")
    return problems
