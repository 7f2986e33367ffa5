r"""Evaluate a model over several turns, in each of which it is told that it is wrong.

    python workflow_eval.py --model ./checkpoint --data_path data/gsm8k/test.jsonl --env gsm8k \
        --log_dir log/eval/rise --max_turns 5 --num_of_samples 1 1 1 1 1 --context_window 2
    python workflow_eval.py --model ./checkpoint --data_path data/gsm8k/test.jsonl --env gsm8k \
        --log_dir log/eval/rise --max_turns 1 --num_of_samples 5

Reads   --data_path, problems as JSON lines; keys.cfg, if the key is not in the environment.
Writes  --log_dir: config.json, rows.jsonl (an episode per line), <max_turns>_turns.json (the
        published log), summary.json with m1@t1, acc@t, m1@tK, p1@tK, mK@t1 and fresh draws.

The second command samples in parallel; both may use one --log_dir, and then the closing table has
the vote of the turns beside the vote of the parallel samples. `--num_of_samples 5 1 1 1 1` does
both in one run: the further samples of turn 1 only vote. A model is named as in workflow_gen.py.
"""

import argparse
from functools import partial

import rise  # noqa: F401 (first: it says what to do without the environment)
from fastchat.utils import Parser
from rise.episodes.feedback import asks_itself
from rise.program.exits import run_program
from rise.runs.arguments import add_common, add_feedback
from rise.runs.stage import run_stage


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add_common(parser)
    parser.add_argument("--model", required=True, help="who answers, at every turn")
    add_feedback(parser, default="none")
    parser.add_argument(
        "--revise_if_wrong",
        action="store_true",
        help="with --feedback self or critique: an answer that the model itself calls right stands "
        "for the turns that are left, and nothing is asked there; default: it answers again",
    )
    parser.add_argument(
        "--shown_attempts",
        metavar="RUN",
        help="from turn 2 on the model is shown, as its own, another problem's attempts from RUN, "
        "a finished evaluation of these problems: a gain that comes from reading the attempt "
        "vanishes then, but so does one from copying it, see docs/evaluate.md; default: its own",
    )
    return parser.parse_args(argv)


def contradictions(args: argparse.Namespace) -> list[str]:
    problems = []
    if args.shown_attempts and args.feedback != "none":
        problems.append("--shown_attempts needs --feedback none: any other is about own attempts")
    if args.shown_attempts and args.max_turns < 2:
        problems.append("--shown_attempts needs --max_turns 2 or more")
    if args.revise_if_wrong and not asks_itself(args.feedback):
        problems.append("--revise_if_wrong needs --feedback self or critique: a model's own check")
    if asks_itself(args.feedback) and args.max_turns < 2:
        problems.append(f"--feedback {args.feedback} needs --max_turns 2 or more")
    return problems


def check_args(args: argparse.Namespace):
    from rise.runs.job import check

    options = {
        "stage": "eval",
        "feedback": args.feedback,
        "correct_to_correct": False,
        "shown_attempt": "other" if args.shown_attempts else "own",
        "shown_attempts": args.shown_attempts,
        # None and not False: runs from before this key existed go on.
        "revise_if_wrong": args.revise_if_wrong or None,
    }
    return check(args, [args.model], options, contradictions(args))


def main(argv: list[str] | None = None) -> int:
    return run_stage(argv, parse_args, check_args, report)


def report(job, tracker) -> None:
    """Write the log and the summary; print the table and what to run next."""
    from rise.metrics.evaluation import apart, open_run, with_sibling
    from rise.metrics.tables import format_table
    from rise.report.tracked import log_evaluation

    run, tally, config = job.run, job.tally, job.config
    episodes = []
    run.write_log(episodes.append)
    counts, own = tally.summary(), open_run(run.path, episodes=episodes)
    job.write_summary({"metrics": own.metrics} | counts)
    shown = with_sibling(own) if len(run.done) == job.size else own
    print(format_table(shown.metrics))
    if config["shown_attempt"] == "other":
        print("A drop against RUN alone is no evidence, copying drops too: see RUN's fresh draw.")
    if tally.prices:
        print(tally.cost_in_words())
    print(f"Summary: {shown.path / 'summary.json'}")
    for line in [] if shown.parallel else apart(own):
        print(f"Warning: {line}.")
    if tracker:
        log_evaluation(tracker, job, counts, own=own, shown=shown)
    alone = config["num_of_samples"] == [1] * config["max_turns"]
    as_published = alone and config["max_turns"] > 1 and config["shown_attempt"] == "own"
    if as_published and not own.parallel:
        turns = config["max_turns"]
        print(
            f"Next: the same with --max_turns 1 --num_of_samples {turns}, {turns} samples to vote"
        )


command = partial(run_program, main)
"""The program rise-eval of an installed distribution."""

if __name__ == "__main__":
    command()
