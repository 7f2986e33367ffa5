"""The command lines that README and docs show, in the order in which a reader meets them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tests.support.stages import ROOT

PAGES = ("README.md", "docs/train.md", "docs/evaluate.md", "docs/serving.md")
PAGES += ("docs/tracking.md", "docs/reports.md")
# These start from the log and the data of those.
PAGES += ("data/README.md", "docs/generate.md", "docs/convert.md", "docs/baselines.md")
PAGES += ("docs/cluster.md", "docs/grading.md", "docs/quickstart.md", "docs/iterate.md")
PAGES += ("docs/reproduce.md", "docs/real.md", "FastChat/README.md", "CONTRIBUTING.md")
"""Those with shell blocks; that no other has any is tested."""


@dataclass(frozen=True)
class Command:
    """One line of a shell block, its continuations joined, without the comment."""

    page: str
    text: str


def commands(pages: Iterable[str]) -> list[Command]:
    """The commands of some pages, each once."""
    found = {}
    for page in pages:
        text = (ROOT / page).read_text(encoding="utf-8")
        for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                bare = re.sub(r"\s+", " ", re.sub(r"\s+#\s.*$", "", line)).strip()
                if bare:
                    found.setdefault(bare, Command(page, bare))
    return list(found.values())
