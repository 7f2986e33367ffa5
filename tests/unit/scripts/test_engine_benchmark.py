"""The engine's benchmark measures only rows that the memory holds at the same time.

python -m pytest tests/unit/scripts/test_engine_benchmark.py
"""

import pytest

from fastchat.serve.engine import engine as slot_engine
from scripts.benchmarks import engine

LENGTH = 150
SLOTS = 5


@pytest.mark.parametrize(("tokens", "slots"), [(SLOTS * LENGTH, SLOTS), (LENGTH - 1, 0)])
def test_rows_that_do_not_fit_are_named_and_not_measured(monkeypatch, capsys, tokens, slots):
    monkeypatch.setattr(slot_engine, "affordable_tokens", lambda *_: tokens)
    rows = [1, SLOTS, SLOTS + 1, 4 * SLOTS]
    options = ["--size", "tiny", "--device", "cpu", "--runs", "1", "--shared", "100"]
    options += ["--prompt", str(LENGTH - 8), "--new", "8"]
    assert engine.main([*options, "--rows", *map(str, rows)]) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    head, _, *lines = table
    assert {line.count("|") for line in table} == {head.count("|")}
    for number, line in zip(rows, lines, strict=True):
        if number <= slots:
            assert line.startswith(f"| {number} | ") and "fit" not in line
        else:
            assert line.startswith(f"| {number} | does not fit: {slots} slots |")
            assert ".." not in line
