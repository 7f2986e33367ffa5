"""workflow_eval.py as a user runs it: the two published commands, the table, the causal check.

pytest tests/unit/test_workflow_eval.py
"""

import json
import pathlib

import pytest

from rise.episodes.journal import load_episodes
from tests.support.scripted_servers import Wire, wire_reply
from tests.support.stages import call, files_in

EVAL = "workflow_eval.py"
STUDENT = ("--model", "experts.py:student", "--log_dir", "log")


def evaluate(place, *arguments, **changes):
    return call(place, EVAL, *arguments, **changes)


def summary(path):
    return json.loads((path / "summary.json").read_text())


def test_turns_are_forced_and_the_summary_has_the_rates(place):
    done = evaluate(place, *STUDENT, "--max_turns", 3, "--context_window", 2)
    assert {len(episode.turns) for episode in load_episodes(place / "log")} == {3}
    metrics = summary(place / "log")["metrics"]
    assert metrics["m1@t1"]["value"] == pytest.approx(4 / 12) and metrics["m1@t1"]["n"] == 12
    # The window shows one attempt: the student is right at turn 1 where task_id % 3 is 0, at
    # turns 2 and 3 where it is 2.
    assert [rate["value"] for rate in metrics["acc@t"]] == pytest.approx([4 / 12] * 3)
    assert metrics["p1@t3"]["value"] == pytest.approx(8 / 12)
    assert set(metrics["m1@t3"]) == {"value", "low", "high", "n"}
    assert "m1@t3 - m1@t1" in done.stdout and "95 % interval" in done.stdout
    assert len(done.stdout.splitlines()) <= 11
    assert "--max_turns 1 --num_of_samples 3" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("first", ["turns", "samples"])
def test_both_published_evaluations_share_a_log_dir_in_any_order(place, first):
    commands = {
        "turns": ("--max_turns", 5, "--num_of_samples", 1, 1, 1, 1, 1, "--context_window", 2),
        "samples": ("--max_turns", 1, "--num_of_samples", 5),
    }
    second = "samples" if first == "turns" else "turns"
    evaluate(place, *STUDENT, *commands[first])
    done = evaluate(place, *STUDENT, *commands[second])
    assert all(name in done.stdout for name in ("m1@t1", "m5@t1", "m1@t5", "p1@t5"))
    subfolder = {"turns": "1_turns", "samples": "5_turns"}[first]
    sequential = place / "log" if first == "turns" else place / "log" / subfolder
    assert "m5@t1" in summary(sequential)["metrics"]
    for turns in (1, 5):
        log = json.loads((place / "log" / f"{turns}_turns.json").read_text())
        assert {len(e["turn_history"]["best_actions"]) for e in log.values()} == {turns}
    # Neither command starts anything again.
    before = {k: v for k, v in files_in(place).items() if k.endswith("rows.jsonl")}
    for command in commands.values():
        assert "nobody was asked" in evaluate(place, *STUDENT, *command).stdout
    assert {k: v for k, v in files_in(place).items() if k.endswith("rows.jsonl")} == before


def test_runs_of_different_models_are_not_mixed(place):
    evaluate(place, *STUDENT, "--max_turns", 2)
    other = ("--model", "experts.py:teacher", "--log_dir", "log")
    done = evaluate(place, *other, "--max_turns", 1, "--num_of_samples", 2)
    assert "m2@t1" not in summary(place / "log")["metrics"]
    differs = "there -> here: models: experts.py:student -> experts.py:teacher): give every"
    assert f"Warning: log is no part of this table ({differs}" in done.stdout
    assert "no part" not in evaluate(place, *STUDENT, "--max_turns", 2, "--log_dir", "b").stdout


def test_a_finished_run_is_not_shown_as_one_of_another_sampling(place):
    arguments = (*STUDENT, "--max_turns", 1)
    cool = (*arguments, "--temperature", 0.2, "--max_new_tokens", 50)
    assert "Next:" not in evaluate(place, *cool).stdout
    assert "nobody was asked" in evaluate(place, *cool).stdout
    refused = evaluate(place, *arguments, code=2).stderr
    assert "temperature: 0.2 -> 1.0" in refused and "max_new_tokens: 50 -> 1000" in refused


def test_causal_check_shows_another_problems_attempts_from_a_finished_run(place):
    (place / "experts.py").write_text(
        "def f(problem, messages):\n"
        "    seen = [m['content'].split(' saw')[0] for m in messages if m['role'] == 'assistant']\n"
        "    return f\"{problem['task_id']} at {len(seen)} saw [{seen[-1] if seen else ''}]\"\n"
    )
    model = ("--model", "experts.py:f", "--max_turns", 3)
    evaluate(place, *model, "--log_dir", "own")
    other = (*model, "--log_dir", "log", "--shown_attempts", "own")
    evaluate(place, *other)
    own = load_episodes(place / "own")
    for episode in load_episodes(place / "log"):
        assert episode.turns[0].actions == own[episode.task_id].turns[0].actions
        for t, turn in enumerate(episode.turns[:2]):
            assert turn.shown["task_id"] != episode.task_id
            assert turn.shown["action"] == own[turn.shown["task_id"]].turns[t].action
            assert f"saw [{turn.shown['task_id']} at {t}]" in episode.turns[t + 1].action
    (place / "own").rename(place / "moved")
    assert "nobody was asked" in evaluate(place, *other[:-1], "moved").stdout
    assert "shown_attempt" in evaluate(place, *other[:-2], code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data_path", "others.jsonl"], "other problems"),
        (["--max_turns", 9], "--max_turns 8 or more"),
        (["--shown_attempts", "nowhere"], "nowhere is no run"),
    ],
)
def test_attempts_that_cannot_be_shown_are_refused(place, arguments, message):
    (place / "others.jsonl").write_text('{"question": "1?", "answer": "#### 1"}\n' * 2)
    model = ("--model", "experts.py:student", "--max_turns", 3)
    evaluate(place, *model, "--log_dir", "own")
    words = (*model, "--log_dir", "log", "--shown_attempts", "own", *arguments)
    assert message in evaluate(place, *words, code=2).stderr
    assert not (place / "log").exists()


def test_a_resumed_evaluation_reads_its_rows_once_and_once_more_for_the_report(place, monkeypatch):
    arguments = ("--model", "experts.py:unwilling", "--log_dir", "log", "--max_turns", 2)
    evaluate(place, *arguments, code=1)
    (place / "willing").touch()
    opened = []

    def counting(open):
        def opening(file, mode="r", *more, **options):
            if str(file).endswith("rows.jsonl"):
                opened.append(mode)
            return open(file, mode, *more, **options)

        return opening

    monkeypatch.setattr("builtins.open", counting(open))
    monkeypatch.setattr("pathlib.Path.open", counting(pathlib.Path.open))
    for _ in range(2):
        evaluate(place, *arguments)
        assert opened == ["rb", "ab", "rb"]
        opened.clear()


def test_window_and_seeds_reach_the_worker(place):
    found = []
    with Wire(lambda body: wire_reply(*[f"\\boxed{{{body['seed'] % 5}}}"] * body["n"])) as wire:
        arguments = ("--model", "student", "--max_turns", 3, "--limit", 2)
        arguments += ("--dialogue_limit", 2, "--controller_address", wire.url)
        for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
            evaluate(place, *arguments, "--log_dir", folder, "--seed", seed)
            found.append(sorted((body["seed"], len(body["messages"])) for body in wire.requests))
            wire.requests.clear()
    first, again, other = found
    assert again == first and not {seed for seed, _ in other} & {seed for seed, _ in first}
    assert sorted(length for _, length in first) == [1, 1, 3, 3, 3, 3]
    assert load_episodes(place / "a") == load_episodes(place / "b")


@pytest.mark.parametrize("feedback", ["none", "oracle"])
def test_a_prompt_that_never_fits_counts_as_not_right_and_is_not_asked_again(place, feedback):
    def answer(body):
        texts = [message["content"] for message in body["messages"]]
        long = any("What is 3 + 1?" in text for text in texts) and len(texts) > 1
        if long or "What is 4 + 1?" in texts[0]:
            return {"text": "too long", "error_code": 40303}
        return wire_reply(*["\\boxed{4}" if "What is 3 + 1?" in texts[0] else "\\boxed{0}"])

    with Wire(answer) as wire:
        arguments = ("--model", "student", "--log_dir", "log", "--max_turns", 3, "--limit", 6)
        arguments += ("--controller_address", wire.url, "--feedback", feedback)
        done = evaluate(place, *arguments)
        asked = len(wire.requests)
        evaluate(place, *arguments)
        assert len(wire.requests) == asked
    ended = 2 if feedback == "none" else 1  # with the oracle problem 3 stops at its success
    assert f"{ended} of 6 episodes ended because" in done.stdout
    found = summary(place / "log")
    assert found["counts"] == {"problems": 6, "finished": 6, "owed": 0}
    assert (found["unanswered"], found["errors"]) == (ended, {"context_overflow": ended})
    rates = [found["metrics"][name] for name in ("m1@t1", "p1@t3")] + found["metrics"]["acc@t"]
    assert {rate["n"] for rate in rates} == {6}
    later = 0 if feedback == "none" else 1 / 6
    assert [rate["value"] for rate in rates[2:]] == pytest.approx([1 / 6, later, later])
    # Neither the log nor anything that reads the rows as data has the problem.
    answered = {0, 1, 2, 5} if feedback == "none" else {0, 1, 2, 3, 5}
    for log in ("log", "log/3_turns.json"):
        assert {episode.task_id for episode in load_episodes(place / log)} == answered


@pytest.mark.parametrize(
    ("script", "style"), [("workflow_eval.py", "default"), ("workflow_gen.py", "bare")]
)
def test_where_no_prompt_fits_an_error_stands_in_place_of_rates(place, script, style):
    said = "the prompt has 900 tokens and leaves no room for an answer in the context of 512"
    with Wire(lambda body: {"text": said, "error_code": 40303}) as wire:
        flag = "--model" if script == "workflow_eval.py" else "--models"
        arguments = (script, flag, "student", "--log_dir", "log", "--max_turns", 2)
        arguments += ("--prompt_style", style, "--controller_address", wire.url)
        for _ in range(2):
            done = call(place, *arguments, code=1)
            for part in (said, "With another --log_dir, use a model with a longer context"):
                assert part in done.stderr, done.stderr
            assert "%" not in done.stdout and "Next: " not in done.stdout, done.stdout
            assert ("--prompt_style bare" in done.stderr) == (style != "bare")
        assert len(wire.requests) == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--revise_if_wrong"], "needs --feedback self or critique"),
        (["--feedback", "self", "--max_turns", 1], "--feedback self needs --max_turns 2 or more"),
        (["--shown_attempts", "own", "--feedback", "self"], "needs --feedback none"),
        (["--shown_attempts", "own", "--feedback", "oracle"], "needs --feedback none"),
        (["--shown_attempts", "own", "--max_turns", 1], "--max_turns 2 or more"),
        (["--model", "nobody"], "nobody answers"),
        (["--num_of_samples", 1, 1], "--num_of_samples has 2 values for --max_turns 5"),
    ],
)
def test_bad_input_is_one_error_and_nothing_is_written(place, arguments, message):
    assert message in evaluate(place, *STUDENT, *arguments, code=2).stderr
    assert not (place / "log").exists()
