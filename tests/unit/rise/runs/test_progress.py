"""The progress line: plain lines where there is no terminal, and how it estimates.

pytest tests/unit/rise/runs/test_progress.py
"""

import io
import re
import sys
from unittest.mock import Mock

import pytest

from rise.episodes.episode import Episode
from rise.episodes.shorthand import sketch
from rise.policies.policy import Retries
from rise.runs import progress
from rise.runs.progress import Progress
from rise.runs.tally import Tally


@pytest.fixture
def clock(monkeypatch):
    """The time of rise.runs.progress, set by the test."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def played(*histories):
    episodes = sketch(*histories)
    for episode in episodes:
        for turn in episode.turns:
            turn.usage = {"prompt_tokens": 10, "completion_tokens": 30}
            turn.model = "m"
    return episodes


def test_a_file_gets_a_plain_line_soon_every_half_minute_and_at_the_end(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    tally, tracker = Tally(1, cumulative=True), Mock()
    with Progress(tally, 100, tracker) as shown:
        for episode in played(*["r5", "w7"] * 10):
            clock[0] += 4.0
            shown.report(episode)
    lines = sys.stderr.getvalue().splitlines()
    assert "\r" not in sys.stderr.getvalue() and len(lines) == 4
    assert [line.split()[0] for line in lines] == ["1", "9", "17", "20"]
    # 20 episodes of 30 tokens in 80 s; 80 episodes are left.
    assert lines[3] == ("20 of 100 episodes, solved by turn 1: 50.0 %, 8 tokens/s, 0:05:20 left")
    tracked = tracker.log.call_args.args[0]
    assert tracked["eta_seconds"] == pytest.approx(320)
    assert tracked["tokens_per_second"] == pytest.approx(7.5)


def test_earlier_calls_count_as_done_and_not_for_the_rate(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    tally = Tally(2, cumulative=False, prices={"m": [1e6, 1e6]})
    for episode in played(*["w7 r5"] * 6):
        tally.add(episode)
    with Progress(tally, 10, Mock()) as shown:
        assert "left" not in shown.line()
        clock[0] += 30.0
        shown.report(played("r5 w7")[0])
        shown.report(Episode(8, "q", "a", error={"kind": "server", "message": "", "turn": 1}))
        assert shown.line() == (
            "7 of 10 episodes, right at turn 1 to 2: 14.3 85.7 %, 1 failed, 2 tokens/s, "
            "560.00 USD, 0:01:30 left"
        )


def test_before_an_answer_ends_the_workers_say_how_much_they_draw(clock):
    shown = Progress(Tally(1, cumulative=True), 5, Mock())
    for seconds, counts in ((1, {"a": 7_000}), (3, {"a": 7_600, "b": 90}), (3, {"a": 8_200})):
        clock[0] += seconds
        for worker, count in counts.items():
            shown.count(worker, count)
    # What a worker has drawn for others before is not counted.
    assert shown.line() == "0 of 5 episodes, 200 tokens/s at the workers"


def test_it_says_who_is_waited_for(clock):
    policy, other = Mock(retries=Retries(patience=600)), Mock(retries=None)
    policy.name = "m"
    shown = Progress(Tally(1, cumulative=True), 5, Mock())
    shown.policies = [policy, policy, other]
    policy.retries.gone_since = clock[0]
    for seconds, said in ((1, ""), (40, ", m is gone and waited for, 0:09:20 at most"), (600, "")):
        assert shown.line() == "0 of 5 episodes"
        policy.retries.gone_since = clock[0] - seconds
        assert shown.line() == f"0 of 5 episodes{said}"
        policy.retries.gone_since = None


def test_a_terminal_gets_one_line_that_is_redrawn(clock, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress(Tally(1, cumulative=True), 4, Mock()) as shown:
        for episode in played("r5", "w7", "r5"):
            clock[0] += 1.0
            shown.report(episode)
    last = re.split(r"[\r\n]+", sys.stderr.getvalue().strip())[-1]
    assert " 75%" in last and "3 of 4 episodes, solved by turn 1: 66.7 %" in last
    assert sys.stderr.getvalue().count("\n") == 1


def test_the_first_line_comes_before_an_answer_and_counts_requests(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Progress(Tally(1, cumulative=True), 300, Mock()) as shown:
        asked = [shown.watch() for _ in range(64)]
        for one in asked:
            one.__enter__()
        for _ in range(5):
            clock[0] += 1.0
            shown.show()
        line = "0 of 300 episodes, 0 requests answered, 64 in flight"
        assert sys.stderr.getvalue() == f"{line}\n"
        # One of the first 64 is answered after 30 s: 299 are left, 64 at a time.
        clock[0] += 25.0
        asked[0].__exit__(None, None, None)
        asked.append(shown.watch())
        asked[-1].__enter__()
        shown.report(played("r5")[0])
        assert shown.numbers()["eta_seconds"] == pytest.approx(299 * 30 / 64)
        # Those in flight take longer than the first: so does what is left.
        clock[0] += 30.0
        assert shown.numbers()["eta_seconds"] == pytest.approx(299 * 59.53 / 64, rel=0.01)
