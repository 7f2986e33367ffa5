"""TensorBoard's event files, written by its own package: neither torch nor TensorFlow is needed."""

import html
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FLUSH_SECONDS = 30
MARKDOWN = re.compile(r"[\\`*_{}\[\]()#+\-.!]")
"""What means something in Markdown, beside what HTML escapes."""


class EventFiles:
    """TensorBoard's event files; a later call adds one, and all are shown as one run."""

    def __init__(self, directory: Path, config: dict[str, Any]):
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        is_new = not any(directory.glob("events.out.tfevents.*"))
        self._writer = EventFileWriter(str(directory), flush_secs=FLUSH_SECONDS)
        if is_new:
            settings = json.dumps(config, indent=2, default=str)
            self._text("config", f"```json\n{settings}\n```")

    def log(self, scalars: dict[str, float], axis: str, at: int) -> None:
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb

        for name, value in scalars.items():
            if name != axis:
                self._add(scalar_pb(name, value), at)

    def histogram(self, name: str, values: Sequence[float]) -> None:
        from tensorboard.plugins.histogram.summary_v2 import histogram_pb

        self._add(histogram_pb(name, values))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self._text(name, [[_cell(value) for value in row] for row in (columns, *rows)])

    def file(self, path: Path) -> None:
        self._text(path.stem, str(path))

    def summary(self, values: dict[str, float], at: int) -> None:
        self.log({f"summary/{name}": value for name, value in values.items()}, "", at)

    def finish(self) -> None:
        self._writer.close()

    def _text(self, name: str, text: str | list[list[str]]) -> None:
        import numpy as np
        from tensorboard.plugins.text.summary_v2 import text_pb

        self._add(text_pb(name, np.array(text, dtype=object)))

    def _add(self, summary: Any, at: int = 0) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(wall_time=time.time(), step=at, summary=summary))


def _cell(value: Any) -> str:
    r"""A value as text; numbers in the few digits that a reader wants.

    TensorBoard reads Markdown and would show what a model wrote as headings, or fetch its images.

    >>> print(_cell("# ![x](http://host/x) <b>"))
    \# \!\[x\]\(http://host/x\) &lt;b&gt;
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return MARKDOWN.sub(r"\\\g<0>", html.escape(value, quote=False)).replace("\n", "  \n")
    return f"{value:.4g}" if isinstance(value, float) else str(value)
