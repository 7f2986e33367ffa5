"""summary.json of a run that takes several calls.

pytest tests/unit/test_summary.py
"""

import json

import pytest

from tests.support.scripted_servers import OpenAI, chat_reply
from tests.support.stages import call

MODEL = ("--max_turns", 1, "--models", "experts.py:unwilling", "--log_dir", "run")
"""Answers half of the problems until the file `willing` is there."""


def gen(place, *arguments):
    return call(place, "workflow_gen.py", *MODEL, *arguments)


def test_kill_between_the_last_row_and_the_summary_leaves_no_old_summary(place):
    summary = place / "run" / "summary.json"
    assert gen(place).returncode == 1
    of_half = summary.read_bytes()
    (place / "willing").touch()
    assert gen(place).returncode == 0
    of_all = json.loads(summary.read_text())
    # What the kill would have left: every row, and the summary of the call before.
    summary.write_bytes(of_half)
    again = gen(place)
    assert again.returncode == 0 and "nobody was asked" in again.stdout
    found = json.loads(summary.read_text())
    assert found["counts"] == {"problems": 12, "finished": 12, "owed": 0}
    assert found["success_by_turn"] == of_all["success_by_turn"]
    assert found["config"]["kinds"] == ["function"]
    # Half a summary is none.
    summary.write_bytes(of_half[:50])
    assert gen(place).returncode == 0
    assert json.loads(summary.read_text())["counts"]["owed"] == 0


def test_wall_time_is_that_of_all_calls(place):
    wall = place / "run" / "summary.json"

    def seconds():
        return json.loads(wall.read_text())["wall_s"]

    assert gen(place).returncode == 1
    changed = json.loads(wall.read_text()) | {"wall_s": 1000.0}
    wall.write_text(json.dumps(changed))
    assert gen(place).returncode == 1
    assert 1000 <= seconds() < 1100
    (place / "willing").touch()
    assert gen(place).returncode == 0
    assert 1000 <= seconds() < 1100
    before = seconds()
    gen(place)
    assert seconds() == before


def test_the_price_of_a_finished_run_may_be_said_later(place):
    (place / "willing").touch()
    assert gen(place).returncode == 0
    assert "cost:" not in gen(place).stdout
    with OpenAI(lambda _: chat_reply("\\boxed{1}")) as server:
        model = f"teacher@{server.url}/v1"
        run = ("--max_turns", 1, "--models", model, "--log_dir", "paid")

        def paid(*arguments):
            return call(place, "workflow_gen.py", *run, *arguments)

        assert paid().returncode == 0
        asked = len(server.requests)
        said = paid("--price", f"{model}=1000,2000")
        assert said.returncode == 0 and "cost: 0.1560 USD" in said.stdout
        found = json.loads((place / "paid" / "summary.json").read_text())
        assert found["cost_usd"] == pytest.approx(0.156) and found["wall_s"] > 0
        assert found["config"]["prices"] == {model: [1000, 2000]}
        # They are kept by a call that names none, and one for nobody is refused.
        assert "cost: 0.1560 USD" in paid().stdout
        refused = paid("--price", "gpt-4=1,2")
        assert refused.returncode == 2 and "--price names 'gpt-4'" in refused.stderr
        assert len(server.requests) == asked
