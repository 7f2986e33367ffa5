"""Controller, worker and OpenAI server against requests that nobody should send.

    python scripts/benchmarks/hostile.py --base log/quickstart/base
    python scripts/benchmarks/hostile.py --base log/quickstart/base --seconds 600 --pause 0.03

Structured requests with odd values in their fields, a quarter of them with changed bytes; what the
servers hold before and after; and how long a small request takes beside 20 clients that send texts
of 1 MB. Reads a checkpoint directory; loopback only; writes nothing.
"""

from __future__ import annotations

import collections
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import bench
import requests

HELLO = [{"role": "user", "content": "hi"}]
ODD: list[Any] = [
    *(None, True, -1, 0, 2**31, 2**63, 10**400, 1.5, float("nan"), float("inf")),
    *("", "a", "\ud800", "\0", "m", "a" * 5000, [], {}, [None], [[]], [1], ["a"], {"a": 1}),
    *(HELLO, [{"role": "x"}]),
]
PROMPT = {"model": "m", "prompt": "hi", "max_new_tokens": 3}
WORKER = {"worker_name": "http://localhost:9", "queue_length": 1}
REGISTER = {
    "worker_name": "http://localhost:9",
    "worker_status": {"model_names": ["z"], "speed": 1, "queue_length": 0},
}
FIELDS = ["stop", "temperature", "top_p", "top_k", "seed", "echo", "n", "messages", "logprobs"]
TARGETS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "controller": [
        ("register_worker", REGISTER),
        ("receive_heart_beat", WORKER),
        ("get_worker_address", {"model": "m"}),
        ("worker_generate_stream", PROMPT),
        ("list_models", {}),
    ],
    "model_worker": [
        ("worker_generate", PROMPT),
        ("worker_generate_stream", PROMPT),
        ("count_token", {"prompt": "a"}),
    ],
    "openai_api_server": [
        ("v1/chat/completions", {"model": "m", "messages": HELLO, "max_tokens": 3}),
        ("v1/completions", {"model": "m", "prompt": "hi", "max_tokens": 3}),
    ],
}


def start(base: Path) -> dict[str, tuple[str, subprocess.Popen[bytes]]]:
    """The three servers: name -> (URL, process)."""
    from fastchat.client.process import free_ports

    ports = dict(zip(TARGETS, free_ports(len(TARGETS)), strict=True))
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    address = ["--controller-address", urls["controller"]]
    model = ["--model-path", str(base), "--model-names", "m", "--device", "cpu"]
    more = {"model_worker": [*address, *model], "openai_api_server": address}
    path = os.pathsep.join(map(str, (bench.ROOT, bench.ROOT / "FastChat")))
    servers = {}
    for name, port in ports.items():
        command = [sys.executable, "-m", f"fastchat.serve.{name}", "--host", "127.0.0.1"]
        command += ["--port", str(port), *more.get(name, [])]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        environment = os.environ | {"PYTHONPATH": path}
        servers[name] = (urls[name], subprocess.Popen(command, env=environment, **quiet))

    def is_served() -> bool:
        return "m" in (bench.ask(urls["controller"], "list_models") or {}).get("models", [])

    bench.wait_for(is_served, 120)
    return servers


def odd_request(draw: random.Random, body: dict[str, Any]) -> bytes:
    body = json.loads(json.dumps(body))
    for _ in range(draw.choice([0, 1, 1, 2])):
        body[draw.choice([*body, *FIELDS])] = draw.choice(ODD)
    raw = bytearray(json.dumps(body).encode())
    if draw.random() < 0.25:
        for _ in range(draw.randint(1, 4)):
            raw[draw.randrange(len(raw))] = draw.randrange(256)
    return bytes(raw)


def held(process: subprocess.Popen[bytes]) -> tuple[int, int, int]:
    """MB in memory, threads and open files of a server."""
    folder = Path("/proc", str(process.pid))
    pages = int((folder / "statm").read_text().split()[1])
    counts = (sum(1 for _ in (folder / kind).iterdir()) for kind in ("task", "fd"))
    return (pages * os.sysconf("SC_PAGE_SIZE") // 2**20, *counts)


def attack(servers: dict[str, tuple[str, Any]], seconds: float, pause: float, seed: int) -> None:
    """Send odd requests for so long and print what came back, and what the servers hold."""
    draw, session = random.Random(seed), requests.Session()
    codes: collections.Counter[int] = collections.Counter()
    faults: list[str] = []
    slowest, before = 0.0, {}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        name = draw.choice([*TARGETS])
        path, body = draw.choice(TARGETS[name])
        raw, began = odd_request(draw, body), time.monotonic()
        kind = {"Content-Type": "application/json"}
        reply = session.post(f"{servers[name][0]}/{path}", data=raw, headers=kind, timeout=60)
        slowest = max(slowest, time.monotonic() - began)
        codes[reply.status_code] += 1
        # 503 of the OpenAI server says that no worker has the name.
        if (reply.status_code >= 500 and reply.status_code != 503) or b"50001" in reply.content:
            faults.append(f"{path} {raw[:200]!r}: {reply.status_code} {reply.text[:200]}")
        if codes.total() == 300:
            before = {name: held(process) for name, (_, process) in servers.items()}
        time.sleep(pause)
    print(f"{codes.total()} requests in {seconds:g} s: {dict(codes)}, slowest {slowest:.1f} s")
    for name, (_, process) in servers.items():
        print(f"  {name}: MB, threads, files {before.get(name)} -> {held(process)}")
    print(f"{len(faults)} faults", *faults[:8], sep="\n  ")


def beside_large_ones(url: str, clients: int, count: int) -> None:
    """Print how long a small /count_token takes, alone and beside clients that send 1 MB."""
    over = threading.Event()
    large = {"model": "m", "prompt": "word " * 200_000}

    def send() -> None:
        while not over.is_set():
            requests.post(f"{url}/worker_generate", json=large, timeout=60)

    def small() -> str:
        waits = []
        for _ in range(count):
            began = time.monotonic()
            requests.post(f"{url}/count_token", json={"prompt": "a b c"}, timeout=60)
            waits.append(1000 * (time.monotonic() - began))
        slow = statistics.quantiles(waits, n=100)[98]
        return f"{statistics.median(waits):.0f} ms, p99 {slow:.0f} ms"

    alone = small()
    threads = [threading.Thread(target=send) for _ in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    print(f"small request: {alone}; beside {clients} of 1 MB: {small()}")
    over.set()
    for thread in threads:
        thread.join()


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("--base", type=Path, required=True, help="checkpoint that is served")
    parser.add_argument("--seconds", type=float, default=60.0, help="of odd requests; default 60")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between them; default 0")
    parser.add_argument("--seed", type=int, default=0, help="of the requests; default 0")
    args = parser.parse_args()
    servers = start(args.base)
    try:
        attack(servers, args.seconds, args.pause, args.seed)
        beside_large_ones(servers["model_worker"][0], 20, 200)
    finally:
        for _, process in servers.values():
            process.terminate()


if __name__ == "__main__":
    main()
