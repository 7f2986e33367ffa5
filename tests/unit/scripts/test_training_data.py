"""The trajectories of the training benchmark: right at the end, wrong before, histories shared.

python -m pytest tests/unit/scripts/test_training_data.py
"""

import itertools
import random

from training import altered, rows_of, solution

import envs

ANSWER = "She sold 48/2 = <<48/2=24>>24 clips in May.\nSo 48+24 = <<48+24=72>>72.\n#### 72"


def test_a_reference_becomes_an_attempt_and_an_altered_one_is_wrong():
    right = solution(ANSWER)
    assert "<<" not in right
    assert envs.grade("gsm8k", right, ANSWER) == 1
    for seed in range(20):
        assert envs.grade("gsm8k", altered(right, random.Random(seed)), ANSWER) == 0


def test_each_row_continues_the_one_before_and_only_its_answer_is_trained():
    rows = rows_of({"question": "How many?", "answer": ANSWER}, 3, turns=3)
    assert [row["reward"] for row in rows] == [0, 0, 1]
    for before, after in itertools.pairwise(rows):
        said = [turn["value"] for turn in before["conversations"]]
        assert [turn["value"] for turn in after["conversations"]][: len(said)] == said
    for row in rows:
        losses = [turn["loss"] for turn in row["conversations"]]
        assert losses[:-1] == [0.0] * (len(losses) - 1) and losses[-1] == row["weight"]
