"""The parts of the rollout benchmark that need no server.

python -m pytest tests/unit/scripts/test_rollouts.py
"""

import time
from pathlib import Path

import psutil
import pytest
import rollouts
import stock_fschat

BENCHMARKS = Path(__file__).resolve().parents[3] / "scripts/benchmarks"


def test_ratios_are_taken_round_by_round(capsys):
    Timing = rollouts.Timing
    timings = []
    for tokens in (800, 1000):
        timings += [
            Timing(rollouts.STOCK, 100, server=1.0, client=1.0, wall=2.0),
            Timing(rollouts.OURS, tokens, server=1.0, client=0.25, wall=4.0),
        ]
    for name in {name for pair in rollouts.RATIOS.values() for name in pair[:2]}:
        if name not in (rollouts.STOCK, rollouts.OURS):
            timings.append(Timing(name, 500, server=1.0, client=0.0, wall=1.0))
            timings.append(Timing(name, 250, server=1.0, client=0.0, wall=1.0))
    rollouts.print_tables(timings, {"rounds": 2})
    lines = capsys.readouterr().out.splitlines()
    assert "| (c) / (a) | 9.00 (8.00 to 10.00) | 8 |" in lines
    assert "| (c) / (b) | 2.80 (1.60 to 4.00) | 1.7 |" in lines
    assert (
        f"| {rollouts.OURS} | 900 | 900 (800 to 1000) | 720 (640 to 800) | 225 (200 to 250) |"
    ) in lines


def test_the_time_of_servers_and_of_this_process_are_told_apart():
    def burn():
        end = time.process_time() + 0.1
        while time.process_time() < end:
            pass
        return 7

    here = rollouts.timed("here", [], burn)
    served = rollouts.timed("served", [psutil.Process()], burn)
    assert here.tokens == served.tokens == 7
    assert here.server >= 0.08 and here.client == 0.0
    assert served.server >= 0.08 and served.client >= 0.08


@pytest.mark.parametrize("words", [["--rounds", "0"], ["--data_path", "missing.jsonl"]])
def test_wrong_arguments_are_refused(words):
    with pytest.raises(SystemExit) as caught:
        rollouts.main(words)
    assert caught.value.code == 2


def test_too_few_problems_are_refused(tmp_path):
    path = tmp_path / "few.jsonl"
    path.write_text('{"question": "1+1?", "answer": "#### 2"}\n')
    with pytest.raises(ValueError, match="has 1 problems, 2 are needed"):
        rollouts.write_problems(2, path, tmp_path)
    problems, source = rollouts.write_problems(3, None, tmp_path)
    assert len(problems.read_text().splitlines()) == 3 and source


def test_the_stock_worker_is_run_by_the_helper_itself():
    python = Path("env/bin/python")
    worker = stock_fschat.command(python, "model_worker", "--port", "1")
    assert worker == [str(python), str(BENCHMARKS / "stock_fschat.py"), "worker", "--port", "1"]
    assert stock_fschat.command(python, "controller")[1:] == ["-m", "fastchat.serve.controller"]
    assert "PYTHONPATH" not in stock_fschat.environment(Path("logs"))
