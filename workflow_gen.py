r"""Generate multi-turn data: a model answers; where it is wrong, it or an expert answers again.

    python workflow_gen.py --data_path data/gsm8k/train.jsonl --env gsm8k --log_dir log/gsm8k/ \
        --max_turns 2 --num_of_samples 1 1 --models Llama-2-7b-chat-hf gpt-3.5-turbo
    python workflow_gen.py --data_path data/gsm8k/train.jsonl --env gsm8k --log_dir log/self/ \
        --max_turns 2 --num_of_samples 1 16 --models ./checkpoint

Reads   --data_path, problems as JSON lines; keys.cfg, if the key is not in the environment.
Writes  --log_dir: config.json, rows.jsonl (an episode per line), <max_turns>_turns.json (the
        published log, for workflow_convert.py), summary.json.

A model is a name that the controller serves, a directory with a checkpoint or hf:ORG/NAME (served
by this run), NAME@http://HOST:PORT/v1, a name of the OpenAI API, or FILE.py:FUNCTION, called as
f(problem, messages) -> str. The same command goes on with an unfinished run.
"""

import argparse
import shlex
import sys
from functools import partial
from pathlib import Path

import rise  # noqa: F401 (first: it says what to do without the environment)
from fastchat.utils import Parser
from rise.episodes.feedback import EXPERT_SEES
from rise.program.exits import run_program
from rise.runs.arguments import add_common, add_feedback
from rise.runs.stage import run_stage


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add_common(parser)
    parser.add_argument(
        "--models",
        nargs="+",
        required=True,
        help="who answers: one model for all turns, or one per turn",
    )
    parser.add_argument(
        "--correct_to_correct",
        action="store_true",
        help="an episode that is right at turn 1 goes on to turn 2 with the feedback of "
        "evaluation, so that the model learns to keep a right answer; default: it stops",
    )
    add_feedback(parser, default="oracle")
    parser.add_argument(
        "--expert_sees",
        choices=EXPERT_SEES,
        default="feedback",
        help="what is asked from turn 2 on. feedback: the dialogue, with attempt and feedback; "
        "none: the question alone, for a fresh answer; reference: the dialogue and the reference "
        "answer. The recorded dialogue, and so the data, is the same for all; default feedback",
    )
    return parser.parse_args(argv)


def contradictions(args: argparse.Namespace) -> list[str]:
    problems = []
    if args.correct_to_correct and args.max_turns < 2:
        problems.append("--correct_to_correct needs --max_turns 2 or more")
    if args.correct_to_correct and args.feedback != "oracle":
        problems.append(
            f"--correct_to_correct needs --feedback oracle: with {args.feedback} episodes go on "
            "after a right answer anyway"
        )
    if args.expert_sees != "feedback" and args.max_turns < 2:
        problems.append(f"--expert_sees {args.expert_sees} needs --max_turns 2 or more")
    return problems


def check_args(args: argparse.Namespace):
    from rise.runs.job import check

    options = {
        "stage": "gen",
        "feedback": args.feedback,
        "expert_sees": args.expert_sees,
        "correct_to_correct": args.correct_to_correct,
        "shown_attempt": "own",
    }
    return check(args, args.models, options, contradictions(args))


def main(argv: list[str] | None = None) -> int:
    return run_stage(argv, parse_args, check_args, report)


def report(job, tracker) -> None:
    """Write the log and the summary; print success by turn and the next command."""
    from rise.metrics.cautions import text_cautions
    from rise.report.tracked import log_generation

    run, tally = job.run, job.tally
    summary = tally.summary()
    job.write_summary(summary)
    run.write_log()
    solved = "solved by" if tally.cumulative else "right at"
    for turn, rate in enumerate(summary["success_by_turn"], start=1):
        print(
            f"{solved} turn {turn}: {100 * rate['value']:5.1f} %  "
            f"(95 % interval {100 * rate['low']:.1f} to {100 * rate['high']:.1f}, n = {rate['n']})"
        )
    for turn, verdicts in enumerate(summary["verdicts"], start=1):
        if not verdicts:
            print(f"turn {turn}: no episode reached it")
            continue
        counts = ", ".join(f"{verdict} {count}" for verdict, count in sorted(verdicts.items()))
        cut = 100 * summary["length_share"][turn - 1]
        print(f"turn {turn}: {counts}; {cut:.1f} % cut at the limit of new tokens")
    for warning in text_cautions(tally.unread.shares(), summary["length_share"]):
        print(f"Warning: {warning}.")
    if tally.prices:
        print(tally.cost_in_words())
    if tracker:
        log_generation(tracker, job, summary)
    if job.config.get("shard"):
        print("Next: join the shards with python -m rise.merge RUN RUN ... -o DIR")
        return
    words = ["--filepath", str(run.log_path), "--output", "dataset/finetune.json"]
    # A served name is no path: without one the conversion says what to set.
    is_checkpoint = (job.config.get("kinds") or [None])[0] == "checkpoint"
    words += ["--model_path", job.config["models"][0]] if is_checkpoint else []
    words += ["--env", job.config["env"], "--criteria", "all", "--remove_duplication", "--shuffle"]
    installed = Path(sys.argv[0]).name == "rise-gen"
    program = "rise-convert" if installed else "python workflow_convert.py"
    print(f"Next: {program} {shlex.join(words)}")


command = partial(run_program, main)
"""The program rise-gen of an installed distribution."""

if __name__ == "__main__":
    command()
