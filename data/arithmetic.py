r"""The embedded problems: hard to solve at one go, easy to check ("trial and improvement").

    python data/arithmetic.py --output_dir data/arithmetic --train 1600 --test 300 --seed 0
    python data/arithmetic.py --output_dir data/arithmetic --warmup 28000   # and the base's chats

Somebody has an unknown number of things, wins or loses some four times, and the last number is
known. A solution tries a number, works it through and writes how far the end is off:

    Eva had some cards, lost 2, lost 2, found 5, sold 4. Now Eva has 5. How many at first?
    <<9-2=7>>7
    <<7-2=5>>5
    <<5+5=10>>10
    <<10-4=6>>6
    need 5: <<6-5=1>>1 over
    \boxed{9}

That last line but one tells whoever reads it that 8 is right: information which a second
independent sample does not have. This is what RISE has to teach a model to use.

Writes, each file complete or not at all:
    train.jsonl, test.jsonl   {"question", "answer"}, as GSM8K: the answer ends in "#### N"
    warmup.jsonl              with --warmup: chats that train the base: quickstart/make_base.py
The test problems share no numbers (first number and changes) with the other two files.
"""

import argparse
import random
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path

from rise.program.exits import usage_errors
from rise.program.files import write_lines

NAMES = ("Ana", "Ben", "Eva", "Leo", "Lia", "Max", "Mia", "Sam", "Tom", "Zoe")
THINGS = ("books", "caps", "cards", "cups", "pens", "toys")
GAINS = ("found", "won")
LOSSES = ("lost", "sold")
LOW, HIGH = 3, 9
"""Smallest and largest number that a person may have at any time."""
CHANGES = 4
"""Number of wins and losses in a problem. With three, a control that is trained on right answers
alone learns to solve most problems at one go (docs/benchmarks.md)."""
LARGEST = 15
"""Largest number in the working of a wrong trial; the smallest is 0."""
HELD_OUT = 300
"""How many of the combinations of numbers are kept for the test problems."""
RETRY = "The answer is incorrect. Please try again. "
"""What the bare prompt style of `envs` says before it repeats the question."""

ONE_TURN = 0.65
"""Share of the warm-up chats with one attempt; the others have two."""
OTHER_PROBLEM = 0.5
"""Share of the two-turn chats whose second turn is a new problem instead of a retry."""
RIGHT_TRIAL = 0.7
"""Share of the warm-up attempts that try the right number."""

Numbers = tuple[int, ...]
"""What identifies a problem up to its words: the first number, then the changes."""


@dataclass(frozen=True)
class Problem:
    """One problem: its words and its numbers."""

    question: str
    start: int
    changes: tuple[int, ...]

    @property
    def end(self) -> int:
        return self.start + sum(self.changes)


def all_numbers(changes: int = CHANGES) -> list[Numbers]:
    """Every combination in which no value repeats the one before it: 7 * 6**4 = 9,072."""
    paths = product(range(LOW, HIGH + 1), repeat=changes + 1)
    return [
        (path[0], *(b - a for a, b in pairwise(path)))
        for path in paths
        if all(a != b for a, b in pairwise(path))
    ]


def split_numbers(seed: int, changes: int = CHANGES) -> tuple[list[Numbers], list[Numbers]]:
    """Divide all combinations into (training and warm-up, test); the same for every file size."""
    numbers = all_numbers(changes)
    random.Random(f"numbers {seed}").shuffle(numbers)
    return numbers[HELD_OUT:], numbers[:HELD_OUT]


def word_problem(numbers: Numbers, rng: random.Random) -> Problem:
    start, *changes = numbers
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    story = ", ".join(f"{rng.choice(GAINS if c > 0 else LOSSES)} {abs(c)}" for c in changes)
    end = start + sum(changes)
    question = f"{name} had some {thing}, {story}. Now {name} has {end}. How many at first?"
    return Problem(question, start, tuple(changes))


def working(problem: Problem, guess: int) -> str:
    """The steps of a trial and the check at its end, without the line that names the answer."""
    lines, value = [], guess
    for change in problem.changes:
        sign = "+" if change > 0 else "-"
        lines.append(f"<<{value}{sign}{abs(change)}={value + change}>>{value + change}")
        value += change
    off = value - problem.end
    verdict = "over" if off > 0 else "short" if off < 0 else "left"
    high, low = max(value, problem.end), min(value, problem.end)
    lines.append(f"need {problem.end}: <<{high}-{low}={high - low}>>{high - low} {verdict}")
    return "\n".join(lines)


def trial(problem: Problem, guess: int) -> str:
    return f"{working(problem, guess)}\n\\boxed{{{guess}}}"


def row(problem: Problem) -> dict[str, str]:
    answer = f"{working(problem, problem.start)}\n#### {problem.start}"
    return {"question": problem.question, "answer": answer}


def expert(problem: dict, messages: list[dict[str, str]]) -> str:
    """A programmatic expert for `--models data/arithmetic.py:expert`: the reference as an answer.

    It is an ordinary right solution, the same whatever was tried before: nothing in it points back
    at the attempt, so the model itself has to find the connection.
    """
    steps, mark, number = problem["answer"].rpartition("#### ")
    if not mark:
        raise ValueError(f"reference without a '#### N' line: {problem['answer']!r}")
    return f"{steps}\\boxed{{{number}}}"


def wrong_guesses(problem: Problem) -> list[int]:
    """The wrong numbers a person may start with whose working stays within 0..LARGEST."""
    guesses = []
    for guess in range(LOW, HIGH + 1):
        values = [guess + sum(problem.changes[:k]) for k in range(len(problem.changes) + 1)]
        if guess != problem.start and min(values) >= 0 and max(values) <= LARGEST:
            guesses.append(guess)
    return guesses


def warmup_attempt(problem: Problem, retry: bool, rng: random.Random) -> dict[str, str]:
    """An assistant message; `given` is the beginning of it that is shown but never learned.

    A wrong number is given, so that the base learns to work honestly and not to guess wrong. In a
    retry the number is always given: otherwise the base would learn to read the check, which is
    what RISE is to teach.
    """
    right = rng.random() < RIGHT_TRIAL or not wrong_guesses(problem)
    guess = problem.start if right else rng.choice(wrong_guesses(problem))
    given = "" if right and not retry else f"<<{guess}"
    return {"role": "assistant", "content": trial(problem, guess), "given": given}


def warmup_chats(count: int, seed: int, changes: int = CHANGES) -> Iterator[dict]:
    """`count` chats of one or two attempts, {"messages": [...]}, from training numbers only."""
    numbers, _ = split_numbers(seed, changes)
    rng = random.Random(f"warm-up {seed}")
    for _ in range(count):
        problem = word_problem(rng.choice(numbers), rng)
        turns = [(problem, False)]
        if rng.random() >= ONE_TURN:
            if rng.random() < OTHER_PROBLEM:
                turns.append((word_problem(rng.choice(numbers), rng), False))
            else:
                turns.append((problem, True))
        messages = []
        for asked, retry in turns:
            messages.append({"role": "user", "content": RETRY * retry + asked.question})
            messages.append(warmup_attempt(asked, retry, rng))
        yield {"messages": messages}


def problem_rows(numbers: list[Numbers], count: int, rng: random.Random) -> list[dict[str, str]]:
    """`count` problems; every combination is used once before any comes back in other words."""
    order: list[Numbers] = []
    while len(order) < count:
        order += rng.sample(numbers, len(numbers))
    return [row(word_problem(chosen, rng)) for chosen in order[:count]]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    description = "Write the embedded problems as JSON lines."
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    add = parser.add_argument
    add("--output_dir", type=Path, required=True, help="folder to write to")
    add("--train", type=int, default=1600, help="training problems (default 1600)")
    add("--test", type=int, default=300, help="test problems (default 300)")
    add("--warmup", type=int, default=0, help="chats in warmup.jsonl (default 0: no such file)")
    harder = f"wins and losses in a problem; more are harder to solve at one go ({CHANGES})"
    add("--changes", type=int, default=CHANGES, choices=range(3, 7), help=harder)
    add("--seed", type=int, default=0, help="seed of the split and words (0)")
    args = parser.parse_args(argv)
    if min(args.train, args.test, args.warmup) < 0:
        parser.error("--train, --test and --warmup count lines and cannot be negative")
    return args


def main() -> int:
    args = parse_args()
    train_numbers, test_numbers = split_numbers(args.seed, args.changes)
    train = problem_rows(train_numbers, args.train, random.Random(f"train {args.seed}"))
    test = problem_rows(test_numbers, args.test, random.Random(f"test {args.seed}"))
    files: dict[str, Iterable[dict]] = {"train.jsonl": train, "test.jsonl": test}
    if args.warmup:
        files["warmup.jsonl"] = warmup_chats(args.warmup, args.seed, args.changes)
    with usage_errors("arithmetic.py"):
        args.output_dir.mkdir(parents=True, exist_ok=True)
        for name, rows in files.items():
            path = args.output_dir / name
            print(f"{path}: {write_lines(path, rows)} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
