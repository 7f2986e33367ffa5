"""Reads back what a run of wandb stored offline, and plays the server that it is meant for."""

import contextlib
import json
import re
import struct
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

BLOCK = 32 * 1024
FILE_HEADER = 7
CHUNK_HEADER = struct.Struct("<IHB")  # checksum, length, kind
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
DATA = {
    "viewer": {"id": "v", "entity": "e", "username": "u", "flags": "{}", "teams": {"edges": []}},
    "model": None,
    "upsertBucket": {
        "bucket": {
            **{"id": "b", "name": "r", "displayName": "r", "config": "{}", "historyLineCount": 0},
            "project": {"id": "p", "name": "p", "entity": {"id": "e", "name": "e"}},
        },
        "inserted": True,
    },
}
"""Answers, by the field that a query asks for."""


@pytest.fixture
def no_login(monkeypatch, tmp_path) -> None:
    """A machine without a login, whose own files are not touched; its netrc is in tmp_path."""
    for name in ("MODE", "API_KEY", "BASE_URL", "PROJECT", "RUN_GROUP", "JOB_TYPE", "RUN_ID"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staging"))


class Server(ThreadingHTTPServer):
    """Begins runs; once `is_gone` it lets requests wait."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.is_gone = threading.Event()

    def handle_error(self, *_: Any) -> None:
        """A client that has hung up."""


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        while self.server.is_gone.is_set():
            time.sleep(0.1)
        self._answer({"data": DATA} if self.path == "/graphql" else {})

    def _answer(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """The tests' output is their own."""


@contextlib.contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Such a server, with a login."""
    import wandb

    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        wandb.teardown()  # it reads its variables once
        yield server
        server.is_gone.clear()
        wandb.teardown()
        server.shutdown()


def read_offline_run(log_dir: str | Path) -> dict[str, Any]:
    """What `read_offline_runs` finds below `log_dir`, where one call has made one run.

    Raises:
        TimeoutError: if no run ends in time.
    """
    (run,) = read_offline_runs(log_dir)
    return run


def read_offline_runs(
    log_dir: str | Path, count: int = 1, seconds: float = 60.0
) -> list[dict[str, Any]]:
    """The offline runs below `log_dir`, oldest first.

    Of each: history, summary, config, project, name, group, job_type, id; axes, metric -> the
    metric that it is drawn over; tables, name -> {"columns", "data"}; artifacts, name -> contents
    of its files.

    The background process of wandb may still be writing when a run says that it has finished, so
    the end of `count` runs is waited for.

    Raises:
        TimeoutError: if fewer than `count` runs end within `seconds`.
    """
    from wandb.proto import wandb_internal_pb2 as protocol

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = []
        for path in sorted(Path(log_dir).glob("wandb/offline-run-*/*.wandb")):
            records = [protocol.Record.FromString(data) for data in _records(path.read_bytes())]
            if any(record.WhichOneof("record_type") == "exit" for record in records):
                found.append((records, path.parent / "files"))
        if len(found) >= count:
            return [_run(records, files) for records, files in found]
        time.sleep(0.05)
    raise TimeoutError(f"below {log_dir} {count} runs have not ended within {seconds} s")


def names_in(run: dict[str, Any]) -> set[str]:
    """Of all that a run has recorded; of an artifact the part in front of the run's id."""
    names = {name.partition(".")[0] for row in run["history"] for name in row}
    artifacts = {name.rpartition("-")[0] for name in run["artifacts"]}
    return names | run["summary"].keys() | run["tables"].keys() | artifacts


def panels(job_type: str) -> set[str]:
    """What docs/dashboards.md draws of that kind of run."""
    lines = (Path(__file__).parents[2] / "docs" / "dashboards.md").read_text().splitlines()
    rows = [line.split("|") for line in lines if line.startswith("|")]
    cells = "".join("".join(row[3:]) for row in rows if job_type in row[2].strip().split(", "))
    return {name for name in re.findall("`(.+?)`", cells) if not name.startswith("--")}


def _run(records: list[Any], files: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"history": [], "summary": {}, "config": {}, "axes": {}}
    found |= {"tables": {}, "artifacts": {}}
    for record in records:
        kind = record.WhichOneof("record_type")
        if kind == "history":
            row = _values(record.history.item)
            found["history"].append(row)
            tables = {n.removesuffix(".path"): v for n, v in row.items() if n.endswith(".path")}
            found["tables"] |= {n: json.loads((files / v).read_text()) for n, v in tables.items()}
        elif kind == "summary":
            found["summary"] |= _values(record.summary.update)
        elif kind == "config":
            found["config"] |= _values(record.config.update)
        elif kind == "run":
            found["config"] |= _values(record.run.config.update)
            found |= {"project": record.run.project, "name": record.run.display_name}
            found |= {"group": record.run.run_group, "job_type": record.run.job_type}
            found["id"] = record.run.run_id
        elif kind == "metric":
            found["axes"][record.metric.name] = record.metric.step_metric
        elif kind == "artifact":
            contents = record.artifact.manifest.contents
            found["artifacts"][record.artifact.name] = {
                entry.path: Path(entry.local_path).read_text() for entry in contents
            }
    return found


def _values(items: Any) -> dict[str, Any]:
    return {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items}


def _records(content: bytes) -> Iterator[bytes]:
    """The records of a log of 32 KiB blocks, in which a record may be split into chunks."""
    position, parts = FILE_HEADER, []
    while position + CHUNK_HEADER.size <= len(content):
        rest = BLOCK - position % BLOCK
        _, length, kind = CHUNK_HEADER.unpack_from(content, position)
        if rest < CHUNK_HEADER.size or (length, kind) == (0, 0):
            position += rest
            continue
        position += CHUNK_HEADER.size
        parts.append(content[position : position + length])
        position += length
        if kind in (FULL, LAST):
            yield b"".join(parts)
            parts = []
