r"""The grading processes: verdicts in company of bombs, and an end in every case.

python -m pytest tests/unit/envs/grading/test_checker.py
"""

import asyncio
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from envs.grading import checker
from envs.grading.questions import Question

SURD = Question((r"\sqrt{8}",), (r"2\sqrt{2}",))
OTHER_SURD = Question((r"\sqrt{12}",), (r"2\sqrt{2}",))
BOMB = Question((r"(a+b+c+d+e)^{300}",), (r"(a+b)^{299}",))


def test_verdicts_and_members():
    assert checker.check(SURD) == "right"
    assert checker.check(OTHER_SURD) == "wrong"
    pair = (r"\sqrt{8}", r"\sqrt{12}")
    turned = (r"2\sqrt{3}", r"2\sqrt{2}")
    assert checker.check(Question(pair, turned, ordered=False)) == "right"
    assert checker.check(Question(pair, turned, ordered=True)) == "wrong"
    assert checker.check(Question((r"\frac{", "\ud800"), ("1", "2"))) == "wrong"


def test_good_answers_among_bombs_get_their_verdict_while_the_loop_ticks():
    good = [Question((rf"\sqrt{{{8 * k * k}}}",), (rf"{2 * k}\sqrt{{2}}",)) for k in range(2, 22)]
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    async def grade_all() -> list[str]:
        ticking = asyncio.create_task(tick())
        verdicts = await asyncio.gather(*map(checker.check_async, [BOMB] * 3 + good))
        ticking.cancel()
        return verdicts

    assert asyncio.run(grade_all()) == ["timeout"] * 3 + ["right"] * 20
    assert ticks > 20


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_towers_and_factorials_stay_within_250_megabytes():
    texts = [r"9^{9^{9^{9}}}+\sqrt{2}", r"3000000!+\pi", r"(x+1)^{10000}", r"10^{10^{9}}x"]
    texts.append("(" * 400 + "x" + ")" * 400)

    async def grade_all() -> list[str]:
        questions = [Question((text,), ("x^2",)) for text in texts]
        return await asyncio.gather(*map(checker.check_async, [BOMB, *questions, SURD]))

    verdicts = asyncio.run(grade_all())
    assert verdicts[-1] == "right" and not {*verdicts[:-1]} - {"timeout", "wrong"}
    limits = []
    for worker in checker._running.workers:
        pid = worker.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for one in [pid, *children]:
            peak = Path(f"/proc/{one}/status").read_text().partition("VmHWM:")[2].split()[0]
            assert int(peak) < 250_000
            limit = Path(f"/proc/{one}/limits").read_text().partition("Max address space")[2]
            limits.append(limit.split()[0])
    # a child that was just forked may not have it yet
    assert min(int(limit) for limit in limits if limit != "unlimited") < 400_000_000


def test_a_cancelled_question_is_dropped_and_the_pool_goes_on():
    async def cancel_some() -> str:
        waiting = [asyncio.create_task(checker.check_async(SURD)) for _ in range(20)]
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return await checker.check_async(SURD)

    assert asyncio.run(cancel_some()) == "right"


def test_shutdown_releases_who_waits():
    checker.wait_until_ready()
    with ThreadPoolExecutor(6) as threads:
        waiting = [threads.submit(checker.check, BOMB) for _ in range(6)]
        time.sleep(0.2)
        checker.shutdown()
        for future in waiting:
            assert isinstance(future.exception(timeout=20), checker.CheckerError)


def test_a_process_killed_from_outside_is_replaced():
    checker.wait_until_ready()
    for worker in list(checker._running.workers):
        os.killpg(worker.process.pid, signal.SIGKILL)
    assert [checker.check(SURD) for _ in range(6)] == ["right"] * 6


def test_a_process_that_cannot_start_is_one_clear_error(monkeypatch):
    checker.shutdown()
    monkeypatch.setattr(checker, "_PROGRAM", "raise SystemExit(3)")
    with pytest.raises(checker.CheckerError, match="pip install math-verify"):
        checker.check(SURD)
    checker.shutdown()
