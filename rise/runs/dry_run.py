"""What a call would do, as text: `--dry-run`.

How much a run will ask for, at most: requests, tokens and cost of each model.
"""

from __future__ import annotations

import itertools
import json
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rise.episodes import shard
from rise.episodes.episode import Episode, Message, visible
from rise.episodes.feedback import asks_itself
from rise.rollout.play import next_prompt
from rise.runs.tally import MILLION

if TYPE_CHECKING:
    from rise.runs.job import Job


def describe(job: Job) -> str:
    """The resolved configuration, the first prompt, and what would be asked for at most.

    Raises:
        ValueError: if the prompt cannot be rendered with the checkpoint's chat template.
    """
    config = job.config
    owed = job.size - job.finished
    index = shard.task_ids(config)[0]
    first = Episode(index, job.env.question(index), job.env.reference(index))
    messages = next_prompt(job.env, first, config["context_window"])
    return (
        f"{json.dumps(config, indent=2, ensure_ascii=False)}\n\n"
        f"First prompt:\n{render(messages, config)}\n\n"
        f"{owed} of {job.size} episodes are owed. {in_words(job)}\n"
        "Nothing was asked and nothing was written."
    )


def render(messages: list[Message], config: dict[str, Any]) -> str:
    """The prompt as the first model gets it.

    For a checkpoint directory it is the text that its chat template makes; other models get the
    messages, which are shown with their roles.
    """
    model = config["models"][0]
    if Path(model).is_dir():
        return template_of(model, config).render_prompt(messages)
    return "\n".join(f"[{message['role']}]\n{message['content']}" for message in messages)


SAMPLED = 100
"""Problems whose prompts are counted; the other ones are taken to be as long on average."""
CHARACTERS = 3
"""Characters per token where there is no tokenizer here; English has about 4, formulas fewer."""
FRAME = 5
"""Tokens that are added for the frame of a message where there is no tokenizer here."""


def forecast(job: Job) -> dict[str, Counter[str]]:
    """Per model an upper bound of requests, answers, prompt_tokens and new_tokens.

    Every owed episode plays all its turns, every answer takes its limit of new tokens, and a server
    that is not the OpenAI API is asked for each answer alone. Where a model judges itself, each
    judgement is one more request and answer. Python functions have no tokens.
    """
    config, owed = job.config, job.size - job.finished
    planned: dict[str, Counter[str]] = {model: Counter() for model in config["models"]}
    counters = {model: _counter(model, config) for model in planned}
    for t, model in enumerate(config["models"]):
        samples, kind = config["num_of_samples"][t], config["kinds"][t]
        requests = owed * (samples if kind == "server" else 1)
        counts = {"requests": requests, "answers": owed * samples}
        if kind != "function":
            prompt = prompt_tokens(job, t, counters[model])
            counts["prompt_tokens"] = round(requests * prompt)
            counts["new_tokens"] = owed * samples * config["max_new_tokens"][t]
        planned[model].update(counts)
        if asks_itself(config["feedback"]) and t + 1 < len(config["models"]):
            planned[model].update(_judgements(job, t, counters[model]))
    return planned


def _judgements(job: Job, t: int, count: Callable[[list[Message]], int]) -> dict[str, int]:
    """What a model takes to judge its own answers of turn t (from 0)."""
    config, owed = job.config, job.size - job.finished
    counts = {"requests": owed, "answers": owed}
    if config["kinds"][t] == "function":
        return counts
    limit = config["max_new_tokens"][t]
    request = {"role": "user", "content": job.env.style.judge}
    if config["feedback"] == "critique":
        request["content"] = job.env.style.critique
    answer = {"role": "assistant", "content": "x"}
    sampled = _sampled(job)
    lengths = [count([*job.env.opening(index), answer, request]) for index in sampled]
    prompts = owed * (sum(lengths) / len(lengths) + limit)
    return counts | {"prompt_tokens": round(prompts), "new_tokens": owed * limit}


def prompt_tokens(job: Job, t: int, count: Callable[[list[Message]], int]) -> float:
    """Mean tokens of the prompts of turn t (from 0), if every attempt shown took its limit."""
    config, env, lengths = job.config, job.env, []
    writes_feedback = config["feedback"] == "critique"
    sees = config.get("expert_sees", "feedback") if t else "feedback"
    window = 1 if sees == "none" else config["context_window"]
    for index in _sampled(job):
        opening, feedback = env.opening(index), env.feedback_on("", index, "wrong")
        if writes_feedback:
            feedback = env.text("refine", index, critique="x")
        elif config["feedback"] in ("verdict", "self"):
            feedback = max(feedback, env.text("right_again", index), key=len)
        shown = visible(opening, ["x"] * t, [feedback] * t, window)
        if sees == "reference":
            shown[-1]["content"] += env.text("hint", index, reference=env.reference(index))
        lengths.append(count(shown))
    attempts = (len(shown) - len(opening)) // 2
    written = sum(config["max_new_tokens"][t - attempts : t])
    return sum(lengths) / len(lengths) + written * (2 if writes_feedback else 1)


def _sampled(job: Job) -> Sequence[int]:
    """The problems whose prompts are counted."""
    task_ids = shard.task_ids(job.config)
    return task_ids[:: max(1, len(task_ids) // SAMPLED)]


def in_words(job: Job) -> str:
    """A line per model, and what the numbers rest on."""
    prices, lines = job.config.get("prices") or {}, []
    for model, counts in forecast(job).items():
        parts = [f"{model}: {counts['requests']:,} requests for {counts['answers']:,} answers"]
        if "prompt_tokens" in counts:
            parts.append(
                f"{counts['prompt_tokens']:,} prompt tokens ({_basis(model)}), "
                f"{counts['new_tokens']:,} new tokens"
            )
        if model in prices:
            given, taken = prices[model]
            cost = given * counts["prompt_tokens"] + taken * counts["new_tokens"]
            parts.append(f"{cost / MILLION:.4g} USD")
        lines.append("  " + ", ".join(parts))
    return "\n".join(["At most, if every turn is played and every answer takes its limit:", *lines])


def template_of(model: str, config: dict[str, Any]):
    """The chat template of a checkpoint directory, as its worker will use it.

    Raises:
        ValueError: if the tokenizer has none and none is named in --worker_args.
    """
    from transformers import AutoTokenizer

    from fastchat.conversation import ChatTemplate

    given = [
        value
        for option, value in itertools.pairwise(shlex.split(config["worker_args"]))
        if option in ("--conv-template", "--chat-template")
    ]
    return ChatTemplate(AutoTokenizer.from_pretrained(model), *given[-1:])


def _counter(model: str, config: dict[str, Any]) -> Callable[[list[Message]], int]:
    if Path(model).is_dir():
        template = template_of(model, config)
        return lambda messages: len(template.prompt_ids(messages))
    return lambda messages: sum(FRAME + len(m["content"]) // CHARACTERS for m in messages)


def _basis(model: str) -> str:
    if Path(model).is_dir():
        return "counted with its tokenizer"
    return f"estimated at {CHARACTERS} characters a token"
