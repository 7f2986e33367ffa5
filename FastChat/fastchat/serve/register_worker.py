"""Makes a worker known to a controller by hand, such as one that was started with --no-register.

    python -m fastchat.serve.register_worker --worker-name http://localhost:21002

The controller asks the worker what it serves. Workers of this repository register by themselves.
"""

import argparse
from typing import Any

from pydantic import RootModel

from fastchat.client.http import open_session, post
from fastchat.client.workers import CONTROL_SECONDS
from fastchat.constants import controller_headers
from fastchat.serve.commands import add_controller, run
from fastchat.utils import Parser, normal_url


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add_controller(parser)
    add = parser.add_argument
    add("--worker-name", type=normal_url, required=True, help="URL of the worker")
    add(
        "--check-heart-beat",
        action="store_true",
        help="forget it when it sends no heartbeats; default: it stays until it refuses a request",
    )
    add("--multimodal", action="store_true", help="list it among the multimodal models")
    return parser.parse_args(argv)


async def register(args: argparse.Namespace) -> None:
    body: dict[str, Any] = {
        "worker_name": args.worker_name,
        "check_heart_beat": args.check_heart_beat,
        "worker_status": None,
        "multimodal": args.multimodal,
    }
    url = f"{args.controller_address}/register_worker"
    async with open_session() as session:
        await post(session, url, body, RootModel[Any], CONTROL_SECONDS, controller_headers())
    print(f"registered {args.worker_name} at {args.controller_address}")


def main(argv: list[str] | None = None) -> None:
    run(register(parse_args(argv)))


if __name__ == "__main__":
    main()
