r"""Every reference of the real GSM8K and MATH files, and of the demo, grades itself right.

    python -m pytest tests/unit/envs/grading/test_references.py

The real ones are skipped where they are not there; ``python data/fetch.py gsm8k math`` brings them.
"""

import os
from pathlib import Path

import pytest

import envs
from envs.grading.answers import last_box

ROOT = Path(__file__).resolve().parents[4]
SIZES = {"gsm8k/train": 7473, "gsm8k/test": 1319, "math/test": 1000}


def problem_file(name: str) -> Path:
    shared = os.environ.get("RISE_TEST_DATA", ROOT.parent / "shared" / "data")
    for folder in (ROOT / "data", Path(shared)):
        path = folder / f"{name}.jsonl"
        if path.is_file():
            return path
    pytest.skip(f"no {name}.jsonl: run `python data/fetch.py {name.split('/')[0]}`")


@pytest.mark.parametrize("name", SIZES)
def test_every_reference_is_right_by_its_own_grader(name):
    env = envs.make(name.split("/")[0], problem_file(name))
    assert len(env) == SIZES[name]
    faults = []
    for index in range(len(env)):
        reference = env.reference(index)
        answer = last_box(reference) or reference.rsplit("####", 1)[-1].strip()
        responses = [f"\\boxed{{{answer}}}"]
        if name.startswith("math"):  # the solution itself, and all of its boxes as one answer
            responses += [reference, *(f"\\boxed{{{box}}}" for box in env.target(reference))]
        for response in responses:
            if env.grade(response, index).verdict != "right":
                faults.append((index, response))
    assert faults == []


def test_references_with_a_comma_are_read_whole():
    env = envs.make("gsm8k", problem_file("gsm8k/test"))
    grouped = [i for i in range(len(env)) if "," in env.reference(i).rsplit("####", 1)[-1]]
    assert len(grouped) == 14
    for index in grouped:
        text = env.reference(index).rsplit("####", 1)[-1].strip()
        assert env.grade(f"\\boxed{{{text.replace(',', '')}}}", index).reward == 1
        assert env.grade(f"\\boxed{{{text.split(',')[0]}}}", index).reward == 0


@pytest.mark.parametrize("name", ["gsm8k", "math"])
def test_every_demo_reference_is_right_by_its_own_grader(name):
    env = envs.make(name, ROOT / "data" / f"demo_{name}.jsonl")
    assert len(env) == 8
    for index in range(len(env)):
        reference = env.reference(index)
        answer = last_box(reference) or reference.rsplit("#### ")[-1]
        assert env.grade(f"\\boxed{{{answer}}}", index).verdict == "right", reference
        assert env.grade(r"\boxed{-12345}", index).verdict == "wrong", reference
