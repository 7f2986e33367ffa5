"""A run at Weights & Biases, kept on disk where there is no login.

Without a login, or where the server cannot be reached, the run is offline: `wandb sync` uploads it
later. WANDB_MODE, WANDB_RUN_GROUP and wandb's other variables are respected.
"""

from __future__ import annotations

import logging
import netrc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

log = logging.getLogger(__name__)

SERVER = "https://api.wandb.ai"


class WandbRun:
    """The tracker of `rise.tracking.tracker` at wandb.

    Args:
        settings: for `wandb.init`: project, name, group, job_type, config, dir, and id where an
            earlier call has begun the run.
    """

    def __init__(self, settings: dict[str, Any]):
        import wandb

        if settings.get("id"):
            settings = settings | {"resume": "allow"}
        self._wandb = wandb
        self._run = _begin(settings)
        self._known: set[str] = set()

    @property
    def id(self) -> str:
        """The id by which a later call goes on with the run."""
        return self._run.id

    def log(self, scalars: dict[str, float], axis: str, at: int) -> None:
        """Record scalars, drawn over `axis`."""
        for name in scalars.keys() - self._known - {axis}:
            self._run.define_metric(name, step_metric=axis)
            self._known.add(name)
        self._run.log(scalars | {axis: at})

    def histogram(self, name: str, values: Sequence[float]) -> None:
        """Record how values are distributed."""
        self._run.log({name: self._wandb.Histogram(values)})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Record a table."""
        table = self._wandb.Table(columns=list(columns), data=[list(row) for row in rows])
        self._run.log({name: table})

    def file(self, path: Path) -> None:
        """Keep a file as an artifact, of which equal versions are stored once."""
        artifact = self._wandb.Artifact(f"{path.stem}-{self.id}", type=path.stem)
        artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def summary(self, values: dict[str, float], at: int) -> None:
        """Record final values; those of an earlier call are replaced."""
        self._run.summary.update(values)

    def finish(self) -> None:
        """Close the run; what is left is sent."""
        self._run.finish()


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


def _begin(settings: dict[str, Any]) -> Any:
    """Start the run. An unreachable server costs wandb's own timeout (90 s) once."""
    import wandb

    if "WANDB_MODE" not in os.environ and not logged_in():
        return _offline(settings, "there is no wandb login")
    try:
        return wandb.init(**settings)
    except wandb.Error as error:
        return _offline(settings, f"wandb could not start ({str(error).splitlines()[0]})")


def _offline(settings: dict[str, Any], reason: str) -> Any:
    import wandb

    directory = settings["dir"]
    pattern = f"{directory}/wandb/offline-run-*"
    log.warning("%s: tracking offline (upload with: wandb sync %s)", reason, pattern)
    return wandb.init(**settings, mode="offline", settings=wandb.Settings(silent=True))
