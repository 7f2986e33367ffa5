"""What a stage records at Weights & Biases."""

import logging
from collections.abc import Callable, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

from fastchat.tracking import ANSWER_SECONDS, begin
from fastchat.utils import within

log = logging.getLogger(__name__)


class WandbRun:
    """The tracker of `rise.tracking.tracker` at wandb; settings of `fastchat.tracking.begin`."""

    def __init__(self, settings: dict[str, Any]):
        import wandb

        self._wandb = wandb
        self._run = begin(settings, log)
        self._known: set[str] = set()

    @property
    def id(self) -> str:
        return self._run.id

    def log(self, scalars: dict[str, float], axis: str, at: int) -> None:
        for name in scalars.keys() - self._known - {axis}:
            self._run.define_metric(name, step_metric=axis)
            self._known.add(name)
        self._run.log(scalars | {axis: at})

    def histogram(self, name: str, values: Sequence[float]) -> None:
        self._run.log({name: self._wandb.Histogram(values)})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        table = self._wandb.Table(columns=list(columns), data=[list(row) for row in rows])
        self._ask(lambda: self._run.log({name: table}))

    def file(self, path: Path) -> None:
        artifact = self._wandb.Artifact(f"{path.stem}-{self.id}", type=path.stem)
        artifact.add_file(str(path))
        self._ask(lambda: self._run.log_artifact(artifact))

    def summary(self, values: dict[str, float], at: int) -> None:
        self._run.summary.update(values)

    def finish(self) -> None:
        self._run.finish()

    def _ask(self, tell: Callable[[], object]) -> None:
        """Tell the server what it is asked about first: nobody waits for one that is gone."""
        try:
            within(ANSWER_SECONDS, tell)
        except futures.TimeoutError as error:
            said = f"its server does not answer within {ANSWER_SECONDS:g} s"
            raise TimeoutError(said) from error
