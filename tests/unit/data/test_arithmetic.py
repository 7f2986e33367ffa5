"""The embedded problems: right, in the format that `envs` grades, and never shared with the test.

python -m pytest tests/unit/data/test_arithmetic.py
"""

import json
import re
from pathlib import Path

import pytest

import envs
from data import arithmetic
from tests.support.stages import run_main

EVA = arithmetic.Problem(
    "Eva had some cards, lost 2, lost 2, found 5. Now Eva has 9. How many at first?", 8, (-2, -2, 5)
)

QUESTION = re.compile(r"(\w+) had some (\w+), (.*)\. Now \1 has (\d+)\. How many at first\?")


def read_numbers(question: str) -> tuple[int, ...]:
    match = QUESTION.fullmatch(question)
    steps = [step.split() for step in match[3].split(", ")]
    changes = [int(size) if verb in arithmetic.GAINS else -int(size) for verb, size in steps]
    return (int(match[4]) - sum(changes), *changes)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(folder: Path, *arguments: object, code: int = 0) -> None:
    run_main(arithmetic.main, "x.py", "--output_dir", folder, *arguments, code=code)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arithmetic")
    write(folder, "--train", 1600, "--test", 300, "--warmup", 2000, "--seed", 3)
    return folder


def test_a_trial_is_worked_through_and_says_how_far_it_is_off():
    assert arithmetic.trial(EVA, 9) == (
        "<<9-2=7>>7\n<<7-2=5>>5\n<<5+5=10>>10\nneed 9: <<10-9=1>>1 over\n\\boxed{9}"
    )
    assert arithmetic.trial(EVA, 5).splitlines()[3] == "need 9: <<9-6=3>>3 short"
    assert arithmetic.trial(EVA, 8).splitlines()[3] == "need 9: <<9-9=0>>0 left"


def test_rows_have_the_gsm8k_format_and_their_reference_solves_the_question(folder):
    for name, count in (("train", 1600), ("test", 300)):
        rows = lines(folder / f"{name}.jsonl")
        assert len(rows) == count
        assert all(set(row) == {"question", "answer"} for row in rows)
        assert len(envs.make("gsm8k", folder / f"{name}.jsonl")) == count
    for row in lines(folder / "test.jsonl"):
        start, *changes = read_numbers(row["question"])
        assert row["answer"].endswith(f"0 left\n#### {start}")
        end = int(row["question"].split(" has ")[1].split(".")[0])
        assert start + sum(changes) == end


def test_the_expert_earns_1_a_wrong_trial_0_no_answer_minus_1_and_it_needs_a_reference(folder):
    problems = lines(folder / "train.jsonl")[:50]
    for task_id, row in enumerate(problems):
        solution = arithmetic.expert({**row, "task_id": task_id}, [])
        assert envs.grade("gsm8k", solution, row["answer"]) == 1
        assert envs.grade("gsm8k", arithmetic.working(EVA, 8), row["answer"]) == -1
    assert envs.grade("gsm8k", arithmetic.trial(EVA, 9), arithmetic.row(EVA)["answer"]) == 0
    with pytest.raises(ValueError, match="#### N"):
        arithmetic.expert({"question": EVA.question, "answer": "8"}, [])


def test_no_numbers_of_the_test_occur_in_training_or_warm_up(folder):
    test = {read_numbers(row["question"]) for row in lines(folder / "test.jsonl")}
    assert len(test) == arithmetic.HELD_OUT
    train = {read_numbers(row["question"]) for row in lines(folder / "train.jsonl")}
    warm = {
        read_numbers(message["content"].removeprefix(arithmetic.RETRY))
        for chat in lines(folder / "warmup.jsonl")
        for message in chat["messages"]
        if message["role"] == "user"
    }
    assert len(train) > 1000 and len(warm) > 1000
    assert not test & (train | warm)


def test_the_same_seed_writes_the_same_files_and_another_one_does_not(tmp_path, folder):
    arguments = ("--train", 1600, "--test", 300, "--warmup", 2000)
    write(tmp_path / "same", *arguments, "--seed", 3)
    write(tmp_path / "other", *arguments, "--seed", 4)
    for name in ("train.jsonl", "test.jsonl", "warmup.jsonl"):
        assert (tmp_path / "same" / name).read_bytes() == (folder / name).read_bytes()
        assert (tmp_path / "other" / name).read_bytes() != (folder / name).read_bytes()
    assert not list((tmp_path / "same").glob("*.tmp"))


@pytest.mark.parametrize("changes", [3, 5, 6])
def test_harder_problems_are_solved_and_kept_apart_as_well(tmp_path, changes):
    write(tmp_path, "--train", 200, "--warmup", 200, "--changes", changes)
    rows = lines(tmp_path / "test.jsonl")
    assert {len(read_numbers(row["question"])) for row in rows} == {changes + 1}
    for row in rows:
        assert envs.grade("gsm8k", arithmetic.expert(row, []), row["answer"]) == 1
    train = {read_numbers(row["question"]) for row in lines(tmp_path / "train.jsonl")}
    assert not train & {read_numbers(row["question"]) for row in rows}


def test_warm_up_never_teaches_a_wrong_number_nor_any_number_of_a_retry(folder):
    retries = 0
    for chat in lines(folder / "warmup.jsonl"):
        for question, answer in zip(chat["messages"][::2], chat["messages"][1::2], strict=True):
            retry = question["content"].startswith(arithmetic.RETRY)
            retries += retry
            right = "0 left" in answer["content"]
            guess = answer["content"].split("\\boxed{")[1][:-1]
            assert answer["given"] == (f"<<{guess}" if retry or not right else "")
            assert answer["content"].startswith(answer["given"])
    assert retries > 200


@pytest.mark.parametrize("count", ["-1", "many"])
def test_a_bad_count_is_a_usage_error(tmp_path, count):
    write(tmp_path / "x", "--test", count, code=2)
    assert not (tmp_path / "x").exists()
