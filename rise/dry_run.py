"""What a call would do, as text: `--dry-run`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rise import forecast
from rise.episodes import shard
from rise.episodes.episode import Episode, Message
from rise.job import Job
from rise.rollout import next_prompt


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
        f"{owed} of {job.size} episodes are owed. {forecast.in_words(job)}\n"
        "Nothing was asked and nothing was written."
    )


def render(messages: list[Message], config: dict[str, Any]) -> str:
    """The prompt as the first model gets it.

    For a checkpoint directory it is the text that its chat template makes; other models get the
    messages, which are shown with their roles.
    """
    model = config["models"][0]
    if Path(model).is_dir():
        return forecast.template_of(model, config).render_prompt(messages)
    return "\n".join(f"[{message['role']}]\n{message['content']}" for message in messages)
