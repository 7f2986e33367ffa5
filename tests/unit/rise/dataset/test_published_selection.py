"""The published converter's selection and weights, worked by hand from its rules.

python -m pytest tests/unit/rise/dataset/test_published_selection.py

The rules: `all` keeps every turn; `better` r_i > r_{i-1}; `best` what is not below any earlier
turn, ties kept; `success` r = 1. Turn 1 is kept whatever its reward, except under `success`.
Conversion stops after the first success. `--only_success` drops unsolved episodes,
`--remove_duplication` repeated and empty actions. Of several samples the best, first among ties,
goes on and is trained.
The weight is exp(r / 0.4): right 12.18, wrong 1, no answer 0.082.
"""

import json
import math

import pytest

from tests.support.conversion import convert

WEIGHTS = {1: math.exp(2.5), 0: 1.0, -1: math.exp(-2.5)}

# Per turn its samples as action:reward; of several the best, first among ties, is marked.
LOGS = {
    "ups and downs": "a:0 b:-1 c:0 d:1 e:0",
    "a tie before the success": "a:0 b:0 c:1",
    "never right": "a:-1 b:0 c:-1 d:0",
    "falls and comes back": "a:0 b:-1 c:-1 d:0",
    "no answer at all": "a:-1 b:-1",
    "right at once": "a:1 b:0",
    "right twice": "a:0 b:1 c:1",
    "samples with a tie at the top": "a:-1 b:0,*c:1,d:1",
    "samples, none right": "a:0 b:-1,*c:0,d:0",
    "samples, all without answer": "*a:-1,b:-1 *c:-1,d:-1",
    "repeated": "a:0 a:0 b:1",
    "repeated later": "a:0 b:-1 a:0 c:1",
    "repeated and never right": "a:0 a:0",
    "empty second": "a:0 _:-1 c:1",
    "empty first": "_:-1 b:0 c:1",
}

DUPLICATES = ["--remove_duplication"]
SOLVED = ["--only_success"]
CASES = [
    # log, flags, all, better, best, success
    ("ups and downs", [], "abcd", "acd", "acd", "d"),
    ("a tie before the success", [], "abc", "ac", "abc", "c"),
    ("never right", [], "abcd", "abd", "abd", ""),
    ("falls and comes back", [], "abcd", "ad", "ad", ""),
    ("no answer at all", [], "ab", "a", "ab", ""),
    ("right at once", [], "a", "a", "a", "a"),
    ("right twice", [], "ab", "ab", "ab", "b"),
    ("samples with a tie at the top", [], "ac", "ac", "ac", "c"),
    ("samples, none right", [], "ac", "a", "ac", ""),
    ("samples, all without answer", [], "ac", "a", "ac", ""),
    ("ups and downs", SOLVED, "abcd", "acd", "acd", "d"),
    ("never right", SOLVED, "", "", "", ""),
    ("samples, none right", SOLVED, "", "", "", ""),
    ("repeated", [], "aab", "ab", "aab", "b"),
    ("repeated", DUPLICATES, "ab", "ab", "ab", "b"),
    ("repeated later", [], "abac", "aac", "aac", "c"),
    ("repeated later", DUPLICATES, "abc", "ac", "ac", "c"),
    ("repeated and never right", DUPLICATES, "a", "a", "a", ""),
    ("repeated and never right", DUPLICATES + SOLVED, "", "", "", ""),
    ("empty second", DUPLICATES, "ac", "ac", "ac", "c"),
    ("empty first", DUPLICATES, "bc", "bc", "bc", "c"),
]


def published_record(text: str) -> dict:
    """An episode as the published code logs it."""
    turns = []
    for word in text.split():
        samples = [sample.removeprefix("*").split(":") for sample in word.split(",")]
        best = next((i for i, s in enumerate(word.split(",")) if s.startswith("*")), 0)
        actions = [action.replace("_", "") for action, _ in samples]
        turns.append((actions, [float(reward) for _, reward in samples], best))
    dialogue = [{"role": "user", "content": "How many?"}]
    for actions, _, best in turns[:-1]:
        dialogue.append({"role": "agent", "content": actions[best]})
        dialogue.append({"role": "user", "content": "no"})
    return {
        "task_id": 0,
        "query": "How many?",
        "answer": "5",
        "max_reward": max(rewards[best] for _, rewards, best in turns),
        "turn_history": {
            "best_actions": [actions[best] for actions, _, best in turns],
            "best_observations": ["no" for _ in turns],
            "best_rewards": [rewards[best] for _, rewards, best in turns],
            "actions": {str(t): actions for t, (actions, _, _) in enumerate(turns)},
            "observations": {str(t): ["no"] * len(a) for t, (a, _, _) in enumerate(turns)},
            "rewards": {str(t): rewards for t, (_, rewards, _) in enumerate(turns)},
        },
        "dialogue": dialogue,
    }


def reward_of(action: str, text: str) -> int:
    samples = [sample.removeprefix("*") for word in text.split() for sample in word.split(",")]
    return next(int(s.split(":")[1]) for s in samples if s.startswith(f"{action}:"))


@pytest.mark.parametrize(("name", "flags", "every", "better", "best", "success"), CASES)
def test_selected_actions_and_their_weights(name, flags, every, better, best, success, tmp_path):
    log, output = tmp_path / "2_turns.json", tmp_path / "data.json"
    log.write_text(json.dumps({"0": published_record(LOGS[name])}))
    expected = {"all": every, "better": better, "best": best, "success": success}
    for criteria, actions in expected.items():
        arguments = ["--filepath", log, "--output", output, "--criteria", criteria, "--overwrite"]
        output.unlink(missing_ok=True)
        assert convert(*arguments, *flags) == (0 if actions else 1)
        rows = json.loads(output.read_text()) if actions else []
        answers = [row["conversations"][-1] for row in rows]
        assert "".join(answer["value"] for answer in answers) == actions, criteria
        weights = [WEIGHTS[reward_of(action, LOGS[name])] for action in actions]
        assert [answer["loss"] for answer in answers] == pytest.approx(weights)
