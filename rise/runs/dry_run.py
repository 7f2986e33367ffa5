"""What a call would do, as text, and how much it would ask for at most: `--dry-run`."""

from __future__ import annotations

import itertools
import json
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rise.episodes import shard
from rise.episodes.episode import Episode, Message
from rise.episodes.feedback import asks_itself
from rise.rollout.play import next_prompt
from rise.runs.tally import MILLION

if TYPE_CHECKING:
    from rise.runs.job import Job


def describe(job: Job) -> str:
    config, env = job.config, job.env
    assert env is not None, "nothing is played"
    owed = job.size - job.finished
    index = shard.task_ids(config)[0]
    first = Episode(index, env.question(index), env.reference(index))
    messages = next_prompt(env, first, config["context_window"])
    return (
        f"{json.dumps(config, indent=2, ensure_ascii=False)}\n\n"
        f"First prompt:\n{render(messages, config)}\n\n"
        f"{owed} of {job.size} episodes are owed. {in_words(job)}\n"
        "Nothing was asked and nothing was written."
    )


def render(messages: list[Message], config: dict[str, Any]) -> str:
    """The prompt as the first model gets it: a checkpoint's text, or messages with their roles."""
    model = config["models"][0]
    if Path(model).is_dir():
        return template_of(model, config).render_prompt(messages, config["date"])
    return "\n".join(f"[{message['role']}]\n{message['content']}" for message in messages)


SAMPLED = 100
"""Problems whose prompts are counted; the other ones are taken to be as long on average."""
CHARACTERS = 3
"""Characters per token; English has about 4, formulas fewer."""


def forecast(job: Job) -> dict[str, Counter[str]]:
    """Per model at most: answers, new_tokens, and the prompt_tokens (estimated) that are billed.

    Every owed episode plays all its turns, every answer takes its limit of new tokens, and a server
    that is not the OpenAI API is asked for each answer alone. A judgement is one more answer.
    """
    config, env, owed = job.config, job.env, job.size - job.finished
    assert env is not None, "nothing is played"
    limits, window = config["max_new_tokens"], config["context_window"]
    task_ids = shard.task_ids(config)
    sampled = task_ids[:: max(1, len(task_ids) // SAMPLED)]
    texts = [message["content"] for index in sampled for message in env.opening(index)]
    opening = sum(map(len, texts)) / CHARACTERS / len(sampled)
    told = len(env.feedback_on("", sampled[0], "wrong")) / CHARACTERS
    found: dict[str, Counter[str]] = {model: Counter() for model in config["models"]}
    for t, model in enumerate(config["models"]):
        samples, kind = config["num_of_samples"][t], config["kinds"][t]
        judged = asks_itself(config["feedback"]) and t + 1 < len(config["models"])
        shown = limits[t - min(t, t if window is None else window - 1) : t]
        # A critique is as long as an answer may be.
        written = sum(shown) * (2 if config["feedback"] == "critique" else 1)
        prompt = opening + written + told * len(shown)
        prompts = prompt * (samples if kind == "server" else 1) + judged * (opening + limits[t])
        answers = owed * (samples + judged)
        found[model]["answers"] += answers
        if kind != "function":
            found[model]["new_tokens"] += answers * limits[t]
            found[model]["prompt_tokens"] += round(owed * prompts)
    return found


def in_words(job: Job) -> str:
    prices = job.config.get("prices") or {}
    lines = ["At most, if every turn is played and every answer takes its limit:"]
    for model, counts in forecast(job).items():
        line = f"  {model}: {counts['answers']:,} answers"
        if counts["new_tokens"]:
            line += f", {counts['new_tokens']:,} new tokens"
        if model in prices:
            given, taken = prices[model]
            cost = (given * counts["prompt_tokens"] + taken * counts["new_tokens"]) / MILLION
            line += f", {cost:.4g} USD (a prompt's token estimated at {CHARACTERS} characters)"
        lines.append(line)
    return "\n".join(lines)


def template_of(model: str, config: dict[str, Any]):
    from transformers import AutoTokenizer

    from fastchat.conversation import ChatTemplate

    given = [
        value
        for option, value in itertools.pairwise(shlex.split(config["worker_args"]))
        if option in ("--conv-template", "--chat-template")
    ]
    return ChatTemplate(AutoTokenizer.from_pretrained(model), given[-1] if given else None)
