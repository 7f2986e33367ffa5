"""Ends what launch_all_serve has started from this folder.

    python -m fastchat.serve.shutdown_serve --down all
    python -m fastchat.serve.shutdown_serve --down model_worker

Other servers of this machine are left alone, also those of fastchat.serve.
"""

import argparse
import contextlib
import os
import signal
import time
from pathlib import Path

from fastchat.client.process import POLL_SECONDS, STOP_SECONDS
from fastchat.serve.launch_all_serve import RECORD, is_alive
from fastchat.utils import Parser, json_or_none, write_json

PARTS = ("all", "controller", "model_worker", "openai_api_server")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument("--down", choices=PARTS, required=True, help="which of them to end")
    parser.add_argument(
        "--log-dir", type=Path, default=Path("logs"), help="that of launch_all_serve (logs)"
    )
    return parser.read(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    record = args.log_dir / RECORD
    kept = json_or_none(record)
    if kept is None:
        args.error(
            f"there is no {record}: launch_all_serve has started nothing from here. Servers that "
            "you started yourself end with Ctrl-C or kill"
        )
    wanted = [name for name in kept if args.down in ("all", name.partition(".")[0])]
    alive = {name: kept[name]["pid"] for name in wanted if is_alive(kept[name])}
    _signal(alive.values(), signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while any(is_alive(kept[name]) for name in alive) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    _signal(alive.values(), signal.SIGKILL)  # what is left of the groups keeps the GPU's memory
    print(f"ended: {', '.join(alive) or 'nothing, none of them runs'}")
    if rest := {name: entry for name, entry in kept.items() if name not in wanted}:
        write_json(record, rest)
    else:
        record.unlink()


def _signal(groups, number: signal.Signals) -> None:
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)


if __name__ == "__main__":
    main()
