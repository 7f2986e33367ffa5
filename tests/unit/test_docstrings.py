"""The examples in the docstrings hold.

python -m pytest tests/unit/test_docstrings.py
"""

import doctest
import re
from importlib import import_module

import pytest

from rise.episodes.shorthand import sketch
from tests.support.stages import ROOT

FOLDERS = ("rise", "envs", "FastChat/fastchat", "data", "scripts/quickstart")
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    .removeprefix("FastChat.")
    .removesuffix(".__init__")
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*.py"))
    if re.search(r"^ *>>> ", path.read_text(encoding="utf-8"), re.MULTILINE)
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_hold(name):
    result = doctest.testmod(import_module(name), extraglobs={"sketch": sketch})
    assert result.attempted and not result.failed
