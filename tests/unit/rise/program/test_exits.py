"""How every program leaves.

python -m pytest tests/unit/rise/program/test_exits.py
"""

import io
import json
import sys

import pytest

from rise.program.exits import run_program
from rise.program.files import write_json


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_text_ends_a_program_whatever_its_output_can_write(monkeypatch, encoding):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    with pytest.raises(SystemExit) as left:
        run_program(lambda: print("\u4e2d\ud83d"))
    assert left.value.code is None
    expected = "\u4e2d" if encoding == "utf-8" else "\\u4e2d"
    assert written.getvalue().decode(encoding) == expected + "\\ud83d\n"


def test_a_number_that_json_does_not_have_is_null(tmp_path):
    path = write_json(tmp_path / "summary.json", {"a": [float("nan"), -float("inf"), 1.5], 2: "x"})
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {
        "a": [None, None, 1.5],
        "2": "x",
    }
