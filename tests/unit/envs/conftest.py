"""Files of problems; the grading processes end with the module that has used them."""

import json
from pathlib import Path

import pytest

from envs.grading import checker


@pytest.fixture(autouse=True, scope="module")
def _no_pool_left():
    yield
    checker.shutdown()


@pytest.fixture
def write(tmp_path):
    """Writes rows into a file; its path."""

    def write_rows(*rows: dict) -> Path:
        path = tmp_path / "problems.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write_rows
