"""How every program leaves.

python -m pytest tests/unit/rise/program/test_exits.py
"""

import io
import sys

import pytest

from rise.program.exits import run_program


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_text_ends_a_program_whatever_its_output_can_write(monkeypatch, encoding):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    with pytest.raises(SystemExit) as left:
        run_program(lambda: print("\u4e2d\ud83d"))
    assert left.value.code is None
    expected = "\u4e2d" if encoding == "utf-8" else "\\u4e2d"
    assert written.getvalue().decode(encoding) == expected + "\\ud83d\n"
