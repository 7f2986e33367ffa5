"""The demo problems: every reference must grade itself right.

python -m pytest tests/unit/data/test_demo.py
"""

import json
import re
from pathlib import Path

import pytest

import envs

DATA = Path(__file__).resolve().parents[3] / "data"


@pytest.fixture(scope="module", autouse=True)
def closed_at_the_end():
    yield
    envs.shutdown()


@pytest.mark.parametrize("name", ["gsm8k", "math"])
def test_every_demo_reference_grades_itself_right(name):
    path = DATA / f"demo_{name}.jsonl"
    assert len(envs.make(name, path)) == 8
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        reference = row["answer"] if name == "gsm8k" else row["solution"]
        response = reference
        if name == "gsm8k":
            response = re.sub(r"#### (.*)", r"\\boxed{\1}", reference)
        assert envs.grade(name, response, reference) == 1, row
        assert envs.grade(name, "\\boxed{-12345}", reference) == 0


def test_the_written_calculations_are_right():
    text = (DATA / "demo_gsm8k.jsonl").read_text(encoding="utf-8")
    steps = re.findall(r"<<([\d.]+)([-+*/])([\d.]+)=([\d.]+)>>", text)
    assert len(steps) == text.count("<<")
    for left, sign, right, result in steps:
        a, b = float(left), float(right)
        value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[sign]
        assert value == pytest.approx(float(result))
