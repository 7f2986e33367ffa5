"""Problems that a server or an expert function refuses for good: some answers, or all of them.

pytest tests/test_giving_up.py
"""

import json

import pytest

from tests.rise.servers import OpenAI, chat_reply
from tests.stages import call, write_inputs


@pytest.fixture
def place(tmp_path):
    write_inputs(tmp_path, problems=6)
    return tmp_path


def summary(place):
    return json.loads((place / "log" / "summary.json").read_text())


def test_a_filtered_sample_is_not_right_has_no_vote_and_leaves_the_other_samples(place):
    def answer(body):
        reply = chat_reply(*["\\boxed{4}"] * 3)
        if "What is 3 + 1?" in body["messages"][0]["content"]:
            for choice in reply["choices"][:2]:
                choice["finish_reason"] = "content_filter"
        return reply

    with OpenAI(answer) as server:
        model = f"teacher@{server.url}/v1"
        arguments = ("--max_turns", 1, "--num_of_samples", 3, "--model", model)
        done = call(place, "workflow_eval.py", *arguments, "--log_dir", "log")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = map(json.loads, (place / "log" / "rows.jsonl").read_text().splitlines())
    sizes = {row["task_id"]: len(row["turn_history"]["actions"]["0"]) for row in rows}
    assert sizes == {0: 3, 1: 3, 2: 3, 3: 1, 4: 3, 5: 3}
    metrics = summary(place)["metrics"]
    assert metrics["m3@t1"]["n"] == 6 and metrics["m3@t1"]["value"] == 1 / 6
    assert metrics["pass@k"]["1"]["value"] == pytest.approx(1 / 3 / 6)
