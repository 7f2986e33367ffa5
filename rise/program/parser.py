"""The argument parser of all our programs: its errors are one line, with the nearest known flag."""

from __future__ import annotations

import argparse
import difflib
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """argparse's parser; the description keeps its line breaks, and flags are given in full.

    A shortened flag would mean something else, or nothing, once there is a second such flag.

    Takes what `argparse.ArgumentParser` takes.
    """

    def __init__(self, **settings: Any):
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        settings.setdefault("allow_abbrev", False)
        super().__init__(**settings)

    def error(self, message: str) -> NoReturn:
        """Print what is wrong in one line and exit with 2."""
        line = " ".join(message.split())
        self.exit(2, f"{self.prog}: error: {line}{self._nearest(line)} (--help lists the flags)\n")

    def _nearest(self, message: str) -> str:
        """The known flags nearest to those that were not recognised, as a question."""
        _, found, unknown = message.partition("unrecognized arguments: ")
        known = [flag for action in self._actions for flag in action.option_strings]
        flags = [word.partition("=")[0] for word in unknown.split() if word.startswith("--")]
        near = [name for flag in flags for name in difflib.get_close_matches(flag, known, n=1)]
        return f": did you mean {', '.join(near)}?" if found and near else ""
