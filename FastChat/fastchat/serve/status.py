"""Shows what a controller serves: models, workers, their queues, and tokens per second.

python -m fastchat.serve.status
watch -n 5 python -m fastchat.serve.status --controller-address http://gpu1:21001
"""

import argparse
import asyncio
import time

from fastchat.client.http import PeerError, post
from fastchat.client.workers import CONTROL_SECONDS, Cluster
from fastchat.protocol.controller_protocol import WorkerStatus
from fastchat.serve.commands import add_controller, run
from fastchat.utils import Parser, visible

COLUMNS = ("worker", "models", "queue", "running", "tokens/s", "context")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add_controller(parser)
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="time in which tokens are counted (1)"
    )
    return parser.parse_args(argv)


async def show(args: argparse.Namespace) -> None:
    cluster = Cluster(args.controller_address)
    try:
        models = await cluster.models()
        found = await asyncio.gather(*map(cluster.addresses, models))
        workers = sorted({address for addresses in found for address in addresses})
        rows = await asyncio.gather(*(_row(cluster, each, args.seconds) for each in workers))
    finally:
        await cluster.close()
    gone = [model for model, addresses in zip(models, found, strict=True) if not addresses]
    counts = {"model": len(models) - len(gone), "worker": len(workers)}
    numbers = ", ".join(f"{count} {name}{'s' * (count != 1)}" for name, count in counts.items())
    lost = f" (no worker of {visible(', '.join(gone))} answers any more)" if gone else ""
    print(f"{args.controller_address}: {numbers}{lost}")
    table = [COLUMNS, *rows] if rows else []
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = zip(row, widths, strict=True)
        print("  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(cells)))


async def _row(cluster: Cluster, address: str, seconds: float) -> tuple[str, ...]:
    url = f"{address}/worker_get_status"

    async def status() -> tuple[WorkerStatus, float]:
        found = await post(cluster.session, url, {}, WorkerStatus, CONTROL_SECONDS)
        return found, time.monotonic()

    try:
        first, began = await status()
        await asyncio.sleep(seconds if first.engine else 0)
        last, ended = await status()
    except PeerError as error:
        return (address, f"does not answer ({error.kind})", "-", "-", "-", "-")
    rate = "-"
    if first.engine and last.engine:
        drawn = last.engine["generated_tokens"] - first.engine["generated_tokens"]
        rate = f"{drawn / (ended - began):.1f}"
    return (
        address,
        visible(", ".join(last.model_names)),
        str(last.queue_length),
        f"{last.engine['running']:.0f}" if last.engine else "-",
        rate,
        str(last.context_length or "-"),
    )


def main(argv: list[str] | None = None) -> None:
    run(show(parse_args(argv)))


if __name__ == "__main__":
    main()
