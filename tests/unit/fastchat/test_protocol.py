"""The protocols load on Python 3.10 too, whichever Python runs here.

python -m pytest tests/unit/fastchat/test_protocol.py
"""

import re
from pathlib import Path

from fastchat import protocol


def test_every_class_variable_has_a_type():
    # Of annotations that are strings, Python 3.10 evaluates no bare ClassVar, and pydantic asks it.
    for file in Path(protocol.__path__[0]).glob("*.py"):
        assert not re.search(r": ClassVar(?!\[)", file.read_text(encoding="utf-8")), file
