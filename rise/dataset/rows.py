"""From the episodes of several logs to training rows, one at a time."""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

import envs
from rise.dataset.arguments import NOT_COMPARED
from rise.dataset.report import RowCounts
from rise.dataset.rules import Row, Rules, all_rewards, rows_from_episode
from rise.dataset.sources import Pool, Source, load_prompts
from rise.dataset.weights import RELATIVE, PromptMeans
from rise.dataset.writer import trained_tokens
from rise.episodes.log import lacks_dialogue
from rise.program.files import json_sha256


def training_rows(
    pool: Pool, rules: Sequence[Rules], counts: RowCounts
) -> Iterator[tuple[int, Row]]:
    """Yield (number of the log, row) for every row that the rules, one per log, keep."""
    means = None
    if rules[0].weighting in RELATIVE:
        means = PromptMeans(rules[0].weighting, rules[0].temperature)
        for _, episode in pool.episodes("mean rewards"):
            means.add(episode.query, all_rewards(episode))
    for number, episode in pool.episodes("convert"):
        mean = means.of(episode.query) if means else 0.0
        opening = pool.opening(number, episode)
        rows, reasons = rows_from_episode(episode, rules[number], opening, mean)
        counts.episodes += 1
        counts.dropped.update(reasons)
        for row in rows:
            yield number, row


def rules_for(source: Source, args: argparse.Namespace) -> Rules:
    """The rules for one log: the arguments, and where they are silent the run's configuration."""
    to_correct = args.correct_to_correct
    return Rules(
        criteria=args.criteria,
        drop_truncated=args.drop_truncated,
        only_success=args.only_success,
        remove_duplication=args.remove_duplication,
        correct_to_correct=source.correct_to_correct if to_correct is None else to_correct,
        context_window=args.context_window or source.context_window,
        weighting=args.weighting,
        temperature=args.temperature,
    )


def settings_of(args: argparse.Namespace, sources: list[Source]) -> dict[str, Any]:
    """What decides the output: the arguments, and of each log its content and how it is read."""
    inputs = []
    for source in sources:
        rules = rules_for(source, args)
        read = {name: getattr(rules, name) for name in ("context_window", "correct_to_correct")}
        inputs.append({"sha256": source.sha256} | read)
    settings = {name: value for name, value in vars(args).items() if name not in NOT_COMPARED}
    if args.match_tokens is not None:
        settings["match_tokens"] = trained_tokens(args.match_tokens, args.model_path)
    # None and not False: as in reports from before the flag existed.
    settings["drop_truncated"] = args.drop_truncated or None
    settings["shuffle"], settings["seed"] = args.shuffle is not None, args.shuffle or 0
    if args.to == "pair_sft":
        settings["weighting"] = "none"
    prompts = [
        _prompt_checksum(source.env or args.env, args.prompt_style, source) for source in sources
    ]
    if any(prompts):
        settings["prompts"] = prompts
    return settings | {"inputs": inputs}


def _prompt_checksum(env: str | None, style: str, source: Source) -> str | None:
    """Of the texts around a question, where they are read from a file and needed."""
    is_own = style in ("default", "bare") and (env or "gsm8k") in envs.NAMES
    if is_own or not lacks_dialogue(source.rows):
        return None
    return json_sha256(load_prompts(env, style).opening(""))
