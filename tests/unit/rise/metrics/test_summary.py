"""Metrics and votes against examples worked by hand, and the examples in their docstrings.

python -m pytest tests/unit/rise/metrics/test_summary.py
"""

import math
from itertools import combinations

import pytest

from rise.episodes.episode import Episode
from rise.episodes.shorthand import sketch as make
from rise.metrics import votes
from rise.metrics.summary import summarise
from rise.metrics.tables import format_table
from tests.support.conversion import published


def same_number(a: str, b: str) -> bool:
    return float(a) == float(b)


# Four problems, three forced turns; the right answer is 5. The votes, worked out:
#   0  wrong 7, wrong 7, right 5   -> 7 has two votes: wrong
#   1  right 5, right 5.0, wrong 6 -> 5 = 5.0 to the grader, two votes: right
#   2  none, right 5, wrong 6      -> a tie of one vote each, 5 is earlier: right
#   3  wrong 8, none, none         -> 8 alone: wrong
FORCED = ("w7 w7 r5", "r5 r5.0 w6", "- r5 w6", "w8 - -")


def forced_metrics() -> dict:
    return summarise(make(*FORCED), same_number, max_turns=3, feedback="none").metrics


def test_rates_gain_and_transitions_of_a_forced_run():
    found = forced_metrics()
    assert found["m1@t1"]["value"] == 1 / 4
    assert found["m1@t3"]["value"] == 2 / 4
    assert found["p1@t3"]["value"] == 3 / 4
    assert [rate["value"] for rate in found["acc@t"]] == [1 / 4, 2 / 4, 1 / 4]
    assert {rate["n"] for rate in found["acc@t"]} == {4}
    assert "m1@t1 - m1@t1" not in found["paired"]
    assert not [name for name in found if name.endswith("@t1") and name != "m1@t1"]
    gain = found["gain"]
    assert gain == found["paired"]["m1@t3 - m1@t1"]
    assert gain["value"] == 1 / 4  # problem 2 is won, none is lost
    assert gain["p_value"] == 1.0  # one disagreement proves nothing
    assert gain["low"] <= gain["value"] <= gain["high"]
    # Transitions are fractions of all problems and add up to the difference.
    assert set(found["delta"]) == {"1,2", "1,3", "2,3"}
    assert found["i->c"]["1,2"]["value"] == 1 / 4
    assert found["c->i"]["1,2"]["value"] == 0
    assert found["i->c"]["2,3"]["value"] == 1 / 4
    assert found["c->i"]["2,3"]["value"] == 2 / 4
    for pair, rate in found["delta"].items():
        change = found["i->c"][pair]["value"] - found["c->i"][pair]["value"]
        assert math.isclose(rate["value"], change)


def test_troubles_per_turn():
    run = make("-~ w7 w7", "r5 - -", "w7~ w7~ r5", "t5 r5 r5")
    found = summarise(run, same_number, max_turns=3, feedback="none").metrics
    assert [rate["value"] for rate in found["no_answer"]] == [1 / 4, 1 / 4, 1 / 4]
    assert [rate["value"] for rate in found["timeout"]] == [1 / 4, 0, 0]
    assert [rate["value"] for rate in found["length"]] == [2 / 4, 1 / 4, 0]
    assert found["copied"][0] is None
    # Turn 2 copies turn 1 on problems 2 and 3, turn 3 copies turn 2 on problems 0, 1 and 3.
    assert [rate["value"] for rate in found["copied"][1:]] == [2 / 4, 3 / 4]


def test_parallel_samples_give_mk_at_t1_beside_the_rollout():
    run = make("w7,r5,r5 r5", "r5,w7,w7 r5", "w7,-,- w7", "-,r5,w6 r5")
    found = summarise(run, same_number, max_turns=2, feedback="none").metrics
    # Three samples vote 5 (two votes), 7 (two), 7 (the only one), 5 (the first of a tie).
    assert found["m3@t1"]["value"] == 2 / 4
    # The rollout goes on with sample 0: 7 5 -> 7 (tie), 5 5 -> 5, 7 7 -> 7, - 5 -> 5.
    assert found["m1@t1"]["value"] == 1 / 4
    assert found["m1@t2"]["value"] == 2 / 4
    assert list(found["paired"]) == ["m1@t2 - m3@t1", "m1@t2 - m1@t1", "m3@t1 - m1@t1"]
    assert found["paired"]["m1@t2 - m3@t1"]["value"] == 0


def test_a_parallel_run_in_another_directory_is_paired_by_problem():
    sequential = make("w7 r5", "r5 r5", "w7 w7")
    parallel = make("r5,r5", "w7,w7", "w7,w7")[:2]  # its third problem failed
    found = summarise(
        sequential, same_number, max_turns=2, feedback="none", parallel=parallel[::-1]
    ).metrics
    assert found["m2@t1"] == found["m2@t1"] | {"value": 1 / 2, "n": 2}
    assert found["paired"]["m1@t2 - m2@t1"]["n"] == 2
    assert found["paired"]["m1@t2 - m2@t1"]["value"] == 0  # -1 on the first, +1 on the second


def test_an_oracle_run_keeps_what_is_solved_and_never_votes():
    run = make("r5", "w7 r5", "w7 - r5", "w7 w8 w9")
    found = summarise(run, same_number, max_turns=3, feedback="oracle").metrics
    assert [rate["value"] for rate in found["acc@t"]] == [1 / 4, 2 / 4, 3 / 4]
    assert found["p1@t3"]["value"] == 3 / 4
    assert found["turns_used"]["value"] == (1 + 2 + 3 + 3) / 4
    assert "m1@t3" not in found and "gain" not in found and "delta" not in found
    assert [rate["n"] for rate in found["no_answer"]] == [4, 3, 2]
    with pytest.raises(ValueError, match="--feedback none"):
        votes.m1_tk(run, same_number, 3, "oracle")


def test_turns_that_nobody_reached_have_no_rate():
    found = summarise(make("r5", "r5"), same_number, max_turns=2, feedback="oracle").metrics
    assert found["no_answer"][1] is None and found["copied"][1] is None
    assert "no answer 0.0 -> - %" in format_table(found)


def test_one_turn_with_several_samples():
    run = make("w7,r5,r5", "r5,r5,w7", "w7,w7,r5")
    found = summarise(run, same_number, max_turns=1, feedback="none").metrics
    assert list(found["paired"]) == ["m3@t1 - m1@t1"]
    assert found["m3@t1"]["value"] == 2 / 3
    assert found["paired"]["m3@t1 - m1@t1"]["value"] == 1 / 3
    assert "acc@t" not in format_table(found)  # it is m1@t1


def test_a_timed_out_grading_does_not_overrule_the_same_answer():
    run = make("t5 r5 w7", "t5 t5 w7")
    assert votes.m1_tk(run, same_number, 3, "none") == [True, False]


def test_equal_answers_are_compared_by_the_grader_once():
    calls = []

    def counting(a, b):
        calls.append((a, b))
        return False

    assert votes.vote(["7", "7", "5"], counting) == [0, 1]
    assert calls == [("7", "5")]


@pytest.mark.parametrize(
    ("run", "feedback", "message"),
    [
        (make("r5 r5"), "none", "turn 3"),
        (make("r5 r5 r5"), "maybe", "one of none, oracle, verdict"),
    ],
)
def test_runs_that_cannot_be_measured_are_refused(run, feedback, message):
    with pytest.raises(ValueError, match=message):
        summarise(run, same_number, max_turns=3, feedback=feedback)


def test_a_published_log_has_no_verdicts_to_vote_with():
    episode = Episode.from_dict(published(make("r5")[0]))
    with pytest.raises(ValueError, match="published logs"):
        summarise([episode], same_number, max_turns=1, feedback="none")


def test_a_fresh_draw_is_another_sample_of_turn_1_of_the_same_problems():
    afresh = ["r5,r5,w7 r5", "r5,w7,r5 w7", "w7,r5,w8 r5", "w7,w8,- w7"]
    found = summarise(make(*afresh), same_number, max_turns=2, feedback="none").metrics
    right, wrong = (found["fresh_draw"][f"after_{name}"]["1,2"] for name in ("right", "wrong"))
    assert [right[key]["value"] for key in ("next", "fresh", "difference")] == [0.5, 0.5, 0]
    assert [wrong[key]["value"] for key in ("next", "fresh", "difference")] == [0.5, 0.25, 0.25]
    assert {rate["n"] for rate in [*right.values(), *wrong.values()]} == {2}
    assert right["difference"]["low"] == -0.5 and right["difference"]["high"] == 0.5
    lines = [line for line in format_table(found).splitlines() if "a fresh draw of turn 1" in line]
    for line, kind in zip(lines, ("right", "wrong"), strict=True):
        assert line.startswith(f"after a {kind} attempt turn 2")
        assert line.endswith("(too few to tell, n = 2)")


def test_what_only_copies_is_above_a_fresh_draw_and_then_below():
    copies = make("r5,r5,w7 r5 r5", "w7,r5,w8 w7 w7")
    found = summarise(copies, same_number, max_turns=3, feedback="none").metrics["fresh_draw"]
    for pair in ("1,2", "2,3"):
        assert found["after_right"][pair]["difference"]["value"] == 0.5
        assert found["after_wrong"][pair]["difference"]["value"] == -0.5


def test_without_an_own_attempt_or_another_sample_there_is_no_fresh_draw():
    shown = make("r5,w7 r5", "w7,r5 r5")
    for episode in shown:
        episode.turns[0].shown = {"task_id": 9, "action": "5"}
    one, told = make("r5 r5"), make("r5,r5,w7 r5")
    for run, feedback in ((shown, "none"), (one, "none"), (told, "verdict")):
        found = summarise(run, same_number, max_turns=2, feedback=feedback).metrics
        assert "fresh_draw" not in found and "fresh draw" not in format_table(found)
    found = summarise(make("r5,r5 r5", "w7,w7 r5"), same_number, max_turns=2, feedback="none")
    assert "fresh_draw" not in found.metrics


def test_the_parallel_run_gives_fresh_draws_but_for_the_sample_that_went_on():
    run, parallel = make("r5 r5", "w7 w7"), make("r5,w7,w7", "w7,r5,r5")
    found = summarise(run, same_number, max_turns=2, feedback="none", parallel=parallel).metrics
    rates = found["fresh_draw"]
    assert rates["after_right"]["1,2"]["fresh"]["value"] == 0
    assert rates["after_wrong"]["1,2"]["fresh"]["value"] == 1


def test_table_has_at_most_ten_lines_and_ends_with_a_sentence():
    run = make(*["w7,w7,r5 r5 r5"] * 12, *["r5,r5,r5 r5 r5"] * 4)
    text = format_table(summarise(run, same_number, max_turns=3, feedback="none").metrics)
    lines = text.splitlines()
    assert len(lines) <= 10 + 2  # two are about fresh draws
    assert lines[1].split() == ["m1@t1", "25.0", "%", "10.2", "to", "49.5", "16"]
    assert lines[-1].startswith("m1@t3 is above m3@t1 by 75.0 points")
    assert "p < 0.001, n = 16" in lines[-1]


@pytest.mark.parametrize(
    ("problems", "feedback", "sentence"),
    [
        (["r5 w7 w7"] * 8, "none", "m1@t3 is below m1@t1 by 100.0 points"),
        (["w7 r5 r5", "r5 w7 w7"], "none", "m1@t3 and m1@t1 cannot be told apart: +0.0 points"),
        (["w7 r5 r5"], "none", "m1@t3 and m1@t1 cannot be told apart: +100.0 points"),
        (["w7 r5", "r5"], "oracle", "With the oracle 100.0 % are solved within 3 turns, 50.0 %"),
    ],
)
def test_the_sentence_says_what_the_run_shows(problems, feedback, sentence):
    found = summarise(make(*problems), same_number, max_turns=3, feedback=feedback).metrics
    lines = format_table(found).splitlines()
    assert [line for line in lines if not line.startswith("Warning")][-1].startswith(sentence)


def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample():
    run = make("r5,w7,w8,w9,-", "w7,r5,r5,r5,w6", "w1,w2,w3,w4,-")
    found = summarise(run, same_number, max_turns=1, feedback="none").metrics["pass@k"]
    assert list(found) == ["1", "2", "4", "5"]
    subsets = [list(combinations(turn.turns[0].verdicts, 2)) for turn in run]
    by_hand = [sum("right" in pair for pair in pairs) / len(pairs) for pairs in subsets]
    assert found["2"]["value"] == pytest.approx(sum(by_hand) / 3)
    assert found["1"]["value"] == pytest.approx(4 / 15)
    assert found["5"]["value"] == pytest.approx(2 / 3)
    assert "pass@k" not in forced_metrics()


@pytest.mark.parametrize(
    ("problems", "words"),
    [
        (["w7 w7"] * 20 + ["r5 r5"], "m1@t1 is 4.8 %, below 5 %"),
        (["r5 r5"] * 20 + ["w7 w7"], "m1@t1 is 95.2 %, above 95 %"),
        (["r5 r5~"] * 2 + ["w7 w7"] * 30, "6.2 % of the answers of turn 2 were cut"),
        (["r5 r5"] * 19 + ["w7 w7"], None),
    ],
)
def test_doubtful_numbers_come_with_a_warning(problems, words):
    found = summarise(make(*problems), same_number, max_turns=2, feedback="none").metrics
    assert len(found["warnings"]) == bool(words)
    if words:
        assert words in found["warnings"][0]
        assert format_table(found).splitlines()[-1] == f"Warning: {found['warnings'][0]}."


UNREAD = ("95 % of the attempts of turn 1 have no answer: 100 % of these have no \\boxed",)
UNREAD += ("last number is right in 21 %", "a warm start")


@pytest.mark.parametrize(
    ("first", "others", "parts"),
    [
        ("It is 1,005, no: 5.0", "It is 7", UNREAD),
        ("\\boxed{A}", "\\boxed{A}", ("0 % of these have no", "no answer of this --env")),
        ("", "", ("100 % are empty", "--max_new_tokens")),
    ],
)
def test_most_attempts_without_an_answer_are_described(first, others, parts):
    """More tokens are advised only where nothing at all was said."""
    episodes = make(*["-"] * 19, "r5")
    for episode in episodes:
        episode.answer = "2 + 3 = 5\n#### 5"
        episode.turns[0].finish_reasons = ["length"]
        episode.turns[0].actions = [first if episode.task_id < 4 else others]
    [warning] = summarise(episodes, str.__eq__, max_turns=1, feedback="none").metrics["warnings"]
    assert all(part in warning for part in parts)
