"""The arguments that workflow_gen.py and workflow_eval.py share, and how they are read."""

import argparse
import math
import re
import resource
from pathlib import Path
from typing import TypeVar

import envs
from fastchat.utils import normal_url, similar, words
from rise.episodes import shard
from rise.episodes.feedback import FEEDBACK
from rise.program.exits import collecting
from rise.runs.tally import parse_prices
from rise.tracking import tracker

T = TypeVar("T")

DEFAULT_CONTROLLER = "http://localhost:21001"
COUNTS = ("max_turns", "limit", "context_window", "concurrency")


def add_common(parser: argparse.ArgumentParser) -> None:
    for add in (_add_problems, _add_episodes, _add_sampling, _add_who_answers, _add_run):
        add(parser)
    tracker.add_arguments(parser)


def _add_problems(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("problems").add_argument
    add("--data_path", required=True, help="problems, one JSON object per line")
    add("--env", required=True, type=env_name, help=env_help())
    add(
        "--prompt_style",
        default="default",
        help="default | bare (the question alone) | FILE.json with texts of your own",
    )
    add("--limit", type=int, help="use the first LIMIT problems; default all")
    add(
        "--shard",
        help="I/N: every N-th problem from the I-th on, for N jobs with a --log_dir each, which "
        "`python -m rise.merge` joins; default all problems",
    )


def _add_episodes(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("episodes").add_argument
    add("--max_turns", type=int, default=5, help="turns of an episode at most; default 5")
    add(
        "--num_of_samples",
        type=int,
        nargs="+",
        default=[1],
        help="answers per turn: one value for all turns or one per turn; default 1",
    )
    add(
        "--context_window",
        type=int,
        help="c shows the question and the last c - 1 attempts, 1 the question alone; default all",
    )
    add(
        "--dialogue_limit",
        type=int,
        help="show at most this many messages after the opening, counted in whole pairs of "
        "attempt and feedback; default no limit. The narrower of the two windows counts",
    )


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("sampling").add_argument
    add(
        "--temperature",
        type=float,
        nargs="+",
        help="one value, or one per turn; 0 is greedy; default 1.0, for models of the OpenAI API "
        "0.7, for those of them that reason (o1, gpt-5, ...) 1.0, which is all that they take",
    )
    add("--top_p", type=float, default=1.0, help="probability mass, in (0, 1]; default 1.0")
    add(
        "--max_new_tokens",
        type=int,
        nargs="+",
        help="limit of one answer in tokens, one value or one per turn; default 1000, for models "
        "of the OpenAI API 512, for those of them that reason 8192, their reasoning included",
    )
    add("--seed", type=int, default=0, help="every draw is derived from it; default 0")


def _add_who_answers(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("who answers").add_argument
    add(
        "--controller_address",
        default=DEFAULT_CONTROLLER,
        help="URL of a FastChat controller, its port on this machine, or a file with its URL, "
        f"which is read again when the controller is gone; default {DEFAULT_CONTROLLER}",
    )
    add(
        "--worker_args",
        type=words,
        default="",
        help="further arguments, in one string, of the workers that this run starts for "
        'checkpoints, such as "--dtype float32"',
    )
    add(
        "--request_timeout",
        type=float,
        default=1800.0,
        help="seconds for one request, its wait at a busy worker included; default 1800",
    )
    add(
        "--wait_for_server",
        type=float,
        default=10.0,
        metavar="MINUTES",
        help="how long to wait for a served model that goes away, before what it was asked is owed "
        "to the next call; default 10, 0: not at all",
    )
    add("--concurrency", type=int, default=64, help="episodes in flight; default 64")
    add(
        "--price",
        nargs="+",
        default=[],
        metavar="MODEL=IN,OUT",
        help="USD for a million tokens of prompts and of answers, for each model that costs "
        "something: the summary then has the cost; default unknown",
    )
    add(
        "--max_cost_usd",
        type=float,
        help="begin no further episode once the run has cost this, earlier calls and failed "
        "attempts included; those in flight, --concurrency at most, are finished. Default no limit",
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("the run").add_argument
    add("--log_dir", required=True, help="run directory; the same command goes on with the run")
    add("--dry-run", "--dry_run", action="store_true", help="check, show what would run, exit")
    add(
        "--check",
        action="store_true",
        help="say what contradicts itself, exit with 0 or 2; a checkpoint may still be missing",
    )
    add("--verbose", action="store_true", help="one line per episode")


def add_feedback(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--feedback",
        choices=FEEDBACK,
        default=default,
        help="what is said after an attempt. none: 'incorrect', whatever was answered; oracle: the "
        "truth, and an episode stops at its first success; verdict: the truth, and all turns are "
        "played; self: what the model says when asked whether its answer is right; critique: what "
        f"it says when asked what is wrong with it; default {default}",
    )


def env_name(name: str) -> str:
    """The value of --env as it is recorded; a plug-in's file is not read yet."""
    try:
        return envs.canonical(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def env_help() -> str:
    return f"{', '.join(envs.NAMES)} or an installed plug-in, in any case; or FILE.py:Class"


def problems_with(args: argparse.Namespace, models: list[str]) -> list[str]:
    problems: list[str] = []

    def refuse(flag: str, wrong: object, text: str) -> None:
        if wrong:
            problems.append(f"{flag} {text}")

    for name in COUNTS:
        value = getattr(args, name)
        refuse(f"--{name}", value is not None and value < 1, f"is {value}: give 1 or more")
    temperature, tokens = args.temperature or [1.0], args.max_new_tokens or [1]
    samples, most = args.num_of_samples, most_connections()
    refuse("--num_of_samples", min(samples) < 1, f"is {samples}: give 1 or more for each")
    is_odd = not all(0 <= value < math.inf for value in temperature)
    refuse("--temperature", is_odd, f"is {temperature}: give numbers, 0 or more")
    refuse("--max_new_tokens", min(tokens) < 1, f"is {tokens}: give 1 or more for each")
    refuse("--top_p", not 0 < args.top_p <= 1, f"is {args.top_p}: give a value in (0, 1]")
    limit, cost = args.dialogue_limit, args.max_cost_usd
    refuse("--dialogue_limit", limit is not None and limit < 0, f"is {limit}: give 0 or more")
    is_free = cost is not None and not cost > 0
    refuse("--max_cost_usd", is_free, f"is {cost}: give a number above 0")
    refuse(
        "--concurrency",
        args.concurrency > most,
        f"is {args.concurrency}, but this shell allows {most} connections: give less, or raise the "
        "limit of `ulimit -Hn`",
    )
    seconds = args.request_timeout
    refuse("--request_timeout", not seconds > 0, f"is {seconds} s: give more than 0")
    minutes = args.wait_for_server
    refuse("--wait_for_server", not minutes >= 0, f"is {minutes} minutes: give 0 or more")
    refuse("--log_dir", Path(args.log_dir).is_file(), f"{args.log_dir} is a file")
    refuse("--data_path", not Path(args.data_path).is_file(), _no_file(args.data_path, args.env))
    lists = {"models": models, "num_of_samples": samples}
    lists |= {"temperature": temperature, "max_new_tokens": tokens}
    for name, values in lists.items():
        refuse(
            f"--{name}",
            args.max_turns >= 1 and len(values) not in (1, args.max_turns),
            f"has {len(values)} values for --max_turns {args.max_turns}: give one for all turns, "
            f"or {args.max_turns}",
        )
    for read, text in (
        (controller_url, args.controller_address),
        (shard.parse, args.shard or "1/1"),
        (parse_prices, args.price),
    ):
        with collecting(problems):
            read(text)
    return problems


def per_turn(values: list[T], max_turns: int) -> list[T]:
    return values * max_turns if len(values) == 1 else list(values)


def controller_url(address: str) -> str:
    """The URL for a URL, HOST:PORT or a bare port on this machine; a file with a URL as it is.

    >>> controller_url("21001"), controller_url("10.0.0.5:21001")
    ('http://localhost:21001', 'http://10.0.0.5:21001')
    """
    if Path(address).is_file():
        return address
    url = normal_url(address)
    if not re.fullmatch(r"https?://[^\s/:]+(:\d+)?/?|https?://\[[0-9a-f:]+\](:\d+)?/?", url):
        raise ValueError(
            f"--controller_address is {address!r}: give a URL like {DEFAULT_CONTROLLER}, or a port"
        )
    return url


def window(context_window: int | None, dialogue_limit: int | None) -> int | None:
    """The narrower of both windows, as a --context_window; None shows everything.

    >>> window(None, 4), window(2, 20), window(None, 1), window(None, None)
    (3, 2, 1, None)
    """
    if dialogue_limit is None:
        return context_window
    pairs = dialogue_limit // 2 + 1
    return pairs if context_window is None else min(context_window, pairs)


SPARE = 64
"""Files that are open beside the connections."""


def most_connections() -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**31 if hard == resource.RLIM_INFINITY else hard - SPARE


def _no_file(path: str, env: str) -> str:
    if Path(path).is_dir():
        return f"{path} is a directory: give a file in it"
    known = env in envs.NAMES and envs.NAMES[env].fetched
    fetch = f": `python data/fetch.py {env}` fills data/{env}/" * known
    return f"{path} is not a file{similar(path) or fetch}"
