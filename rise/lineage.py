"""Where a model comes from: OUT/lineage.json, one entry per finished stage of `rise.iterate`.

An entry holds the command, what went in and what came out (path and checksum), the stages that made
what went in, the git commit and the time. A stage whose entry still holds is not run again; in
every other case its command runs, and decides itself whether there is anything to do. An output
that it leaves as it was is never recorded as made of other inputs.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rise.iteration_plan import Stage
from rise.metrics import tables
from rise.policies.names import fingerprint
from rise.program.files import read_json, write_json
from rise.runs.config import git_commit

CHUNK = 1 << 20


class Lineage:
    """The entries of one run, kept in a file.

    Args:
        path: lineage.json; need not exist.
    """

    def __init__(self, path: Path):
        self.path = path
        stored = read_json(path) if path.exists() else {}
        self.stages: dict[str, dict[str, Any]] = stored.get("stages", {})
        self.checked: list[list[str]] = stored.get("checked_commands", [])
        """Commands whose arguments have been read without a complaint."""

    def holds(self, stage: Stage) -> bool:
        """Whether the stage is done: same command, and all files are those that it left."""
        entry = self.stages.get(stage.name)
        return entry is not None and all(
            entry[key] == value for key, value in _facts(stage).items()
        )

    def outdated(self, stage: Stage) -> list[str]:
        """What went into a recorded output that is there unchanged, and is something else by now.

        A checksum that was not recorded, or in another way, says nothing.
        """
        entry = self.stages.get(stage.name)
        if entry is None or entry["output"] != identity(str(stage.output)):
            return []
        before, now = entry["inputs"], _inputs(stage)
        return [
            f"{role} {now[role]['path']}"
            for role in now.keys() & before.keys()
            if now[role].keys() == before[role].keys()
            and now[role]["checksum"] != before[role]["checksum"]
        ]

    def add(self, stage: Stage, stages: Sequence[Stage], seconds: float) -> None:
        """Record a stage that has just finished; `stages` are all of the run."""
        made_by = {str(other.output): other.name for other in stages}
        parents = [made_by[path] for path in stage.inputs.values() if path in made_by]
        self.stages[stage.name] = _facts(stage) | {
            "parents": list(dict.fromkeys(parents)),
            "git_commit": git_commit(),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": round(seconds, 1),
        }
        self.save()

    def add_checked(self, commands: Sequence[list[str]]) -> None:
        """Record commands whose arguments are known to be understood."""
        self.checked += commands
        self.save()

    def save(self) -> None:
        """Write the file, whole or not at all."""
        write_json(self.path, {"stages": self.stages, "checked_commands": self.checked})

    def table(self) -> str:
        """A line per stage in Markdown: what came out, what went in, at which commit."""
        rows = [
            [
                name,
                _short(entry["output"]),
                _made_of(entry["inputs"]),
                (entry["git_commit"] or "-")[:8],
            ]
            for name, entry in self.stages.items()
        ]
        return tables.markdown(["stage", "made", "of", "commit"], rows)


def identity(name: str) -> dict[str, str | None]:
    """What is at a path, or whom a model's name means: {"path", "checksum"}.

    The checksum of a run directory is that of its rows.jsonl, which all that read a run read, and
    "of" says so; a checkpoint's is its fingerprint, and a model that others serve has none.
    """
    path = Path(name)
    rows = path / "rows.jsonl"
    if rows.is_file():
        # Lineages from before "of" existed have the checksum of the published log there.
        return {"path": name, "checksum": _sha256(rows), "of": rows.name}
    if path.is_file():
        checksum = _sha256(path)
    else:
        checksum = fingerprint(name)
    return {"path": name, "checksum": checksum}


def _facts(stage: Stage) -> dict[str, Any]:
    """What is compared when a run goes on."""
    return {
        "command": stage.command,
        "inputs": _inputs(stage),
        "output": identity(str(stage.output)),
    }


def _inputs(stage: Stage) -> dict[str, dict[str, str | None]]:
    return {role: identity(name) for role, name in stage.inputs.items()}


def _made_of(inputs: dict[str, dict[str, str | None]]) -> str:
    """What went in, the problems apart: they are the same in every line."""
    parts = (f"{role} {_short(item)}" for role, item in inputs.items() if role != "problems")
    return ", ".join(parts)


def _short(item: dict[str, str | None]) -> str:
    return f"{item['path']} ({(item['checksum'] or 'no checksum')[:8]})"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
