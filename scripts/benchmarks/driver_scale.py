"""What the driver alone costs: workers that only sleep, many episodes, many problems.

    python scripts/benchmarks/driver_scale.py
    python scripts/benchmarks/driver_scale.py --concurrency 500 --problems 1000 2000 --repeats 1

Every run is `workflow_gen.py` as a user starts it, with a real controller and with workers that
answer after --seconds with a text of --words words, in processes of their own. CPU time and the
largest resident memory are the kernel's account of the driver's process alone. The cost of a
request is the slope over the run with the fewest problems: start-up does not count, but for the
check of the problem file. Memory is compared over the number of problems.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import ROOT, ask, parser, spread, wait_for

MODEL = "sleeper"
START_LIMIT = 60.0


@dataclass(frozen=True)
class Cost:
    """What one run of the driver took."""

    problems: int
    requests: int
    cpu_s: float
    """User and system time of the driver's process."""
    wall_s: float
    memory_mb: float
    """The largest resident set; Linux counts that of the process which starts the driver, too."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    found = parser(__doc__)
    add = found.add_argument
    add("--workers", type=int, default=8, help="processes that answer; default 8")
    add("--concurrency", type=int, default=2000, help="episodes in flight; default 2000")
    add("--problems", type=int, nargs="+", default=[200, 10_000], help="default 200 10000")
    add("--turns", type=int, default=2, help="turns of an episode, all wrong; default 2")
    add("--seconds", type=float, default=1.0, help="sleep of a worker per request; default 1")
    add("--words", type=int, default=150, help="length of an answer; default 150 words")
    add("--repeats", type=int, default=3, help="runs of each size; default 3")
    add("--serve", metavar="CONTROLLER", help=argparse.SUPPRESS)
    return found.parse_args(argv)


async def serve(controller: str, seconds: float, words: int) -> None:
    """Be a worker: register at the controller, then answer every request after a sleep."""
    import aiohttp
    from aiohttp import web

    text = " ".join(["well,"] * words) + r" \boxed{1}"

    async def generate(request: web.Request) -> web.Response:
        n = (await request.json())["n"]
        await asyncio.sleep(seconds)
        usage = {"prompt_tokens": 400, "completion_tokens": n * words, "total_tokens": 0}
        several = {"text": [text] * n, "finish_reason": ["stop"] * n}
        one = {"text": text, "finish_reason": "stop"}
        return web.json_response({**(several if n > 1 else one), "error_code": 0, "usage": usage})

    async def status(request: web.Request) -> web.Response:
        answer = {"model_names": [MODEL], "speed": 1, "queue_length": 0}
        return web.json_response(answer | {"extensions": ["messages"]})

    application = web.Application()
    application.router.add_post("/worker_generate", generate)
    application.router.add_post("/worker_get_status", status)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    register = {"worker_name": url, "check_heart_beat": False, "worker_status": None}
    async with aiohttp.ClientSession() as session:
        await session.post(f"{controller}/register_worker", json=register, raise_for_status=True)
    await asyncio.Event().wait()


@contextlib.contextmanager
def servers(args: argparse.Namespace) -> Iterator[str]:
    from fastchat.client.process import free_ports

    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    processes = [_python("-m", "fastchat.serve.controller", "--host", "127.0.0.1", "--port", port)]
    try:
        wait_for(lambda: ask(url, "list_models") is not None, START_LIMIT)
        worker = [__file__, "--serve", url, "--seconds", args.seconds, "--words", args.words]
        processes += [_python(*worker) for _ in range(args.workers)]
        # The controller's own status is the sum over its workers, of which each has speed 1.
        wait_for(lambda: ask(url, "worker_get_status")["speed"] == args.workers, START_LIMIT)
        yield url
    finally:
        for process in processes:
            process.kill()
            process.wait()


def write_problems(path: Path, count: int) -> None:
    """As large as GSM8K's, and none has the answer 1."""
    story = "A farmer counts the sheep on her meadow. " * 6
    with path.open("w", encoding="utf-8") as file:
        for i in range(count):
            answer = "She counts on. " * 15 + f"\n#### {i + 2}"
            file.write(json.dumps({"question": f"{story} Flock {i}?", "answer": answer}) + "\n")


def drive(place: Path, controller: str, args: argparse.Namespace, problems: int) -> Cost:
    data, log_dir = place / f"{problems}.jsonl", place / f"run-{time.monotonic_ns()}"
    write_problems(data, problems)
    command = ["workflow_gen.py", "--data_path", data, "--env", "gsm8k", "--log_dir", log_dir]
    command += ["--models", MODEL, "--controller_address", controller, "--seed", 0]
    command += ["--max_turns", args.turns, "--concurrency", args.concurrency]
    started = time.monotonic()
    process = _python(*command)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.monotonic() - started
    summary = json.loads((log_dir / "summary.json").read_text(encoding="utf-8"))
    requests = summary["usage"][MODEL]["requests"]
    if process.returncode or summary["errors"] or requests != problems * args.turns:
        raise RuntimeError(f"code {process.returncode}, {requests} requests, {summary['errors']}")
    return Cost(problems, requests, used.ru_utime + used.ru_stime, wall_s, used.ru_maxrss / 1024)


def table(costs: list[Cost]) -> str:
    """The runs by size, medians with their range, and the cost of a request over the smallest."""
    sizes = sorted({cost.problems for cost in costs})
    groups = {size: [cost for cost in costs if cost.problems == size] for size in sizes}
    base = statistics.median(cost.cpu_s for cost in groups[sizes[0]])
    lines = ["| problems | requests | wall s | driver CPU s | ms CPU per request | memory MB |"]
    lines.append("|---|---|---|---|---|---|")
    for size, group in groups.items():
        requests = group[0].requests
        more = requests - groups[sizes[0]][0].requests
        each = [1000 * (cost.cpu_s - base) / more for cost in group] if more else []
        columns = ([c.wall_s for c in group], [c.cpu_s for c in group], each)
        cells = [spread(values, ",.2f") if values else "-" for values in columns]
        memory = spread([cost.memory_mb for cost in group], ",.0f")
        lines.append(f"| {size:,} | {requests:,} | {' | '.join(cells)} | {memory} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.serve:
        asyncio.run(serve(args.serve, args.seconds, args.words))
        return 0
    with tempfile.TemporaryDirectory() as place, servers(args) as controller:
        costs = [
            drive(Path(place), controller, args, problems)
            for _ in range(args.repeats)
            for problems in args.problems
        ]
    print(f"{args.workers} workers, {args.concurrency} episodes in flight, n = {args.repeats}\n")
    print(table(costs))
    return 0


def _python(*arguments: object) -> subprocess.Popen[bytes]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "FastChat")])
    command = [sys.executable, *map(str, arguments)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, **quiet)


if __name__ == "__main__":
    sys.exit(main())
