"""Labelled responses, and the three graders that `graders.py` compares on them."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

LABELS = ("right", "wrong", "no_answer")
TIME_LIMIT = 15.0
"""Seconds after which math-verify alone is killed; its own limits are 5 s for each of its steps."""


@dataclass(frozen=True)
class Row:
    """One labelled response."""

    env: str
    response: str
    reference: str
    label: str
    category: str


Grader = Callable[[Row], int]
"""From a row to its reward: 1 right, 0 wrong, -1 no answer (0 in MATH)."""


def read_row(line: str) -> Row:
    """Return the row of one line.

    Raises:
        ValueError: a key is missing or unknown, or the label is none of the three.
    """
    try:
        row = Row(**json.loads(line))
    except TypeError as error:
        raise ValueError(f"a row must have the keys of {Row.__annotations__}: {line!r}") from error
    if row.label not in LABELS:
        raise ValueError(f"label {row.label!r} is not one of {', '.join(LABELS)}: {line!r}")
    return row


def ours(row: Row) -> int:
    """Grade as training and evaluation do."""
    import envs

    return envs.grade(row.env, row.response, row.reference)


def same_string(row: Row) -> int:
    """Compare the last box with the reference's answer, character by character."""
    from envs.grading.answers import last_box

    answer = last_box(row.response)
    if answer is None:
        return reward_of(row.env, "no_answer")
    return int(answer == stated(row))


class MathVerify:
    """math-verify alone, in a process that is killed when it does not answer."""

    def __init__(self):
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve_math_verify, args=(theirs,), daemon=True)
        self.process.start()
        self.pipe.recv()

    def stop(self) -> None:
        self.process.kill()
        self.process.join()

    def grade(self, row: Row) -> int:
        reference = stated(row) if row.env == "gsm8k" else row.reference
        self.pipe.send((row.response, reference))
        if not self.pipe.poll(TIME_LIMIT):
            self.stop()
            self.start()
            return 0
        verdict = self.pipe.recv()
        return 1 if verdict == "right" else reward_of(row.env, verdict)


def serve_math_verify(pipe: Connection) -> None:
    """Answer (response, reference) with right, wrong or no_answer until the pipe is closed."""
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    pipe.send("ready")
    while True:
        try:
            response, reference = pipe.recv()
        except (EOFError, OSError):  # the benchmark was stopped
            return
        found, wanted = parse(response), parse(reference)
        verdict = "right" if found and verify(wanted, found) else "wrong"
        pipe.send(verdict if found else "no_answer")


def stated(row: Row) -> str:
    """Return the answer that the reference states, as it is written."""
    from envs.grading.answers import last_box

    if row.env == "gsm8k":
        return row.reference.rpartition("####")[2].strip()
    return last_box(row.reference) or ""


def reward_of(env: str, verdict: str) -> int:
    import envs

    return envs.NAMES[env].rewards[verdict]
