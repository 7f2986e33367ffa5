"""What config.json holds: the resolved arguments, the data's checksums and the versions."""

import argparse
import datetime
import sys
from typing import Any

import envs
from envs.base import Env
from envs.plugins import checksum
from fastchat.model.files import git_commit, versions
from rise.episodes.feedback import texts_of
from rise.policies.names import fingerprint
from rise.program.files import json_sha256
from rise.runs.arguments import controller_url, per_turn, window
from rise.runs.tally import parse_prices
from rise.tracking import tracker

DISTRIBUTIONS = ("rise-llm", "fschat", "torch", "transformers", "openai")


def make_env(args: argparse.Namespace) -> Env:
    # The arguments' own check names a number of turns below 1; the data is checked beside it.
    turns = max(1, args.max_turns)
    return envs.make(args.env, args.data_path, prompt_style=args.prompt_style, max_turns=turns)


def configuration(
    args: argparse.Namespace, models: list[str], env: Env, options: dict[str, Any]
) -> dict[str, Any]:
    """The configuration as far as it is known before who answers; files by their checksums."""
    turns = args.max_turns
    known = {
        **options,
        "env": args.env,
        "env_sha256": checksum(type(env)),
        "data_sha256": env.problems.sha256[:16],
        "problems": min(args.limit or len(env), len(env)),
        "shard": args.shard,
        "prompt_style": args.prompt_style,
        "prompt_sha256": _prompt_checksum(env),
        "more_prompts_sha256": _more_prompts_checksum(env, options),
        "models": models,
        "fingerprints": [fingerprint(model) for model in models],
        "max_turns": turns,
        "num_of_samples": per_turn(args.num_of_samples, turns),
        "context_window": window(args.context_window, args.dialogue_limit),
        "top_p": args.top_p,
        "seed": args.seed,
        "worker_args": args.worker_args,
    }
    for name in ("temperature", "max_new_tokens"):
        if getattr(args, name) is not None:
            known[name] = per_turn(getattr(args, name), turns)
    return known | _not_compared(args)


def _not_compared(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "controller_address": controller_url(args.controller_address),
        "data_path": args.data_path,
        "date": datetime.date.today().isoformat(),
        "log_dir": args.log_dir,
        "concurrency": args.concurrency,
        "max_cost_usd": args.max_cost_usd,
        "prices": parse_prices(args.price),
        "request_timeout": args.request_timeout,
        "wait_for_server": args.wait_for_server,
        "verbose": args.verbose,
        **{name: getattr(args, name) for name in tracker.KEYS},
        "command": sys.argv,
        "git_commit": git_commit(),
        "versions": versions(DISTRIBUTIONS),
    }


def _prompt_checksum(env: Env) -> str:
    """A checksum of the texts around the first problem, which a style or a new version changes."""
    feedback = (env.feedback_on("", 0, verdict) for verdict in ("wrong", "no_answer"))
    return json_sha256([env.opening(0), *feedback])


def _more_prompts_checksum(env: Env, options: dict[str, Any]) -> str | None:
    """Of the texts that only some modes need: such a run still agrees with its parallel run."""
    names = texts_of(options["feedback"], options.get("expert_sees", "feedback"))
    texts = [getattr(env.style, name) for name in names]
    return json_sha256(texts) if texts else None
