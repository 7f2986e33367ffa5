"""Word problems in everyday English, in GSM8K's format: for where no public data set can be had.

    python data/word_problems.py --output_dir data/words --train 4000 --test 1000 --seed 0

Reads   the stories of word_problems.txt: blocks of numbers, question and solution.
Writes  train.jsonl and test.jsonl, rows {"question", "answer", "id"}, each file complete or not at
        all. The test problems tell stories of their own, and no question is asked twice. A problem
        takes one to three steps; some questions hold a number that does not matter.

In a story
    a=3-9 b=20-90/10 c=a*b; c<500   are numbers: drawn (with a step), computed; then a condition
    {a} {A} {B} {he} {His} {thing}  are a number, two people, pronouns of the first, and a noun;
                                    {1thing} is its singular, {thing2} another one of its list
    ~It costs ${d}.~                is said every other time
    [x=a*b]                         is a step, "3*20 = <<3*20=60>>60", and its result a number
"""

import argparse
import ast
import operator
import random
import re
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

from rise.program.exits import usage_errors
from rise.program.files import write_lines

STORIES = Path(__file__).with_suffix(".txt")
PEOPLE = {
    "he": "Adam Ben Carlos David Emil Felix Hassan Ivan Jonas Kofi Liam Mateo Noah Oscar Ravi Tom",
    "she": "Alma Bea Clara Dina Elena Fatima Grace Hana Ines Julia Kira Lena Mei Nora Priya Zoe",
}
PRONOUNS = {"he": ("he", "his", "him"), "she": ("she", "her", "her")}
NOUNS = {
    "thing": "marble sticker card shell bead coin stamp button badge crayon",
    "fruit": "apple pear orange plum peach lemon mango melon",
    "bake": "cookie muffin cupcake scone waffle doughnut",
    "flower": "rose tulip lily sunflower orchid marigold",
    "goods": "notebook pencil brush candle mug plate",
    "clothes": "shirt jacket sweater belt hat coat",
}
OPERATORS: dict[type[ast.AST], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.Lt: operator.lt,
    ast.Gt: operator.gt,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
"""What a story may compute with; `and` joins conditions."""
TRIES = 1000
"""Draws of a story before it counts as used up."""

Numbers = dict[str, int]


def stories() -> dict[str, list[tuple[str, str, str]]]:
    """The stories of each file: numbers, question, solution."""
    parts = re.split(r"^# (train|test).*\n", STORIES.read_text(encoding="utf-8"), flags=re.M)[1:]
    blocks = (
        [block.split("\n", 2) for block in part.strip().split("\n\n")] for part in parts[1::2]
    )
    return {
        name: [(a, b, c) for a, b, c in some] for name, some in zip(parts[::2], blocks, strict=True)
    }


def plural(noun: str) -> str:
    if noun.endswith("y"):
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("ch", "sh", "x")) or noun == "mango" else "s")


def compute(expression: str, numbers: Numbers) -> float:
    """What a sum comes to, or whether a condition holds."""

    def value(node: ast.expr) -> float:
        match node:
            case ast.Constant(value=int(number)):
                return number
            case ast.Name(name):
                return numbers[name]
            case ast.BinOp(left, sign, right):
                return OPERATORS[type(sign)](value(left), value(right))
            case ast.Compare(first, signs, others):
                pairs = pairwise(map(value, [first, *others]))
                return all(OPERATORS[type(s)](*pair) for s, pair in zip(signs, pairs, strict=True))
            case ast.BoolOp(ast.And(), parts):
                return all(map(value, parts))
        raise ValueError(f"{expression!r} is no sum and no condition")

    return value(ast.parse(expression, mode="eval").body)


def draw(line: str, rng: random.Random) -> Numbers | None:
    """The numbers of a story; None if they do not meet its condition."""
    given, _, condition = line.partition(";")
    numbers: Numbers = {}
    for word in given.split():
        name, value = word.split("=")
        if span := re.fullmatch(r"(\d+)-(\d+)(?:/(\d+))?", value):
            low, high, step = (int(part or 1) for part in span.groups())
            numbers[name] = rng.randrange(low, high + 1, step)
        else:
            numbers[name] = int(compute(value, numbers))
    return numbers if not condition or compute(condition.strip(), numbers) else None


def words(rng: random.Random) -> dict[str, str]:
    """What stands for {A}, {he}, {thing}, {1thing}, {thing2}, ..."""
    kind = rng.choice(sorted(PEOPLE))
    first = rng.choice(PEOPLE[kind].split())
    others = [name for names in PEOPLE.values() for name in names.split() if name != first]
    found = {
        "A": first,
        "B": rng.choice(others),
        **dict(zip(PRONOUNS["he"], PRONOUNS[kind], strict=True)),
    }
    for name, nouns in NOUNS.items():
        one, two = rng.sample(nouns.split(), 2)
        found |= {name: plural(one), f"{name}2": plural(two), f"1{name}": one}
    return found | {word.capitalize(): found[word].capitalize() for word in PRONOUNS["he"]}


def problem(story: tuple[str, str, str], rng: random.Random) -> dict[str, str] | None:
    """One problem of a story; None where its numbers would mislead.

    The numbers that are told, the results and the constants of the steps all differ, so that it
    is clear where a number comes from; results are whole and at least 2.
    """
    line, question, solution = story
    numbers = draw(line, rng)
    if numbers is None:
        return None
    question = re.sub(r"~(.*?)~", r"\1" if rng.random() < 0.5 else "", question)
    told = [numbers[name] for name in {*re.findall(r"{([a-z])}", question)}]
    texts = words(rng)

    def step(match: re.Match[str]) -> str:
        name, expression = match.groups()
        told.extend(int(n) for n in re.findall(r"\d+", expression))
        shown = re.sub(r"[a-z]", lambda letter: str(numbers[letter[0]]), expression)
        result = compute(expression, numbers)
        told.append(int(result) if result == int(result) and result > 1 else told[0])
        numbers[name] = told[-1]
        return f"{shown} = <<{shown}={told[-1]}>>{told[-1]}"

    def fill(text: str) -> str:
        filled = re.sub(
            r"{(\w+)}", lambda m: str(numbers[m[1]]) if m[1] in numbers else texts[m[1]], text
        )
        return re.sub(r" +(?=[ ,.])", "", filled).strip()

    steps = fill(re.sub(r"\[(\w)=(.*?)\]", step, solution))
    if len({*told}) < len(told):
        return None
    return {"question": fill(question), "answer": f"{steps}\n#### {told[-1]}"}


def problems(split: str, count: int, seed: int) -> Iterator[dict[str, str]]:
    """`count` problems, the stories taking turns; none is asked twice."""
    rng = random.Random(f"words {split} {seed}")
    told = stories()[split]
    seen: set[str] = set()
    for number in range(count):
        place = number % len(told)
        drawn = (problem(told[place], rng) for _ in range(TRIES))
        row = next((row for row in drawn if row and row["question"] not in seen), None)
        if row is None:
            raise ValueError(f"the stories give {number} different problems, not {count}: ask less")
        seen.add(row["question"])
        yield row | {"id": f"{split}-{place + 1}-{number // len(told) + 1}"}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("--output_dir", type=Path, required=True, help="folder to write to")
    add("--train", type=int, default=4000, help="training problems (default 4000)")
    add("--test", type=int, default=1000, help="test problems (default 1000)")
    add("--seed", type=int, default=0, help="seed of the numbers and words (0)")
    args = parser.parse_args()
    if min(args.train, args.test) < 0:
        parser.error("--train and --test count lines and cannot be negative")
    return args


def main() -> int:
    args = parse_args()
    with usage_errors("word_problems.py"):
        made = {s: [*problems(s, getattr(args, s), args.seed)] for s in ("train", "test")}
        args.output_dir.mkdir(parents=True, exist_ok=True)
        for name, rows in made.items():
            path = args.output_dir / f"{name}.jsonl"
            print(f"{path}: {write_lines(path, rows)} problems")
    return 0


if __name__ == "__main__":
    sys.exit(main())
