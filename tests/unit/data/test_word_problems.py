"""Word problems: right, readable, and the test problems tell other stories.

python -m pytest tests/unit/data/test_word_problems.py
"""

import json
import re

import pytest

import envs
from data import word_problems
from envs.grading.exact import rational
from tests.support.stages import run_main

COUNTS = {"train": 940, "test": 260}
"""Twenty of each story."""
PROPER = {name for names in word_problems.PEOPLE.values() for name in names.split()}
PROPER |= {"Monday", "Tuesday", "Friday", "Saturday", "Sunday", "May", "June", "July", "August"}


def run(*words, code=0):
    return run_main(word_problems.main, "word_problems.py", *words, code=code)


@pytest.fixture(scope="module")
def rows():
    return {split: [*word_problems.problems(split, n, 3)] for split, n in COUNTS.items()}


def test_every_step_is_right_and_leads_to_the_answer(rows):
    for row in rows["train"] + rows["test"]:
        steps, _, answer = row["answer"].rpartition("\n#### ")
        found = re.findall(r"(\S+) = <<(\S+)=(\d+)>>(\d+)", steps)
        assert 1 <= len(found) <= 3, row
        known = {*re.findall(r"\d+", row["question"]), *map(str, (2, 3, 4, 5, 6, 7, 12, 60, 100))}
        for shown, expression, result, said in found:
            assert shown == expression and said == result, row
            assert rational(expression) == int(result) >= 2, row
            assert {*re.findall(r"\d+", expression)} <= known, row
            known.add(result)
        assert found[-1][2] == answer, row


def test_questions_read_as_english(rows):
    for row in rows["train"] + rows["test"]:
        for text in (row["question"], re.sub("<<.*?>>|#+", "", row["answer"])):
            assert not re.search(r"[{}~\[\]<>]|  | [,.]|\.\.|\b[Aa] [aeiou]|\b1 \w+s\b", text), text
            inside = {*re.findall(r"(?<![.?\n] )\b[A-Z]\w+", text.strip()[1:])}
            assert inside <= PROPER | {*re.findall(r"\n(\w+)", text)}, text
        assert row["question"][0].isupper() and row["question"].endswith("?")
        numbers = re.findall(r"\d+", row["question"])
        assert len({*numbers}) == len(numbers), row


def test_forty_stories_and_more_and_others_for_the_test(rows):
    told = word_problems.stories()
    assert len(told["train"]) >= 40
    assert not {story[1] for story in told["train"]} & {story[1] for story in told["test"]}
    for split, some in rows.items():
        assert len({row["question"] for row in some}) == COUNTS[split]
        assert len({row["id"] for row in some}) == COUNTS[split]
        assert len({row["id"].split("-")[1] for row in some}) == len(told[split])
    steps = {row["answer"].count("<<") for row in rows["test"]}
    assert steps == {1, 2, 3}


def test_the_files_are_the_same_for_a_seed_and_graded_right(tmp_path):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        run("--output_dir", tmp_path / folder, "--train", 100, "--test", 40, "--seed", seed)
    for name in ("train.jsonl", "test.jsonl"):
        a, b, c = ((tmp_path / folder / name).read_text() for folder in "abc")
        assert a == b != c
    env = envs.make("gsm8k", tmp_path / "a" / "test.jsonl")
    assert len(env) == 40
    for line in (tmp_path / "a" / "test.jsonl").read_text().splitlines():
        row = json.loads(line)
        answer = row["answer"].rpartition("#### ")[2]
        assert envs.grade("gsm8k", f"\\boxed{{{answer}}}", row["answer"]) == 1


def test_what_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    assert "file/x: Not a directory" in run("--output_dir", tmp_path / "file" / "x", code=2).stderr
    done = run("--output_dir", tmp_path / "x", "--test", 100_000, code=2)
    assert "different problems, not 100000" in done.stderr
    assert not (tmp_path / "x").exists()
    run("--output_dir", tmp_path, "--train", -1, code=2)
