"""Repetition, copying and similarity of texts, against values worked out by hand.

python -m pytest tests/unit/rise/metrics/test_texts.py
"""

import random
import sys

import pytest
from nltk.metrics.distance import edit_distance

from rise.episodes.shorthand import sketch
from rise.metrics.summary import summarise
from rise.metrics.texts import COMPARED_WORDS, edit_similarity, repetition
from rise.metrics.turns import repeated, similar


@pytest.mark.parametrize(
    ("text", "n", "share"),
    [
        ("", 4, 0.0),
        ("a b c", 4, 0.0),
        ("a b c d", 4, 0.0),
        ("a a a a a", 1, 4 / 5),
        # ab ba ab ba ab: 2 of 5 are new
        ("a b a b a b", 2, 3 / 5),
        ("a b a b a b", 4, 1 / 3),
        # punctuation marks are words: "4 .", ". 4", "4 ."
        ("4. 4.", 2, 1 / 3),
    ],
)
def test_repetition_is_the_share_of_pieces_said_before(text, n, share):
    assert repetition(text, n) == pytest.approx(share)


@pytest.mark.parametrize(
    ("previous", "attempt", "value"),
    [
        ("", "", 1.0),
        ("a", "", 0.0),
        ("a b c d", "a b c d", 1.0),
        ("a b c d", "a x c d", 3 / 4),
        ("a b", "a b c d", 1 / 2),
        ("a b c", "c b a", 1 / 3),
        ("a a a", "a a", 2 / 3),
        ("a  b\n", "a b", 1.0),
    ],
)
def test_similarity_counts_the_words_that_stay(previous, attempt, value):
    assert edit_similarity(previous, attempt) == pytest.approx(value)


def test_leaving_out_what_both_begin_and_end_with_changes_no_distance():
    draw = random.Random(0)
    for _ in range(200):
        a, b = (draw.choices("ab", k=draw.randrange(1, 9)) for _ in range(2))
        expected = 1 - edit_distance(a, b) / max(len(a), len(b))
        assert edit_similarity(" ".join(a), " ".join(b)) == pytest.approx(expected)


def test_equal_texts_are_compared_without_nltk(monkeypatch):
    monkeypatch.setitem(sys.modules, "nltk.metrics.distance", None)
    assert edit_similarity("so 3 + 4 = 7", "so 3 + 4  = 7\n") == 1.0
    assert repetition("a b c d a b c d") > 0


def test_long_texts_are_compared_by_their_beginning():
    start = " ".join(map(str, range(COMPARED_WORDS)))
    assert edit_similarity(start + " yes" * 50_000, start + " no" * 50_000) == 1.0


def test_repetition_is_the_mean_over_samples_and_similarity_that_of_attempts_that_went_on():
    run = sketch("w7,w8 r5", "r5")
    run[0].turns[0].chosen = 1
    assert similar(run, 2) == [3 / 4]  # "the answer is 8" and "the answer is 5"
    run[0].turns[0].actions = ["a b c d a b c d", "a b c d e"]
    # 5 pieces, abcd twice: 1/5; the other sample has none
    assert repeated(run, 1) == [pytest.approx(1 / 10), 0.0]
    assert repeated(run, 2) == [0.0]
    found = summarise(sketch("w7 w7", "w7 r5"), str.__eq__, max_turns=2, feedback="none").metrics
    assert [rate["value"] for rate in found["repetition"]] == [0, 0]
    assert found["similarity"][0] is None
    assert found["similarity"][1]["value"] == pytest.approx((1 + 3 / 4) / 2)
