"""GSM8K trajectories without a model: wrong attempts are real solutions with a number changed."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

from envs.prompts import load_style
from fastchat.conversation import BUILT_IN

WEIGHTS = {1: 12.18, 0: 1.0}
"""exp(r / tau) at tau = 0.4, of a right and of a wrong answer."""

VOCABULARY = 4096


def read_problems(path: Path, count: int) -> list[dict[str, str]]:
    """The first `count` problems of a GSM8K file.

    Raises:
        ValueError: there are fewer.
    """
    with path.open(encoding="utf-8") as lines:
        problems = [json.loads(line) for _, line in zip(range(count), lines, strict=False)]
    if len(problems) < count:
        raise ValueError(f"{path} has {len(problems)} problems, and {count} are asked for")
    return problems


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
    rng, prompts = random.Random(number), load_style("gsm8k", "default")
    right = solution(problem["answer"])
    messages = prompts.opening(problem["question"])
    opening, rows = len(messages), []
    for turn in range(1, turns + 1):
        reward = int(turn == turns)
        attempt = right if reward else altered(right, rng)
        shown = [_said(message) | {"loss": 0.0} for message in messages]
        shown.append({"from": "gpt", "value": attempt, "loss": WEIGHTS[reward]})
        rows.append(
            {
                "id": f"{number}-{turn}",
                "conversations": shown,
                "reward": reward,
                "weight": WEIGHTS[reward],
                "task_id": number,
                "turn": turn,
                "opening": opening,
            }
        )
        wrong = prompts.wrong.replace("{question}", problem["question"])
        messages += [
            {"role": "assistant", "content": attempt},
            {"role": "user", "content": wrong},
        ]
    return rows


def build_tokenizer(texts: list[str]) -> Any:
    """A byte-level BPE of `VOCABULARY` tokens, with the llama-2 chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<s>", "</s>"], show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")
    tokenizer.pad_token = "</s>"
    tokenizer.chat_template = BUILT_IN["llama-2"]
    return tokenizer


def _said(message: dict[str, str]) -> dict[str, str]:
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    return {"from": names[message["role"]], "value": message["content"]}
