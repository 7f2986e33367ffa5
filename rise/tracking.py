"""Weights & Biases, where it is wanted: three methods that a stage can always call.

`start` gives a `Tracker`, or a `DummyTracker` that does nothing where no project is named or the
package is missing. Without a login, or where the server cannot be reached, the run is kept offline
in the run directory, with one notice; `wandb sync` uploads it later. WANDB_MODE is respected.
"""

from __future__ import annotations

import importlib.util
import logging
import netrc
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

log = logging.getLogger(__name__)

SERVER = "https://api.wandb.ai"


class DummyTracker:
    """Takes everything and keeps nothing."""

    def log(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Record scalars at a step (for an evaluation: the turn)."""

    def summary(self, values: dict[str, Any]) -> None:
        """Record final values of the run."""

    def finish(self) -> None:
        """Close the run; call it last."""


class Tracker:
    """A run of wandb with the three methods of `DummyTracker`."""

    def __init__(self, run: Any):
        self._run = run

    def log(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Record scalars at a step (for an evaluation: the turn)."""
        self._run.log(metrics, step=step)

    def summary(self, values: dict[str, Any]) -> None:
        """Record final values of the run."""
        self._run.summary.update(values)

    def finish(self) -> None:
        """Close the run; call it last."""
        self._run.finish()


def start(
    project: str | None, name: str | None, config: dict[str, Any], log_dir: str | Path
) -> Tracker | DummyTracker:
    """Begin to track a run. An unreachable server costs wandb's own timeout (90 s) once.

    Args:
        project: wandb project; empty or None tracks nothing.
        name: name of the run; None lets wandb choose one.
        config: the resolved arguments.
        log_dir: an existing directory; wandb writes into `log_dir/wandb`.
    """
    if not project:
        return DummyTracker()
    if importlib.util.find_spec("wandb") is None:
        log.warning("wandb is not installed, nothing is tracked: pip install wandb")
        return DummyTracker()
    import wandb

    run = {"project": project, "name": name, "config": config, "dir": str(log_dir)}
    if "WANDB_MODE" not in os.environ and not logged_in():
        return _offline(run, "there is no wandb login")
    try:
        return Tracker(wandb.init(**run))
    except wandb.Error as error:
        return _offline(run, f"wandb could not start ({str(error).splitlines()[0]})")


def logged_in() -> bool:
    """Whether there is a key for the wandb server, in WANDB_API_KEY or in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", SERVER)).hostname
    path = os.environ.get("NETRC", Path.home() / ".netrc")
    try:
        return netrc.netrc(str(path)).authenticators(host or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _offline(run: dict[str, Any], reason: str) -> Tracker:
    import wandb

    log.warning("%s: tracking offline in %s/wandb (upload with: wandb sync)", reason, run["dir"])
    return Tracker(wandb.init(**run, mode="offline", settings=wandb.Settings(silent=True)))
