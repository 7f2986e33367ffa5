"""Turn generated episodes into weighted fine-tuning data.

    python workflow_convert.py --filepath log/gsm8k/2_turns.json --output dataset/finetune.json \
        --model_path meta-llama/Llama-2-7b-chat-hf --env gsm8k --criteria all \
        --remove_duplication --shuffle
    python workflow_convert.py --filepath log/iteration1 log/iteration2 --output dataset/both.json
    python workflow_convert.py --filepath log/math --output dataset/pairs.jsonl --to dpo

Reads   --filepath, run directories of workflow_gen.py, rows.jsonl or <T>_turns.json, pooled.
Writes  --output, a JSON list of rows for train_mem.py, or JSON lines for other trainers; beside it
        OUTPUT.report.json (settings, counts, weights, tokens) and OUTPUT_hist.png (the weights).

Every turn that the criteria keep is a row: what the model saw, its answer, and how much the answer
counts. What the model saw (context window, correct-to-correct) is read from the run's config.json.
The rules are in rise/dataset/rules.py.
"""

import argparse
import json
import random
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import rise  # noqa: F401 (first: it says what to do without the environment)
from fastchat.utils import GO_TOGETHER, Parser
from rise.dataset.arguments import add_output, add_rules, problems_of
from rise.dataset.near_duplicates import without_near_duplicates
from rise.dataset.pairs import PairCounts, format_pairs, preference_pairs, repair_rows
from rise.dataset.report import RowCounts, TokenCounts, format_report
from rise.dataset.rows import rules_for, settings_of, training_rows
from rise.dataset.sources import (
    Pool,
    Source,
    load_prompts,
    problems_with,
    prompt_styles,
    read_source,
    rows_of,
)
from rise.dataset.writer import RowSpill, is_written, match_tokens, report_path, write_dataset
from rise.program.exits import DONE, FAILED, collecting, exit_code, run_program
from rise.runs.arguments import env_help, env_name


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    group = parser.add_argument_group("episodes")
    add = group.add_argument
    add("--filepath", nargs="+", required=True, help="logs to pool: run directories or files")
    add(
        "--env",
        type=env_name,
        help=f"{env_help()}; default: as the run was generated, gsm8k for a published log",
    )
    add(
        "--prompt_style",
        default="default",
        help="default | bare | FILE.json: the prompt of published logs that hold no dialogue; "
        "other logs know theirs",
    )
    add(
        "--context_window",
        type=int,
        help="c shows the question and the last c - 1 attempts, 1 the question alone; default: as "
        "the run was generated, all for a published log",
    )
    add(
        "--correct_to_correct",
        action=argparse.BooleanOptionalAction,
        help="go on after a right turn 1 (a kept right answer is data too; --criteria better "
        "drops it, as it is not better); default: as the run was generated",
    )
    add_rules(parser)
    add_output(parser)
    args = parser.parse_args(argv)
    if args.shuffle is not None and args.seed is not None:
        args.shuffle = args.seed
    return args


def check_args(args: argparse.Namespace) -> list[Source]:
    """Check the arguments together and open the logs; with --check those that are there."""
    problems = problems_of(args)
    sources: list[Source] = []
    with collecting(problems):
        for path in args.filepath:
            if rows_of(path).is_file() or not args.check:
                sources.append(read_source(path))
    with collecting(problems):
        # The file of a plug-in may have changed since an earlier call in this process.
        load_prompts.cache_clear()
        load_prompts(args.env, args.prompt_style)
    problems += problems_with(sources, args.env)
    problems += [
        f"--output {args.output} is among the files of --filepath {source.path}, which is read: "
        "give another --output"
        for source in sources
        if _is_of(source, args.output.resolve())
    ]
    if problems:
        raise ValueError("\n".join(problems))
    return sources


def _is_of(source: Source, output: Path) -> bool:
    """Whether a file is a log's or its run's: --overwrite is for data sets, not for episodes."""
    if output in (source.path.resolve(), source.rows.resolve()):
        return True
    is_data_set = report_path(output).exists()
    return output.parent == source.run and output.exists() and not is_data_set


def next_command(args: argparse.Namespace) -> str:
    if args.to == "dpo":
        return f"\nNext: train on the pairs in {args.output}, with TRL's DPOTrainer for example"
    if args.format != "fastchat":
        return f"\nNext: train on the messages in {args.output}, each row with its weight"
    missing = "" if args.model_path else "; set MODEL to the checkpoint that answered turn 1"
    data = shlex.quote(str(args.output))
    if Path(sys.argv[0]).name == "rise-convert":  # installed, without scripts/
        words = f"--model_name_or_path {shlex.quote(args.model_path or 'MODEL')} --data_path {data}"
        words += f" --output_dir checkpoints/rise  # or with a launcher{missing}"
        return f"\nNext: python -m fastchat.train.train_mem {words}"
    model = f"MODEL={shlex.quote(args.model_path)} " if args.model_path else ""
    return (
        f"\nNext: {model}DATA_PATH={data} OUTPUT_DIR=checkpoints/rise "
        f"bash scripts/finetune_deepspeed.sh  # train_mem.py, published settings{missing}"
    )


def run(args: argparse.Namespace) -> int:
    sources = check_args(args)
    if args.check:
        print(GO_TOGETHER)
        return DONE
    settings = settings_of(args, sources)
    if not (args.dry_run or args.overwrite) and is_written(args.output, settings):
        print(f"{args.output} is done: same logs, same settings.{next_command(args)}")
        return DONE
    make = write_pairs if args.to == "dpo" else write_rows
    with RowSpill(args.output) as spill:
        pool = Pool(sources, args.env, args.prompt_style)
        for notice in pool.unfinished():
            print(notice, file=sys.stderr)
        code = make(pool, args, settings, spill)
        if pool.cut:
            print(
                f"The dialogues of {pool.cut} episodes are shorter than their turns (the published "
                "--dialogue_limit cut them): their prompt is that of --prompt_style "
                f"{args.prompt_style}, with the feedback of the record",
                file=sys.stderr,
            )
        return code


def write_rows(
    pool: Pool, args: argparse.Namespace, settings: dict[str, Any], spill: RowSpill
) -> int:
    counts, tokens = RowCounts(), TokenCounts(args.model_path)
    if args.to == "pair_sft":
        rows = repair_rows(pool, counts, args.output, args.max_pairs)
    else:
        rows = training_rows(pool, [rules_for(each, args) for each in pool.sources], counts)
    if args.remove_near_duplicates is not None:
        similarity = args.remove_near_duplicates
        rows = without_near_duplicates(rows, similarity, args.output, counts.dropped)
    for number, row in rows:
        spill.append(row.to_dict(number, args.format))
        counts.add(row)
        tokens.add(row)
    if not spill.offsets:
        print(counts.why_empty(), file=sys.stderr)
        return FAILED
    report = {"settings": settings, **counts.to_dict(), "tokens": tokens.to_dict()}
    report["prompt_styles"] = prompt_styles(pool.sources, args.prompt_style)
    if args.match_tokens is not None:
        budget, seed = settings["match_tokens"], settings["seed"]
        report["match_tokens"] = match_tokens(spill, tokens, budget, seed)
    finish(args, spill, report, format_report(report), counts.weights)
    return DONE


def write_pairs(
    pool: Pool, args: argparse.Namespace, settings: dict[str, Any], spill: RowSpill
) -> int:
    counts = PairCounts()
    rules = [rules_for(source, args) for source in pool.sources]
    for pair in preference_pairs(pool, rules, counts, args.output, args.max_pairs):
        spill.append(pair)
    if not spill.offsets:
        print(
            f"No pair in {len(pool)} episodes: in none of {counts.states} states have two answers "
            "different rewards; sample more per turn, or pool the logs of several runs",
            file=sys.stderr,
        )
        return FAILED
    report = {"settings": settings, **counts.to_dict()}
    report["prompt_styles"] = prompt_styles(pool.sources, args.prompt_style)
    finish(args, spill, report, format_pairs(report))
    return DONE


def finish(
    args: argparse.Namespace,
    spill: RowSpill,
    report: dict[str, Any],
    in_words: str,
    weights: Sequence[float] = (),
) -> None:
    from fastchat.model.files import git_commit
    from rise.report.tracked import log_conversion

    if args.shuffle is not None:
        random.Random(args.shuffle).shuffle(spill.offsets)
    if args.dry_run:
        first = next(spill.rows(spill.offsets))
        print(json.dumps(first, indent=2, ensure_ascii=False))
        print(f"{in_words}\nDry run: nothing was written.")
        return
    as_lines = args.to == "dpo" or args.format == "messages"
    report |= {"filepath": [str(path) for path in args.filepath]}
    report |= {"command": sys.argv, "git_commit": git_commit()}
    paths = write_dataset(
        args.output, spill.lines(spill.offsets), report, weights, as_lines=as_lines
    )
    print(f"{in_words}\nWrote {', '.join(map(str, paths))}{next_command(args)}")
    log_conversion(args, report, weights)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: run(args))


command = partial(run_program, main)
"""The program rise-convert of an installed distribution."""

if __name__ == "__main__":
    command()
