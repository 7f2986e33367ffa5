"""The command lines that the READMEs show, in the order in which a reader meets them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
READMES = ("README.md", "data/README.md", "envs/README.md", "FastChat/README.md")
"""Those with shell blocks; that no other has any is tested."""


@dataclass(frozen=True)
class Command:
    """One line of a shell block, its continuations joined, without the comment."""

    readme: str
    text: str


def commands(readme: str) -> list[Command]:
    """The commands of one README."""
    text = (ROOT / readme).read_text(encoding="utf-8")
    found = []
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            bare = re.sub(r"\s+", " ", re.sub(r"\s+#\s.*$", "", line)).strip()
            if bare:
                found.append(Command(readme, bare))
    return found
