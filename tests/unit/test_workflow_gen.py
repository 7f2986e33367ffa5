"""workflow_gen.py as a user runs it: results, resume, errors, bad input.

pytest tests/unit/test_workflow_gen.py
"""

import json
import subprocess
import sys

import pytest
from aiohttp import web

from rise.episodes.journal import load_episodes
from tests.support.scripted_servers import OpenAI, Wire, chat_reply, wire_reply
from tests.support.stages import ROOT, call, files_in, write_inputs

GEN = "workflow_gen.py"
TWO = ("--max_turns", 2, "--models", "experts.py:student", "experts.py:teacher")
RUN = (*TWO, "--log_dir", "run")


def gen(place, *arguments, **changes):
    return call(place, GEN, *arguments, **changes)


def test_run_writes_its_files_and_says_what_is_next(place):
    done = gen(place, *RUN)
    episodes = load_episodes(place / "run")
    assert [episode.task_id for episode in episodes] == list(range(12))
    assert [len(episode.turns) for episode in episodes] == [1, 2, 2] * 4
    assert load_episodes(place / "run" / "2_turns.json") == episodes
    summary = json.loads((place / "run" / "summary.json").read_text())
    assert [rate["value"] for rate in summary["success_by_turn"]] == [4 / 12, 1.0]
    assert summary["verdicts"] == [{"right": 4, "no_answer": 2, "wrong": 6}, {"right": 8}]
    assert summary["counts"] == {"problems": 12, "finished": 12, "owed": 0}
    assert summary["usage"]["experts.py:teacher"]["requests"] == 8
    assert summary["config"]["kinds"] == ["function", "function"]
    assert summary["config"]["temperature"] == [1.0, 1.0]
    assert "workflow_convert.py --filepath run/2_turns.json" in done.stdout.splitlines()[-1]


def test_turns_that_nobody_needs_are_said(place):
    arguments = ("--models", "experts.py:teacher", "--log_dir", "a", "--limit", 8)
    done = gen(place, "--max_turns", 2, *arguments)
    assert "turn 2: no episode reached it" in done.stdout.splitlines()
    assert len(load_episodes(place / "a")) == 8


def test_answers_without_a_box_come_with_the_warning_of_evaluation(place):
    (place / "experts.py").write_text("def f(problem, messages): return 'so it is 1'")
    for _ in range(2):
        done = gen(place, "--max_turns", 1, "--models", "experts.py:f", "--log_dir", "run")
        assert "Warning: 100 % of the attempts of turn 1 have no answer: 100 %" in done.stdout
        assert "the last number is right in 8 %. The model does not know" in done.stdout


def test_more_problems_go_on_with_the_run_and_fewer_are_refused(place):
    gen(place, *RUN, "--limit", 5)
    first = (place / "run" / "rows.jsonl").read_bytes()
    gen(place, *RUN)
    gen(place, *TWO, "--log_dir", "whole")
    assert (place / "run" / "rows.jsonl").read_bytes().startswith(first)
    assert load_episodes(place / "run") == load_episodes(place / "whole")
    assert json.loads((place / "run" / "summary.json").read_text())["counts"]["problems"] == 12
    fewer = gen(place, *RUN, "--limit", 5, code=2)
    assert "(problems: 12 -> 5)" in fewer.stderr
    assert "with --limit 12 or more it goes on" in fewer.stderr


def test_correct_to_correct_and_best_of_n_are_recorded(place):
    gen(place, *RUN, "--correct_to_correct", "--num_of_samples", 1, 3)
    episodes = load_episodes(place / "run")
    assert [len(episode.turns) for episode in episodes] == [2] * 12
    assert {len(episode.turns[1].actions) for episode in episodes} == {3}
    assert json.loads((place / "run" / "config.json").read_text())["correct_to_correct"] is True


def test_failed_requests_are_error_rows_and_exit_code_1(place):
    model = ("--max_turns", 1, "--models", "experts.py:unwilling", "--log_dir", "run")
    failed = gen(place, *model, code=1)
    assert "6 of 12 episodes are in run, failed: function 6" in failed.stdout
    assert "The same command tries again" in failed.stdout
    rows = [json.loads(line) for line in (place / "run" / "rows.jsonl").read_text().splitlines()]
    errors = [row["error"] for row in rows if "error" in row]
    assert len(errors) == 6 and {error["kind"] for error in errors} == {"function"}
    assert all(row["turn_history"]["actions"] == {} for row in rows if "error" in row)
    (place / "willing").touch()
    gen(place, *model)
    assert len(load_episodes(place / "run")) == 12


def test_a_finished_run_says_so_and_another_configuration_or_other_problems_are_refused(place):
    gen(place, *RUN)
    before = files_in(place / "run")
    other = gen(place, *RUN, "--seed", 4, "--temperature", 0.5, code=2)
    assert "seed: 0 -> 4" in other.stderr and "temperature" in other.stderr
    assert files_in(place / "run") == before
    again = gen(place, *RUN, "--concurrency", 3, "--verbose")
    assert "All 12 episodes are in run" in again.stdout
    assert files_in(place / "run") | {"config.json": before["config.json"]} == before
    (place / "moved.jsonl").write_bytes((place / "problems.jsonl").read_bytes())
    gen(place, *RUN, "--data_path", "moved.jsonl")
    write_inputs(place, problems=13)
    assert "data_sha256" in gen(place, *RUN, code=2).stderr


def test_dry_run_shows_the_plan_and_writes_nothing(place):
    for flag in ("--dry-run", "--dry_run"):
        shown = gen(place, *RUN, flag, "--limit", 5, "--num_of_samples", 1, 16)
        assert "What is 0 + 1?" in shown.stdout and '"max_turns": 2' in shown.stdout
        assert "5 of 5 episodes are owed." in shown.stdout
        assert "experts.py:teacher: 80 answers" in shown.stdout
        assert not (place / "run").exists()


@pytest.mark.parametrize("stage", ["gen", "convert", "eval"])
def test_a_python_without_the_packages_is_told_of_the_environment(stage):
    command = [sys.executable, "-S", "-E", str(ROOT / f"workflow_{stage}.py")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "has no fastchat: source .venv/bin/activate (bash scripts/setup.sh" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["--data_path", "missing.jsonl"], ["missing.jsonl is not a file"]),
        (["--data_path", "problem.jsonl"], ["not a file (did you mean problems.jsonl?)"]),
        (["--data_path", "torn.jsonl"], ["line 2"]),
        (["--num_of_samples", 1, 1, 1], ["--num_of_samples has 3 values for --max_turns 2"]),
        (["--temperature", 1, 1, 1], ["--temperature has 3 values"]),
        (["--temperature", "nan"], ["--temperature is [nan]: give numbers, 0 or more"]),
        (["--temperature", 1, "inf"], ["--temperature is [1.0, inf]: give numbers, 0 or more"]),
        (["--request_timeout", "nan"], ["--request_timeout is nan s: give more than 0"]),
        (["--models", "experts.py:student", "a", "b"], ["--models has 3 values"]),
        (["--models", "nobody"], ["nobody answers to the model 'nobody'", "fastchat.serve"]),
        (["--models", "gpt-3.5-turbo"], ["no key: set OPENAI_API_KEY"]),
        (["--models", "experts.py:nothing"], ["no function nothing"]),
        (["--context_window", 0], ["--context_window is 0"]),
        (["--worker_args", "--a 'b"], ['--worker_args: "--a \'b" has no closing quotation']),
        (["--top_p", 0], ["--top_p is 0.0"]),
        (["--controller_address", "some where"], ["--controller_address is 'some where'"]),
        (["--max_turns", 1, "--models", "experts.py:student", "--correct_to_correct"], ["needs"]),
        (["--feedback", "none", "--correct_to_correct"], ["needs --feedback oracle"]),
        (
            ["--max_turns", 1, "--models", "experts.py:student", "--expert_sees", "none"],
            ["--expert_sees none needs --max_turns 2 or more"],
        ),
        (["--prompt_style", "missing.json"], ["missing.json"]),
        (["--log_dir", "problems.jsonl/log"], ["problems.jsonl"]),
        (
            ["--max_turns", 0, "--limit", 0, "--concurrency", 0, "--models", "nobody"],
            ["--max_turns is 0", "--limit is 0", "--concurrency is 0", "nobody answers"],
        ),
    ],
)
def test_bad_input_is_one_error_and_nothing_is_written(place, arguments, messages):
    (place / "torn.jsonl").write_text('{"question": "1+1?", "answer": "#### 2"}\n{"question": "1+')
    before = files_in(place)
    refused = gen(place, *RUN, *arguments, code=2)
    assert all(message in refused.stderr for message in messages), refused.stderr
    assert "Traceback" not in refused.stderr and refused.stderr.count("error:") == 1
    assert "ClientConnector" not in refused.stderr and refused.stderr.count("max_turns is 0") < 2
    assert files_in(place) == before


def test_what_a_worker_would_refuse_is_found_before_anything_is_written(place):
    (place / "model").mkdir()
    (place / "model" / "config.json").write_text("{}")
    words = ("--max_turns", 1, "--models", "model", "--log_dir", "run")
    assert "error: model holds no model.safetensors" in gen(place, *words, code=2).stderr
    (place / "model" / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    wrong = gen(place, *words, "--worker_args", "--dtyp float32", "--check", code=2)
    said = "error: --worker_args: unrecognized arguments: --dtyp float32: did you mean --dtype?\n"
    assert wrong.stderr.endswith(said)
    gen(place, *words, "--worker_args", "--dtype float32", "--check")
    assert not (place / "run").exists()


def test_workers_answer_and_their_errors_never_become_texts(place):
    def answer(body):
        if "What is 3 + 1?" in body["messages"][-1]["content"]:
            return {"text": "**NETWORK ERROR** \\boxed{4}", "error_code": 40001}
        return wire_reply(*["It is \\boxed{0}"] * body["n"])

    with Wire(answer) as wire:
        arguments = ("--max_turns", 1, "--num_of_samples", 2, "--models", "student")
        arguments += ("--log_dir", "run", "--controller_address", wire.url)
        assert "11 of 12 episodes" in gen(place, *arguments, code=1).stdout
    assert len(wire.requests) == 12 and {body["n"] for body in wire.requests} == {2}
    rows = (place / "run" / "rows.jsonl").read_text().splitlines()
    [error] = [json.loads(row) for row in rows if '"error"' in row]
    assert error["error"]["kind"] == "bad_request" and error["turn_history"]["best_actions"] == []


def test_a_served_name_is_no_path_even_where_a_folder_is_called_so(place):
    (place / "student").mkdir()
    (place / "student" / "__init__.py").write_text("")
    words = ("--max_turns", 1, "--models", "student", "--log_dir", "run")
    with Wire(lambda _: wire_reply("It is \\boxed{0}")) as wire:
        done = gen(place, *words, "--controller_address", wire.url)
    assert "Next: " in done.stdout and "--model_path" not in done.stdout
    config = json.loads((place / "run" / "config.json").read_text())
    assert config["fingerprints"] == [None] and config["kinds"] == ["worker"]
    # As earlier versions recorded it.
    config["fingerprints"] = ["e3b0c44298fc1c14"]
    (place / "run" / "config.json").write_text(json.dumps(config))
    assert "nobody was asked" in gen(place, *words).stdout


@pytest.mark.parametrize(
    ("status", "said", "remedy"),
    [
        (404, "Not Found", "check the URL"),
        (402, "Insufficient credits", "fill the account"),
        (403, "no access", "its key is read from RISE_SERVER_KEY"),
        (400, "temperature must be in (1, 2)", "give another value"),
    ],
)
def test_what_every_request_would_meet_ends_the_run_at_once_with_everything_owed(
    place, status, said, remedy
):
    write_inputs(place, problems=300)
    refusal = {"error": {"message": said}}
    with OpenAI(lambda _: web.json_response(refusal, status=status)) as server:
        model = ("--max_turns", 1, "--models", f"teacher@{server.url}/v1", "--log_dir", "run")
        model += ("--temperature", 0.7, "--concurrency", 8)
        for _ in range(4):
            done = gen(place, *model, code=1)
            assert "0 of 300 episodes are in run" in done.stdout
    [line] = [line for line in done.stdout.splitlines() if said in line]
    assert remedy in line and "Stopped at once" in done.stdout and "refused" not in done.stdout
    assert len(server.requests) <= 32


def test_what_a_server_refuses_and_reasons_is_recorded_and_known_when_the_run_goes_on(
    place, caplog
):
    def answer(body):
        if "seed" in body:
            return web.json_response({"detail": "seed is unsupported"}, status=422)
        if not body.get("stream"):
            return web.json_response({"detail": "Stream must be set to true"}, status=400)
        if "What is 3 + 1?" in str(body) and not (place / "up").exists():
            return web.Response(status=418)
        reply = chat_reply("so \\boxed{1}\0")
        reply["choices"][0]["message"]["reasoning_content"] = "hm"
        return reply | {"usage": {"prompt_tokens": float("nan")}}

    with OpenAI(answer) as server:
        model = ("--max_turns", 1, "--models", f"teacher@{server.url}/v1", "--log_dir", "run")
        gen(place, *model, code=1)
        assert caplog.text.count("does not take seed") == 1
        config = json.loads((place / "run" / "config.json").read_text())
        assert list(config["left_out"].values()) == [["seed", "stream=false"]]
        (place / "up").touch()
        before = len(server.requests)
        gen(place, *model)
        assert len(server.requests) == before + 1
    turns = [episode.turns[0] for episode in load_episodes(place / "run")]
    assert {(turn.action, turn.reasoning[0]) for turn in turns} == {("so \\boxed{1}\ufffd", "hm")}
    assert "hm" not in str([episode.dialogue for episode in load_episodes(place / "run")])
    summary = json.loads((place / "run" / "summary.json").read_text(), parse_constant=pytest.fail)
    [usage] = summary["usage"].values()
    assert usage["uncounted_requests"] == usage["replaced_characters"] == usage["requests"] == 12


def half(place, code=0):
    """Half of the problems are answered until the file `willing` is there."""
    model = ("--max_turns", 1, "--models", "experts.py:unwilling", "--log_dir", "run")
    return gen(place, *model, code=code).stdout


def test_kill_between_the_last_row_and_the_summary_leaves_no_old_summary(place):
    summary = place / "run" / "summary.json"
    half(place, code=1)
    of_half = summary.read_bytes()
    (place / "willing").touch()
    half(place)
    of_all = json.loads(summary.read_text())
    # What the kill would have left: every row, and the summary of the call before.
    summary.write_bytes(of_half)
    assert "nobody was asked" in half(place)
    found = json.loads(summary.read_text())
    assert found["counts"] == {"problems": 12, "finished": 12, "owed": 0}
    assert found["success_by_turn"] == of_all["success_by_turn"]
    assert found["config"]["kinds"] == ["function"]
    # Half a summary is none.
    summary.write_bytes(of_half[:50])
    half(place)
    assert json.loads(summary.read_text())["counts"]["owed"] == 0


def test_wall_time_is_that_of_all_calls(place):
    wall = place / "run" / "summary.json"

    def seconds():
        return json.loads(wall.read_text())["wall_s"]

    half(place, code=1)
    changed = json.loads(wall.read_text()) | {"wall_s": 1000.0}
    wall.write_text(json.dumps(changed))
    half(place, code=1)
    assert 1000 <= seconds() < 1100
    (place / "willing").touch()
    half(place)
    assert 1000 <= seconds() < 1100
    before = seconds()
    half(place)
    assert seconds() == before


def test_the_price_of_a_finished_run_may_be_said_later(place):
    (place / "willing").touch()
    half(place)
    assert "cost:" not in half(place)
    with OpenAI(lambda _: chat_reply("\\boxed{1}")) as server:
        model = f"teacher@{server.url}/v1"
        run = ("--max_turns", 1, "--models", model, "--log_dir", "paid")

        def paid(*arguments, code=0):
            return call(place, "workflow_gen.py", *run, *arguments, code=code)

        paid()
        asked = len(server.requests)
        assert "cost: 0.1560 USD" in paid("--price", f"{model}=1000,2000").stdout
        found = json.loads((place / "paid" / "summary.json").read_text())
        assert found["cost_usd"] == pytest.approx(0.156) and found["wall_s"] > 0
        assert found["config"]["prices"] == {model: [1000, 2000]}
        # They are kept by a call that names none, and one for nobody is refused.
        assert "cost: 0.1560 USD" in paid().stdout
        assert "--price names 'gpt-4'" in paid("--price", "gpt-4=1,2", code=2).stderr
        assert len(server.requests) == asked
