r"""The benchmark of the graders, on rows few enough to work out by hand.

python -m pytest tests/journeys/test_graders.py
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/benchmarks/graders.py"
ROWS = [
    ("gsm8k", r"\boxed{72}", "#### 72", "right", "numbers"),
    ("gsm8k", r"\boxed{$72.00}", "#### 72", "right", "currency"),
    ("gsm8k", r"\boxed{71}", "#### 72", "wrong", "numbers"),
    ("gsm8k", "The answer is 72", "#### 72", "no_answer", "no answer"),
    ("math", r"\boxed{\sqrt{8}}", r"\boxed{2\sqrt{2}}", "right", "radicals"),
    # a label that no grader shares
    ("math", r"\boxed{5}", r"\boxed{5}", "wrong", "numbers"),
]


def run(*rows, tmp_path):
    keys = ("env", "response", "reference", "label", "category")
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows))
    return subprocess.run(
        [sys.executable, SCRIPT, "--rows", path, "--runs", "1"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_tables_count_each_kind_of_error(tmp_path):
    found = run(*ROWS, tmp_path=tmp_path)
    assert found.returncode == 0, found.stderr
    cells = [line.strip("| ").split(" | ") for line in found.stdout.splitlines()]
    totals = {(row[0], row[1]): (row[2], *row[4:]) for row in cells if len(row) == 7}
    assert totals["gsm8k (n = 4)", "ours"] == ("100.0%", "0", "0", "0")
    assert totals["gsm8k (n = 4)", "string"] == ("75.0%", "0", "1", "0")
    assert totals["math (n = 2)", "ours"] == ("50.0%", "1", "0", "0")
    assert totals["math (n = 2)", "string"] == ("0.0%", "1", "1", "0")
    # math-verify takes a number that stands in no box
    assert totals["gsm8k (n = 4)", "math-verify"] == ("75.0%", "1", "0", "0")
    assert r"- FP: math, `\boxed{5}` for `\boxed{5}`" in found.stdout
    assert ["gsm8k", "currency", "1", "100.0%", "100.0%", "0.0%"] in cells


def test_an_unknown_label_is_refused(tmp_path):
    found = run(("gsm8k", r"\boxed{1}", "#### 1", "perhaps", "numbers"), tmp_path=tmp_path)
    assert found.returncode == 1
    assert "label 'perhaps' is not one of right, wrong, no_answer" in found.stderr
