"""What a stage tells Weights & Biases and TensorBoard while it runs and when it ends.

`start` gives a `Tracker`, which does nothing where nothing is asked for. Whatever goes wrong with
tracking is a warning: no stage fails because of it. Runs of one experiment are tied together by
the project, by the group (WANDB_RUN_GROUP, for all stages) and by the job type, which is the stage.

A run directory keeps `tracking.json`: the id by which a resumed run goes on at wandb, and whether
its results are there already.
"""

import argparse
import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastchat.tracking import PROJECT
from fastchat.utils import first_line, json_or_none, write_json
from rise.tracking.tensorboard import EventFiles
from rise.tracking.wandb_run import WandbRun

log = logging.getLogger(__name__)

NAMES = ("wandb", "tensorboard")
KEYS = ("report_to", "wandb_project")
"""The arguments of `add_arguments`; they say where numbers go, not which."""
INSTALL = {"wandb": "pip install wandb", "tensorboard": "pip install tensorboard"}


@dataclass(frozen=True)
class Subject:
    """What is tracked: one run of one stage."""

    stage: str
    """gen, convert or eval; the job type at wandb."""
    name: str
    """Of the run, where WANDB_NAME gives none."""
    config: Mapping[str, Any]
    directory: Path
    """An existing directory; wandb writes into `directory/wandb`."""
    events: Path
    state: Path | None = None
    """The tracking.json of a stage that can be resumed."""


class Tracker:
    """Tells every tracker, by its key in `state`, what it is told; one that fails is left out."""

    def __init__(self, trackers: Mapping[str, Any], state: Path | None = None):
        self._trackers = dict(trackers)
        self._state = state
        self._is_complete = False

    def __bool__(self) -> bool:
        return bool(self._trackers)

    def log(self, scalars: dict[str, float], axis: str, at: int) -> None:
        """Record scalars that are drawn over `axis`: the episodes so far, or the turns."""
        self._tell("log", scalars, axis, at)

    def histogram(self, name: str, values: Sequence[float]) -> None:
        self._tell("histogram", name, values)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self._tell("table", name, columns, rows)

    def file(self, path: Path) -> None:
        """Keep a file (wandb), or say where it is (TensorBoard)."""
        self._tell("file", path)

    def summary(self, values: dict[str, float], at: int) -> None:
        """Record final values, about `at` episodes or rows."""
        self._tell("summary", values, at)

    def complete(self) -> None:
        """Say that the results are recorded: once closed, no later call records them again."""
        self._is_complete = True

    def finish(self) -> None:
        self._tell("finish")
        if self._is_complete and self._state:
            remember(self._state, {key: {"complete": True} for key in self._trackers})

    def _tell(self, method: str, *arguments: Any) -> None:
        for key, tracker in list(self._trackers.items()):
            try:
                getattr(tracker, method)(*arguments)
            except Exception as error:  # whatever a foreign package raises: the stage goes on
                log.warning("%s fails (%s): it gets nothing more", key, first_line(error))
                del self._trackers[key]
                with contextlib.suppress(Exception):
                    tracker.finish()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("tracking").add_argument
    add(
        "--report_to",
        "--report-to",
        type=trackers_named,
        help="wandb, tensorboard, both with a comma between them, all or none; default wandb where "
        "--wandb_project is given, else none",
    )
    add(
        "--wandb_project",
        "--wandb-project",
        default="",
        help="project at Weights & Biases; default WANDB_PROJECT from the environment, or "
        f"{PROJECT}",
    )


def trackers_named(text: str) -> list[str]:
    """The trackers that --report_to names.

    >>> trackers_named("all"), trackers_named("tensorboard"), trackers_named("none")
    (['wandb', 'tensorboard'], ['tensorboard'], [])
    """
    if text in ("all", "none"):
        return list(NAMES) if text == "all" else []
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in NAMES]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(NAMES)}, all, none")
    return names


def start(options: Mapping[str, Any], subject: Subject) -> Tracker:
    """Begin to track; what an earlier call has recorded completely is not recorded again."""
    queue = options["report_to"]
    if queue is None:
        queue = ["wandb"] if options["wandb_project"] else []
    project = options["wandb_project"] or os.environ.get("WANDB_PROJECT") or PROJECT
    keys = {"wandb": f"wandb/{project}", "tensorboard": "tensorboard"}
    done = json_or_none(subject.state) or {} if subject.state else {}
    queue, trackers = list(queue), {}
    while queue:
        name = queue.pop(0)
        known = done.get(keys[name], {})
        if known.get("complete"):
            continue
        tracker = _open(name, project, subject, known.get("id"))
        if tracker is not None:
            trackers[keys[name]] = tracker
        elif name == "wandb" and "tensorboard" not in queue:
            log.warning("TensorBoard's files get the numbers instead")
            queue.append("tensorboard")
        if subject.state and isinstance(tracker, WandbRun):
            remember(subject.state, {keys[name]: {"id": tracker.id}})
    return Tracker(trackers, subject.state)


def remember(state: Path, entries: Mapping[str, dict[str, Any]]) -> None:
    """Add entries to tracking.json, which is made anew where it is missing or damaged."""
    known = json_or_none(state) or {}
    changed = {key: known.get(key, {}) | entry for key, entry in entries.items()}
    write_json(state, known | changed)


def _open(name: str, project: str, subject: Subject, run_id: str | None) -> Any:
    settings = {
        "project": project,
        "name": os.environ.get("WANDB_NAME") or subject.name,
        "group": os.environ.get("WANDB_RUN_GROUP"),
        "job_type": subject.stage,
        "config": dict(subject.config),
        "dir": str(subject.directory.resolve()),
        "id": run_id,
    }
    try:
        if name == "wandb":
            return WandbRun(settings)
        return EventFiles(subject.events, dict(subject.config))
    except ImportError as error:
        reason = f"{name} cannot be imported ({first_line(error)}; {INSTALL[name]})"
    except Exception as error:  # whatever a foreign package raises: the stage goes on
        reason = f"{name} cannot start ({first_line(error)})"
    log.warning("%s", reason)
    return None
