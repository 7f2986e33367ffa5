"""Criteria, duplicates, weights and windows against examples worked by hand.

python -m pytest tests/unit/rise/dataset/test_rules.py
"""

import math

import pytest

from rise.dataset.rules import Rules, rows_from_episode
from rise.dataset.weights import PromptMeans, weight
from rise.episodes.shorthand import sketch


def turns(episode_text: str, **rules) -> list[int]:
    """The turns of an episode that become rows."""
    rows, _ = rows_from_episode(sketch(episode_text)[0], Rules(**rules))
    return [row.turn for row in rows]


# Rewards by turn: 0, -1, 0, 1, and a fifth turn that conversion never sees.
LONG = "w7 - w8 r5 w9"


def test_every_dropped_attempt_has_a_reason():
    _, dropped = rows_from_episode(sketch(LONG)[0], Rules(criteria="better"))
    assert dropped == {"not better": 1, "after the first success": 1}
    _, dropped = rows_from_episode(sketch("w7 w8")[0], Rules(only_success=True))
    assert dropped == {"episode without success": 2}


def test_repeated_and_empty_attempts_leave_the_episode_and_its_history():
    episode = sketch("w7 w7 w8 r5")[0]
    episode.turns[1].actions[0] = "  the answer is 7\n"
    episode.turns[2].actions[0] = " \n"
    rows, dropped = rows_from_episode(episode, Rules(remove_duplication=True))
    assert [row.turn for row in rows] == [1, 4]
    assert dropped == {"repeated": 1, "empty": 1}
    said = ["question 0", "the answer is 7", "incorrect", "the answer is 5"]
    assert [m["content"] for m in rows[1].messages] == said
    kept, _ = rows_from_episode(episode, Rules())
    assert [row.turn for row in kept] == [1, 2, 3, 4]
    assert kept[1].messages[-1]["content"] == "  the answer is 7\n"


def test_an_error_of_a_server_in_a_published_log_is_no_attempt():
    episode = sketch("- w7 r5")[0]
    episode.turns[0].actions[0] = "**NETWORK ERROR DUE TO HIGH TRAFFIC. PLEASE REGENERATE.**"
    rows, dropped = rows_from_episode(episode, Rules())
    assert [(row.turn, len(row.messages)) for row in rows] == [(2, 2), (3, 4)]
    assert dropped == {"error of a server": 1}


def test_an_episode_that_starts_empty_starts_at_its_second_turn():
    episode = sketch("- r5")[0]
    episode.turns[0].actions[0] = ""
    rows, _ = rows_from_episode(episode, Rules(remove_duplication=True, criteria="better"))
    assert [(row.turn, len(row.messages)) for row in rows] == [(2, 2)]


def test_correct_to_correct_goes_on_after_a_right_first_turn_given_again_too():
    assert turns("r5 r6") == [1]
    assert turns("r5 r6", correct_to_correct=True) == [1, 2]
    assert turns("r5 w7", correct_to_correct=True) == [1, 2]
    assert turns("r5 w7 r5 r6", correct_to_correct=True) == [1, 2, 3]
    assert turns("w7 r5 r6", correct_to_correct=True) == [1, 2]
    assert turns("r5 r6", correct_to_correct=True, criteria="best") == [1, 2]
    assert turns("r5 r6", correct_to_correct=True, criteria="better") == [1]
    assert turns("r5 r5", correct_to_correct=True, remove_duplication=True) == [1, 2]
    assert turns("w7 w7", correct_to_correct=True, remove_duplication=True) == [1]
    assert turns("r5 r5", correct_to_correct=False, remove_duplication=True) == [1]


@pytest.mark.parametrize(
    ("window", "shown"),
    [
        (None, ["question 0", "the answer is 7", "incorrect", "the answer is 8", "incorrect"]),
        (3, ["question 0", "the answer is 7", "incorrect", "the answer is 8", "incorrect"]),
        (2, ["question 0", "the answer is 8", "incorrect"]),
        (1, ["question 0"]),
    ],
)
def test_a_row_shows_what_the_window_showed(window, shown):
    rows, _ = rows_from_episode(sketch("w7 w8 r5")[0], Rules(context_window=window))
    assert [m["content"] for m in rows[2].messages] == [*shown, "the answer is 5"]


def test_the_opening_is_the_dialogues_or_the_one_given():
    episode = sketch("w7 r5")[0]
    episode.dialogue.insert(0, {"role": "system", "content": "think"})
    rows, _ = rows_from_episode(episode, Rules())
    roles = " ".join(m["role"] for m in rows[1].messages)
    assert roles == "system user assistant user assistant"
    episode.dialogue = []
    with pytest.raises(ValueError, match="prompt is unknown"):
        rows_from_episode(episode, Rules())
    given = [{"role": "user", "content": "asked"}]
    rows, _ = rows_from_episode(episode, Rules(), given)
    assert rows[0].messages[0]["content"] == "asked"
    assert given == [{"role": "user", "content": "asked"}]


def test_a_causal_check_is_no_training_data():
    episode = sketch("w7 r5")[0]
    episode.turns[0].shown = {"task_id": 3, "action": "another one"}
    with pytest.raises(ValueError, match="shown_attempt"):
        rows_from_episode(episode, Rules())


def test_a_weight_of_zero_trains_nothing_and_is_dropped():
    episode, rules = sketch("w7 w8 w9")[0], Rules(weighting="centered")
    assert rows_from_episode(episode, rules, mean=1.0) == ([], {"weight 0": 3})
    for temperature in (0.1, 0.3, 0.4, 0.7, 1.3):
        means = PromptMeans("centered", temperature)
        means.add("question", [1] * 7)
        assert weight(1, means.of("question"), "centered", temperature) == 0


@pytest.mark.parametrize(
    ("weighting", "temperature", "message"),
    [
        ("exp", 0, "above 0"),
        ("exp", -1, "above 0"),
        ("exp", math.nan, "temperature is nan"),
        ("none", math.nan, "temperature is nan"),
        ("advantage", math.inf, "temperature is inf"),
        ("exp", 1e-3, "raise --temperature"),
        ("centered", 1e-3, "raise --temperature"),
    ],
)
def test_weights_that_make_no_sense_are_refused(weighting, temperature, message):
    with pytest.raises(ValueError, match=message):
        weight(1, 0.5, weighting, temperature)


@pytest.mark.parametrize("weighting", ["exp", "advantage", "centered"])
@pytest.mark.parametrize("reward", [math.nan, math.inf])
def test_a_weight_that_is_no_number_is_refused(weighting, reward):
    with pytest.raises(ValueError, match=f"the {weighting} weight of reward {reward} is "):
        weight(reward, 0.0, weighting, 0.4)
    with pytest.raises(ValueError, match="the centered weight of reward 0 is -inf"):
        weight(0, math.inf, "centered", 0.4)


def test_a_row_as_json():
    episode = sketch("w7 r5")[0]
    episode.dialogue.insert(0, {"role": "system", "content": "think"})
    row = rows_from_episode(episode, Rules())[0][1]
    tail = {"reward": 1, "weight": math.exp(2.5), "task_id": 0, "turn": 2, "opening": 2}
    assert row.to_dict(3, "fastchat") == {
        "id": "3-0-2",
        "conversations": [
            {"from": "system", "value": "think", "loss": 0.0},
            {"from": "human", "value": "question 0", "loss": 0.0},
            {"from": "gpt", "value": "the answer is 7", "loss": 0.0},
            {"from": "human", "value": "incorrect", "loss": 0.0},
            {"from": "gpt", "value": "the answer is 5", "loss": math.exp(2.5)},
        ],
        **tail,
    }
    assert row.to_dict(3, "messages") == {"id": "3-0-2", "messages": row.messages, **tail}
