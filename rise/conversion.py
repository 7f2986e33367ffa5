"""From the episodes of several logs to training rows, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rise.dataset import Row, Rules, all_rewards, rows_from_episode
from rise.dataset_report import RowCounts
from rise.episode import Episode, Message
from rise.prompt_means import PromptMeans
from rise.sources import Pool, Source, load_prompts
from rise.weights import RELATIVE


def training_rows(
    pool: Pool, rules: Sequence[Rules], counts: RowCounts, env: str | None, style: str
) -> Iterator[tuple[int, Row]]:
    """Yield (number of the log, row) for every row that the rules keep.

    Args:
        pool: the logs.
        rules: one for each log, with the same weighting and temperature.
        counts: takes the number of episodes and what was dropped; the rows are the caller's.
        env: the environment of logs that do not say theirs; None is gsm8k.
        style: the prompt of logs without dialogues, as --prompt_style takes it.

    Raises:
        ValueError: if a record is no episode, or as `rise.dataset.rows_from_episode`.
    """
    means = None
    if rules[0].weighting in RELATIVE:
        means = PromptMeans(rules[0].weighting, rules[0].temperature)
        for _, episode in pool.episodes("mean rewards"):
            means.add(episode.query, all_rewards(episode))
    for number, episode in pool.episodes("convert"):
        opening = opening_of(episode, pool.sources[number], env, style)
        mean = means.of(episode.query) if means else None
        rows, reasons = rows_from_episode(episode, rules[number], opening, mean)
        counts.episodes += 1
        counts.dropped.update(reasons)
        for row in rows:
            yield number, row


def opening_of(
    episode: Episode, source: Source, env: str | None, style: str
) -> list[Message] | None:
    """The messages before the first attempt of a log without dialogues; None where it has them."""
    if episode.dialogue:
        return None
    return load_prompts(source.env or env, style).opening(episode.query)
