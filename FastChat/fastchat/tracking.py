"""A run at Weights & Biases: begun, gone on with, or kept offline.

Without a login, or where the server cannot be reached, the run is offline, with one notice:
`wandb sync` uploads it later. WANDB_MODE, WANDB_PROJECT, WANDB_RUN_GROUP and wandb's other
variables are respected.
"""

import importlib.util
import logging
import netrc
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastchat.client.http import unreachable
from fastchat.utils import first_line, json_or_none, write_json

SERVER = "https://api.wandb.ai"
PROJECT = "rise"
TRACKING = "tracking.json"
"""In the output directory: the id of the run at wandb."""
_INIT_SECONDS = 12.0
"""For a server that can be reached to begin a run, after 10 for the login; wandb itself has 90."""
_FINISH_SECONDS = 15.0
"""For what is not uploaded yet when a run ends; wandb itself waits for ever for a server that is
gone. `wandb sync` does the rest."""
ANSWER_SECONDS = 6.0
"""For the server to say what it knows of a table or a file; wandb itself waits for 19."""


def begin(settings: dict[str, Any], logger: logging.Logger) -> Any:
    """The run of wandb, by the settings of `wandb.init`; with an `id` it goes on.

    It takes less than 30 seconds, whatever the server does; `logger` gets a notice.
    """
    import wandb

    if settings.get("id"):
        settings = settings | {"resume": "allow"}
    mode, server = os.environ.get("WANDB_MODE"), os.environ.get("WANDB_BASE_URL", SERVER)
    if mode not in (None, "online"):
        return wandb.init(**settings)
    if mode is None and not logged_in():
        reason = "there is no wandb login"
    elif cause := unreachable(server):
        reason = f"{server} does not answer ({cause})"
    else:
        limits = wandb.Settings(init_timeout=_INIT_SECONDS, finish_timeout=_FINISH_SECONDS)
        try:
            return wandb.init(**settings, settings=limits)
        except wandb.Error as error:
            reason = f"wandb could not start ({first_line(error)})"
    pattern = f"{settings['dir']}/wandb/offline-run-*"
    text = "%s: metrics are kept offline (wandb login, then wandb sync %s, uploads them)"
    logger.warning(text, reason, pattern)
    return wandb.init(**settings, mode="offline", settings=wandb.Settings(silent=True))


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


def start_wandb(
    report_to: list[str],
    output_dir: str,
    run_name: str | None,
    logger: logging.Logger,
    is_first: bool = True,
) -> list[str]:
    """Begin a trainer's run if it is asked for; transformers' callback then logs into it.

    A resumed run goes on under the id that `output_dir` keeps. Returns the trackers to use:
    `report_to`, or TensorBoard in place of a wandb that is not installed or broken.
    """
    if "wandb" not in report_to:
        return report_to
    if importlib.util.find_spec("wandb") is None:
        cause = "wandb is not installed (pip install wandb)"
    elif not is_first:
        return report_to
    else:
        try:
            _begin_training(output_dir, run_name, logger)
            return report_to
        except Exception as error:  # whatever a foreign package raises: training goes on
            cause = f"wandb cannot start ({error})"
    others = [name for name in report_to if name != "wandb"]
    without = "tensorboard" in others or importlib.util.find_spec("tensorboard") is None
    if is_first:
        instead = "it gets nothing" if without else "TensorBoard's files get the numbers instead"
        logger.warning("%s: %s", cause, instead)
    return others if without else [*others, "tensorboard"]


def _begin_training(output_dir: str, run_name: str | None, logger: logging.Logger) -> None:
    project = os.environ.get("WANDB_PROJECT", PROJECT)
    state = Path(output_dir) / TRACKING
    known = (json_or_none(state) or {}).get(f"wandb/{project}", {})
    directory = os.environ.get("WANDB_DIR", output_dir)
    Path(directory).mkdir(parents=True, exist_ok=True)
    settings = {
        "project": project,
        "name": run_name or os.environ.get("WANDB_NAME") or Path(output_dir).name,
        "group": os.environ.get("WANDB_RUN_GROUP"),
        "job_type": os.environ.get("WANDB_JOB_TYPE", "train"),
        "dir": directory,
        "id": None if "WANDB_RUN_ID" in os.environ else known.get("id"),
    }
    write_json(state, {f"wandb/{project}": {"id": begin(settings, logger).id}})
