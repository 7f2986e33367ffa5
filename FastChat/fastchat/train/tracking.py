"""The run at wandb: begun, gone on with, or kept offline."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit

from fastchat.train.checkpoints import read_json, write_json
from fastchat.train.processes import is_first_process, logger

TRACKING = "tracking.json"
"""In the output directory: the id of the run at wandb."""


def start_wandb(report_to: list[str], output_dir: str, run_name: str | None) -> list[str]:
    """Begin the wandb run if it is asked for; transformers' callback then logs into it.

    Without a login, or where the server cannot be reached, the run is kept offline in
    `output_dir`, with one notice. WANDB_MODE, WANDB_PROJECT, WANDB_RUN_GROUP and wandb's other
    variables are respected. A resumed run goes on under the id that `output_dir` keeps.

    Returns:
        The trackers to use: `report_to`, or TensorBoard in place of a wandb that is not installed
        or broken.
    """
    if "wandb" not in report_to:
        return report_to
    if importlib.util.find_spec("wandb") is None:
        return _without_wandb(report_to, "wandb is not installed (pip install wandb)")
    if not is_first_process():
        return report_to
    try:
        _begin_wandb(output_dir, run_name)
    except Exception as error:  # whatever a foreign package raises: training goes on
        return _without_wandb(report_to, f"wandb cannot start ({error})")
    return report_to


def _begin_wandb(output_dir: str, run_name: str | None) -> None:
    import wandb

    project = os.environ.get("WANDB_PROJECT", "rise")
    settings = {
        "project": project,
        "name": run_name or Path(output_dir).name,
        "group": os.environ.get("WANDB_RUN_GROUP"),
        "job_type": os.environ.get("WANDB_JOB_TYPE", "train"),
        "dir": os.environ.get("WANDB_DIR", output_dir),
    }
    Path(settings["dir"]).mkdir(parents=True, exist_ok=True)
    state = Path(output_dir) / TRACKING
    known = (read_json(state) or {}).get(f"wandb/{project}", {})
    if known and "WANDB_RUN_ID" not in os.environ:
        settings |= {"id": known["id"], "resume": "allow"}
    if "WANDB_MODE" not in os.environ and not _wandb_login():
        _offline(settings, "there is no wandb login")
    else:
        try:
            wandb.init(**settings)
        except wandb.Error as error:
            _offline(settings, f"wandb could not start ({str(error).splitlines()[0]})")
    write_json(state, {f"wandb/{project}": {"id": wandb.run.id}})


def _without_wandb(report_to: list[str], cause: str) -> list[str]:
    others = [name for name in report_to if name != "wandb"]
    if "tensorboard" in others or importlib.util.find_spec("tensorboard") is None:
        _notice(f"{cause}: it gets nothing")
        return others
    _notice(f"{cause}: TensorBoard's files get the numbers instead")
    return [*others, "tensorboard"]


def _wandb_login() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    path = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    try:
        return netrc.netrc(str(path)).authenticators(host or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _offline(settings: dict[str, str], cause: str) -> None:
    import wandb

    _notice(
        f"{cause}: metrics are kept offline in {settings['dir']}/wandb (wandb login, then wandb "
        "sync, uploads them)"
    )
    wandb.init(**settings, mode="offline")


def _notice(text: str) -> None:
    if is_first_process():
        logger.warning(text)
