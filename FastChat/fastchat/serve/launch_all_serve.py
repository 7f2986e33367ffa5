"""Starts a controller, workers and the OpenAI-compatible server, and leaves them running.

    python -m fastchat.serve.launch_all_serve --model-path-address ./model ORG/NAME@localhost@21003
    python -m fastchat.serve.shutdown_serve --down all

Each writes to a file of its own in --log-dir, in place of that of an earlier start; the folder also
keeps what shutdown_serve needs to end them. It returns when all of them answer. Flags that are not
listed go to every model worker.
"""

import argparse
import json
import shlex
import signal
import sys
from pathlib import Path

from fastchat.client.process import Child, ServerEnded, asked, stop, wait_until
from fastchat.constants import CONTROLLER_PORT, WORKER_PORT, controller_headers
from fastchat.model.weight_files import check_files
from fastchat.serve import model_worker
from fastchat.serve.commands import ELSEWHERE, refusals
from fastchat.serve.worker_registry import add_dispatch_method
from fastchat.utils import Parser, json_or_none, listen, write_json

RECORD = "serve.json"
"""In the folder of the logs: name -> process id and command of what was started."""
_START_SECONDS = 1800.0
_PLACE = "give --model-path-address MODEL@HOST@PORT"
_REFUSED = ELSEWHERE | {
    **dict.fromkeys(("--model-path", "--host", "--port", "--worker-"), _PLACE),
    "--controller-address": "give --controller-host and --controller-port",
    "--no-register": "leave it out: the controller hands out the workers' addresses",
}
"""What no worker gets: its place is said once."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(_REFUSED, description=__doc__)
    add = parser.add_argument
    add(
        "--model-path-address",
        nargs="+",
        required=True,
        metavar="MODEL[@HOST@PORT]",
        help=f"models, each with its worker's address (localhost, ports from {WORKER_PORT} on)",
    )
    add("--controller-host", default="localhost", help="(localhost)")
    add("--controller-port", type=int, default=CONTROLLER_PORT, help="(21001)")
    add_dispatch_method(parser)
    add("--server-host", default="localhost", help="(localhost)")
    add("--server-port", type=int, default=8001, help="of the OpenAI API (8001)")
    add("--api-keys", help="keys of the OpenAI API; FASTCHAT_API_KEYS holds them unseen (none)")
    add("--log-dir", type=Path, default=Path("logs"), help="where they write to (logs)")
    args, rest = parser.parse_known_args(argv)
    if any(word.startswith(tuple(_REFUSED)) for word in rest):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    model_worker.parse_args(["--model-path", "", *rest], parser._option_string_actions)
    args.worker_args = rest
    args.error = parser.error
    return args


def commands(args: argparse.Namespace) -> dict[str, list[str]]:
    """The command line of each server by its name: module, and number where there are several.

    ValueError if an address is not MODEL@HOST@PORT or taken, or no model can be there.
    """
    found: dict[str, list[str]] = {}

    def add(name: str, flag: str, host: str, port: str, *more: str) -> None:
        try:  # whoever has the port would answer in the place of what ends at its start
            listen(host, int(port)).close()
        except ValueError as error:
            raise ValueError(str(error).replace("--port", flag)) from error
        program = [sys.executable, "-m", f"fastchat.serve.{name.partition('.')[0]}"]
        found[name] = [*program, "--host", host, "--port", port, *more]

    host, port = args.controller_host, str(args.controller_port)
    add("controller", "--controller-port", host, port, "--dispatch-method", args.dispatch_method)
    address = ("--controller-address", f"http://{host}:{port}")
    for number, text in enumerate(args.model_path_address):
        model, *place = text.split("@")
        if len(place) not in (0, 2) or (place and not place[1].isdecimal()):
            raise ValueError(f"--model-path-address {text}: give MODEL or MODEL@HOST@PORT")
        words = ["--model-path", model, *address, *args.worker_args]
        worker = model_worker.parse_args(words)
        check_files(worker.model_path, worker.base_model_path)
        host, port = place or ("localhost", str(WORKER_PORT + number))
        flag = "--model-path-address MODEL@HOST@PORT"
        add(f"model_worker.{number}", flag, host, port, *words)
    keys = ("--api-keys", args.api_keys) if args.api_keys else ()
    host, port = args.server_host, str(args.server_port)
    add("openai_api_server", "--server-port", host, port, *address, *keys)
    return found


def launch(args: argparse.Namespace) -> None:
    """Start them all; where one does not, none is left.

    ServerEnded if one of them ended at its start, ValueError if some of an earlier call run still,
    or the command line will not do.
    """
    record = args.log_dir / RECORD
    if running := [name for name, kept in (json_or_none(record) or {}).items() if is_alive(kept)]:
        remedy = "shutdown_serve --down all ends them; or give another --log-dir"
        raise ValueError(f"{', '.join(running)} of {record} still run: {remedy}")
    wanted, children = commands(args), dict[str, Child]()
    args.log_dir.mkdir(parents=True, exist_ok=True)
    try:
        for name, command in wanted.items():
            log = args.log_dir / f"{name}.log"
            log.unlink(missing_ok=True)
            children[name] = Child(name, command, log, at_our_death=None)
            print(f"{name}: {shlex.join(command[1:])}, log in {log}", flush=True)
            kept = {n: {"pid": c.pid, "command": c.command} for n, c in children.items()}
            write_json(record, kept)
        slow_ones_last = sorted(children.values(), key=lambda child: "worker" in child.name)
        wait_until(lambda: _are_ready(args), slow_ones_last, _START_SECONDS)
    except BaseException as error:
        refusals = [f"{name}: {said}" for name, c in children.items() if (said := c.refusal())]
        stop(children.values())
        record.unlink(missing_ok=True)
        if refusals and isinstance(error, ServerEnded):
            raise ValueError(refusals[0]) from error
        raise


def _are_ready(args: argparse.Namespace) -> bool:
    status = f"http://{args.controller_host}:{args.controller_port}/worker_get_status"
    listed = asked(status, b"{}", headers=controller_headers())
    server = f"http://{args.server_host}:{args.server_port}/health"
    workers = json.loads(listed or b"{}").get("speed", 0)
    return workers >= len(args.model_path_address) and asked(server) is not None


def is_alive(kept: dict) -> bool:
    """Whether a recorded process runs still, and is no other one that has its number now."""
    try:
        words = Path(f"/proc/{kept['pid']}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return [word.decode(errors="replace") for word in words[:-1]] == kept["command"]


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with refusals(args):
        launch(args)
    end = "python -m fastchat.serve.shutdown_serve --down all"
    end += "" if args.log_dir == Path("logs") else f" --log-dir {shlex.quote(str(args.log_dir))}"
    print(f"all answer; OpenAI API: http://{args.server_host}:{args.server_port}/v1; end: {end}")


if __name__ == "__main__":
    main()
