"""Several logs in one conversion: pooled means, near duplicates, the disk in between.

python -m pytest tests/unit/rise/dataset/test_rows.py
"""

import json
import math
import tracemalloc
from collections import Counter

import pytest

from rise.dataset.near_duplicates import without_near_duplicates
from rise.dataset.rules import Rules, rows_from_episode
from rise.dataset.text_keys import text_key
from rise.dataset.weights import PromptMeans
from rise.dataset.writer import RowSpill
from rise.episodes.shorthand import sketch
from tests.support.conversion import convert, write_run


def weights(output) -> dict[str, float]:
    return {row["id"]: row["weight"] for row in json.loads(output.read_text())}


FIRST = {"0-0-1": 0, "0-0-2": 1, "1-0-1": 0, "1-0-2": -1, "1-0-3": 1}
"""The rewards of the rows of question 0."""
MEAN = (2 + 3 * math.e + 1 / math.e) / 6


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [
        # Question 0 has rewards 0, 1 in the first log and 0, -1, 1, 1 in the second: mean 1/3.
        # Question 1 was asked once: 1, mean 1.
        ("advantage", {k: math.exp(r - 1 / 3) for k, r in FIRST.items()} | {"0-1-1": 1.0}),
        # The mean of 1, e, 1, 1/e, e, e is (2 + 3e + 1/e) / 6. Question 1 centres to 0: no row.
        ("centered", {k: math.exp(r) - MEAN for k, r in FIRST.items()}),
        ("exp", {k: math.exp(r) for k, r in FIRST.items()} | {"0-1-1": math.e}),
    ],
)
def test_means_run_over_the_attempts_of_all_logs(tmp_path, weighting, expected):
    first = write_run(tmp_path / "one", sketch("w7 r5", "r5"))
    second = write_run(tmp_path / "two", sketch("w8 - r6,r5"), turns=3)
    output = tmp_path / "both.json"
    rules = ("--temperature", 1, "--weighting", weighting)
    assert convert("--filepath", first, second, "--output", output, *rules) == 0
    found = weights(output)
    assert found == pytest.approx(expected)


def test_a_question_that_is_in_one_log_twice_is_one_prompt():
    means = PromptMeans("advantage", 0.4)
    means.add("same", [1, 0])
    means.add("other", [-1])
    means.add("same", [0, 0])
    assert (means.of("same"), means.of("other")) == (0.25, -1.0)


def rows_of(*problems: str, question: str = "question"):
    for episode in sketch(*problems):
        episode.dialogue[0]["content"] = question
        yield from ((0, row) for row in rows_from_episode(episode, Rules())[0])


def kept(rows, similarity, tmp_path) -> tuple[list[tuple[int, int]], Counter]:
    dropped = Counter()
    left = without_near_duplicates(rows, similarity, tmp_path / "data.json", dropped)
    return [(row.task_id, row.turn) for _, row in left], dropped


def test_equal_rows_of_one_question_are_kept_once(tmp_path):
    rows = list(rows_of("w7 r5", "w7 r5", "w8 r5"))
    # "the answer is 7" and "the answer is 8" are one piece of four words each, and differ.
    found, dropped = kept(rows, 1.0, tmp_path)
    assert found == [(0, 1), (0, 2), (2, 1), (2, 2)]
    assert dropped == {"near duplicate": 2}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("similarity", "count"), [(0.5, 2), (0.51, 3), (1.0, 3)])
def test_the_share_of_common_pieces_decides(tmp_path, similarity, count):
    rows = list(rows_of("w7", "w7", "w7"))
    rows[0][1].messages[-1]["content"] = "a b c d e f"  # abcd bcde cdef
    rows[1][1].messages[-1]["content"] = "a b c d e x"  # two of these, one other: 2/4
    rows[2][1].messages[-1]["content"] = "p q r s t u"
    found, _ = kept(rows, similarity, tmp_path)
    assert len(found) == count


def test_another_question_another_reward_or_another_history_is_no_duplicate(tmp_path):
    rows = [*rows_of("w7"), *rows_of("w7", question="another"), *rows_of("r7"), *rows_of("w7 w7")]
    found, dropped = kept(rows, 1.0, tmp_path)
    assert found == [(0, 1), (0, 1), (0, 1), (0, 2)]
    assert dropped == {"near duplicate": 1}


def test_near_duplicates_of_another_log_are_dropped_and_reported(tmp_path):
    first = write_run(tmp_path / "one", sketch("w7 r5"))
    second = write_run(tmp_path / "two", sketch("w7 r5", "r5"))
    output = tmp_path / "data.json"
    logs = ("--filepath", first, second)
    assert convert(*logs, "--output", output, "--remove_near_duplicates", 0.8) == 0
    assert list(weights(output)) == ["0-0-1", "0-0-2", "1-1-1"]
    report = json.loads((tmp_path / "data.json.report.json").read_text())
    assert (report["attempts"], report["rows"], report["dropped"]) == (5, 3, {"near duplicate": 2})


@pytest.mark.parametrize(
    "flags",
    [
        ["--shuffle"],
        ["--weighting", "centered", "--remove_near_duplicates", "0.9"],
        ["--to", "dpo"],
    ],
)
def test_no_conversion_holds_its_rows_in_memory(tmp_path, flags):
    (template,) = sketch("w7,r5 r5")
    template.turns[0].actions[0] = template.dialogue[1]["content"] = "x" * 80_000
    record = template.to_dict()
    log, output = tmp_path / "rows.jsonl", tmp_path / "data.json"
    with open(log, "w") as file:
        for task_id in range(100):
            record["dialogue"][0]["content"] = record["query"] = f"question {task_id}"
            file.write(json.dumps(record | {"task_id": task_id}) + "\n")
    assert log.stat().st_size > 20e6
    arguments = ("--filepath", log, "--output", output, *flags)
    assert convert(*arguments) == 0  # imports
    tracemalloc.start()
    assert convert(*arguments, "--overwrite") == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert output.stat().st_size > 8e6 and peak < 4e6


def test_a_spill_gives_rows_back_in_any_order_and_has_no_name(tmp_path):
    rows = [{"text": "a\nb"}, {"text": "½"}, {"text": "half \ud83d"}]
    with RowSpill(tmp_path / "made" / "data.json") as spill:
        for row in rows:
            spill.append(row)
        assert list(tmp_path.iterdir()) == []
        assert list(spill.rows(reversed(spill.offsets))) == rows[::-1]


def test_texts_are_told_apart_by_where_one_ends():
    assert text_key("ab", "c") != text_key("a", "bc")
    assert text_key("ab", "c") == text_key("ab", "c")
