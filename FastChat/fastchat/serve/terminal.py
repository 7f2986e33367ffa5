"""What the commands share: where to listen and whom to ask, and how those that ask end."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastchat.client.http import PeerError
from fastchat.constants import CONTROLLER_ADDRESS
from fastchat.utils import normal_url

T = TypeVar("T")
REMEDY = (
    "start a controller with python -m fastchat.serve.controller (or launch_all_serve, with a "
    "model), or say where one is with --controller-address"
)


def add_address(parser: argparse.ArgumentParser, port: int) -> None:
    parser.add_argument("--host", default="localhost", help="address to listen on (localhost)")
    parser.add_argument("--port", type=int, default=port, help=f"port, 0 takes a free one ({port})")


def add_controller(parser: argparse.ArgumentParser, flag: str = "--controller-address") -> None:
    parser.add_argument(
        flag,
        type=normal_url,
        default=CONTROLLER_ADDRESS,
        help=f"URL or port of the controller ({CONTROLLER_ADDRESS})",
    )


def run(work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns; a peer that gives no answer is one line and exit code 1, Ctrl-C 130."""
    try:
        return asyncio.run(work)
    except PeerError as error:
        remedy = f"; {REMEDY}" if error.kind == "connection" else ""
        sys.exit(f"error: {error}{remedy}")
    except KeyboardInterrupt:
        sys.exit(130)
