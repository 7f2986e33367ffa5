"""Preference pairs against examples worked by hand.

python -m pytest tests/unit/rise/dataset/test_pairs.py
"""

import json

import pytest

import workflow_convert
from rise.dataset.pairs import pairs_of
from rise.episodes.shorthand import sketch
from tests.support.conversion import write_run


@pytest.mark.parametrize(
    ("answers", "limit", "expected"),
    [
        ("a1 b0", 9, ["ab"]),
        ("a0 b1", 9, ["ba"]),
        ("a1 b1", 9, []),
        ("a1", 9, []),
        # the widest gap first: 1 over -1, then 1 over 0 and 0 over -1
        ("a-1 b0 c1", 9, ["ca", "cb", "ba"]),
        ("a-1 b0 c1", 1, ["ca"]),
        # each answer once before one is used again
        ("a1 b1 x0 y0", 9, ["ax", "by", "ay", "bx"]),
        ("a1 x0 y0 z0", 2, ["ax", "ay"]),
        ("a1 b1 c1 x0", 9, ["ax", "bx", "cx"]),
    ],
)
def test_pairs_of_a_state(answers, limit, expected):
    made = pairs_of([(word[0], int(word[1:])) for word in answers.split()], limit)
    assert [better[0] + worse[0] for better, worse in made] == expected


def convert(output, *arguments) -> int:
    command = ["--output", output, "--to", "dpo", *arguments]
    return workflow_convert.main([str(argument) for argument in command])


def read(output) -> list[dict]:
    return [json.loads(line) for line in output.read_text().splitlines()]


def in_short(pair: dict) -> tuple[str, str, str]:
    return pair["id"], pair["chosen"][0]["content"][-1], pair["rejected"][0]["content"][-1]


def test_samples_of_a_turn_and_visits_of_a_state_make_pairs(tmp_path, capsys):
    # Turn 1 of question 0 is visited in both logs. Its turn 2 is another state in each, as what
    # was said before it differs; question 1 has one reward only.
    first = write_run(tmp_path / "one", sketch("w7 w8,r5,r6", "r5"))
    second = write_run(tmp_path / "two", sketch("r5", "r6"))
    output = tmp_path / "pairs.jsonl"
    assert convert(output, "--filepath", first, second) == 0
    pairs = read(output)
    assert [in_short(pair) for pair in pairs] == [
        ("0-0-1-1", "5", "7"),
        ("0-0-2-1", "5", "8"),
        ("0-0-2-2", "6", "8"),
    ]
    assert [message["content"] for message in pairs[1]["prompt"]] == [
        *("question 0", "the answer is 7", "incorrect")
    ]
    assert (pairs[1]["chosen_reward"], pairs[1]["rejected_reward"]) == (1, 0)
    report = json.loads((tmp_path / "pairs.jsonl.report.json").read_text())
    assert (report["episodes"], report["states"], report["states_without_pair"]) == (4, 3, 1)
    assert (report["answers"], report["pairs"]) == (7, 3)
    assert report["pairs_by_rewards"] == {"1 over 0": 3}
    printed = capsys.readouterr().out
    assert "3 pairs" in printed and "DPOTrainer" in printed.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.glob("pairs*")) == [
        *("pairs.jsonl", "pairs.jsonl.report.json")
    ]


def test_a_state_gives_at_most_max_pairs_and_the_same_ones_each_time(tmp_path):
    log = write_run(tmp_path / "run", sketch("w1,w2,w3,r4,r5,r6", "w1,r2"))
    made = []
    for flags in ([], [], ["--max_pairs", 2], ["--max_pairs", 99]):
        assert convert(tmp_path / "p.jsonl", "--filepath", log, "--overwrite", *flags) == 0
        made.append([in_short(pair)[1:] for pair in read(tmp_path / "p.jsonl")])
    four, again, two, every = made
    assert four == again == [("4", "1"), ("5", "2"), ("6", "3"), ("4", "2"), ("2", "1")]
    assert two == [("4", "1"), ("5", "2"), ("2", "1")]
    assert len(every) == len(set(every[:9])) + 1 == 10


def test_empty_repeated_and_unjudged_answers_make_no_pair(tmp_path):
    episode = sketch("t1,w2,r3,r3,-")[0]
    episode.turns[0].actions[1] = "  "
    episode.turns[0].actions[3] = " the answer is 3\n"
    log = write_run(tmp_path / "run", [episode])
    assert convert(tmp_path / "p.jsonl", "--filepath", log) == 0
    (pair,) = read(tmp_path / "p.jsonl")
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == (
        *("the answer is 3", "no idea"),
    )


def test_the_state_is_what_the_window_showed_and_without_a_pair_the_remedy_is_said(
    tmp_path, capsys
):
    # With a window of 1 both turns of an episode see the question alone: one state.
    log = write_run(tmp_path / "run", sketch("w7 r5"), context_window=1)
    assert convert(tmp_path / "p.jsonl", "--filepath", log) == 0
    assert [in_short(pair) for pair in read(tmp_path / "p.jsonl")] == [("0-0-1-1", "5", "7")]
    other = write_run(tmp_path / "all", sketch("w7 r5"))
    assert convert(tmp_path / "q.jsonl", "--filepath", other) == 1
    assert "sample more per turn, or pool" in capsys.readouterr().err
    assert not (tmp_path / "q.jsonl").exists()
