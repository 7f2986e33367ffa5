"""One page about one or several evaluations: tables, pictures, and every episode to read.

    python -m rise.report log/rise
    python -m rise.report log/base log/rise --names base RISE -o report.html

Reads   run directories of workflow_eval.py; a parallel run in the same --log_dir gives mK@t1.
Writes  --output: one HTML file that needs nothing else, not even a network.
"""

import argparse
import os
from pathlib import Path

from fastchat.utils import Parser, replacing
from rise.compare import add_runs, opened
from rise.program.exits import DONE, exit_code, run_program
from rise.report.page import render


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="python -m rise.report", description=__doc__)
    add_runs(parser, "one or more")
    output = "file to write; default report.html in the run, or in the folder that all runs are in"
    parser.add_argument("-o", "--output", help=output)
    args = parser.parse_args(argv)
    if args.output and (Path(args.output).is_dir() or not Path(args.output).parent.is_dir()):
        parser.error(f"--output {args.output}: give a file in a directory that exists")
    return args


def run(args: argparse.Namespace) -> int:
    """Write the page and return the exit code; ValueError if a run cannot be opened."""
    page = render(opened(args))
    folder = os.path.commonpath([Path(run).resolve() for run in args.runs])
    output = Path(args.output or os.path.relpath(Path(folder, "report.html")))
    with replacing(output) as file:
        file.write(page.encode(errors="replace").decode())
    print(f"{output}: {len(page) / 1e6:.1f} MB; open it in a browser")
    return DONE


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return exit_code(lambda: run(args), "rise.report")


if __name__ == "__main__":
    run_program(main)
