r"""Word problems split into warm start, generation, validation and test; relatives stay together.

    python data/splits.py data/asdiv/test.jsonl data/svamp/test.jsonl --output_dir data/real
    python data/splits.py data/gsm8k/train.jsonl --test_from data/gsm8k/test.jsonl --output_dir DIR

Reads   files as data/fetch.py and data/word_problems.py write them.
Writes  DIR/{warm,generate,validation,test}.jsonl: rows {"question", "answer", "id"}, each file
        complete or not at all. The rule has no seed: everybody gets the same files.

Kept are the problems whose solution is one expression that the grader calls right
(`expression`). Two problems are relatives if their words, numbers apart and rare words counting
more, overlap by `ALIKE`; relatives of relatives are relatives, and all of them are in one file, for
SVAMP varies problems of ASDiv and many problems of ASDiv differ in names and numbers alone.
"""

import argparse
import hashlib
import json
import math
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import envs
from rise.program.files import write_lines

LEFT_OUT = {"chal-680": "SVAMP says that (4 - 2) + 3 is 1"}
"""Problems whose reference is wrong, by their id."""
ALIKE = 0.3
"""Jaccard index of the word sets, a word counting log(problems / problems with it)."""
COMMON = 0.1
"""A word in more than this share of the problems says nothing about kinship."""
NUMBER = r"\d[\d,]*\.?\d*|\.\d+"
Row = dict[str, str]


def expression(question: str, answer: str) -> str | None:
    r"""The solution as one expression in the numbers of the question, or None.

    >>> expression("", "48 / 2 = <<48/2=24>>24 in May, 48 + 24 = <<48+24=72>>72\n#### 72")
    '48 + 48 / 2'
    >>> expression("", "( ( 8.0 - 3.0 ) * 2.0 ) = 10\n#### 10")
    '(8 - 3) * 2'
    """
    body, _, number = answer.rpartition("\n#### ")
    steps = re.findall(r"<<([^<>]*)=([^<>=]*)>>", body) or [
        step.rsplit("=", 1) for step in body.split(";") if step.count("=") == 1
    ]
    given = {_plain(found) for found in re.findall(NUMBER, question)}
    known: dict[str, str] = {}
    for left, right in steps:
        left = re.sub(r"\s+", "", re.sub(r"(\d)\.0(?!\d)", r"\1", left)).replace("$", "")
        if re.fullmatch(r"[-+*/().\d]+", left) is None or "//" in left or "**" in left:
            return None
        whole = re.sub(NUMBER, lambda n: known.get(_plain(n[0]), n[0]), left)
        if _plain(right) not in given:
            known[_plain(right)] = f"({_bare(whole)})"
        last = _plain(right), whole
    if not steps or last[0] != _plain(number) or not re.search(r"\d\)*[-+*/]", last[1]):
        return None
    return re.sub(r"(?<=[\d)])([-+*/])", r" \1 ", _bare(last[1]))


def _plain(number: str) -> str:
    return re.sub(r"(\.\d*?)0+$", r"\1", number.strip().lstrip("$").replace(",", "")).rstrip(".")


def _bare(text: str) -> str:
    """Without the brackets that change nothing."""
    while text.startswith("(") and _closes(text, 0) == len(text) - 1:
        text = text[1:-1]
    at = text.find("(")
    while at >= 0:
        end = _closes(text, at)
        before, inside, after = (
            text[at - 1 : at],
            _bare(text[at + 1 : end]),
            text[end + 1 : end + 2],
        )
        product = re.fullmatch(rf"(?:{NUMBER})(?:[*/](?:{NUMBER}))*", inside)
        terms = re.fullmatch(r"[-+*/.\d]+", inside)
        if (product and before != "/") or (
            terms and before in ("", "+", "(") and after in ("", "+", "-", ")")
        ):
            text = text[:at] + inside + text[end + 1 :]
            at = text.find("(", at)
        else:
            text = text[: at + 1] + inside + text[end:]
            at = text.find("(", at + 1)
    return text


def _closes(text: str, start: int) -> int:
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] == "(") - (text[at] == ")")
        if depth == 0:
            return at
    raise ValueError(f"brackets do not match in {text!r}")


def expert(problem: Row, messages: Iterable[dict[str, str]] = ()) -> str:
    r"""The reference, `\boxed{48 + 48 / 2}`; a right attempt is given again. For --models."""
    attempts = [message["content"] for message in messages if message["role"] == "assistant"]
    if attempts and envs.grade("numeric", attempts[-1], problem["answer"]) == 1:
        return attempts[-1]
    return rf"\boxed{{{expression(problem['question'], problem['answer'])}}}"


def usable(row: Row) -> bool:
    """Whether the expression of the solution is there and graded right."""
    try:
        found = expression(row["question"], row["answer"])
    except ValueError:
        return False
    return found is not None and envs.grade("numeric", expert(row), row["answer"]) == 1


def families(questions: list[str]) -> list[int]:
    """The family of each question, a number: the place of its first member."""
    words = [set(re.findall(r"[a-z]+", question.lower())) for question in questions]
    spread = Counter(word for some in words for word in some)
    weight = {
        word: math.log(len(words) / count)
        for word, count in spread.items()
        if count <= max(10, COMMON * len(words))
    }
    holders: dict[str, list[int]] = defaultdict(list)
    parent = list(range(len(words)))

    def first(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    said: dict[tuple[str, ...], int] = {}
    sums = [sum(weight.get(word, 0.0) for word in sorted(some)) for some in words]
    for i, some in enumerate(words):
        shared: Counter[int] = Counter()
        for word in sorted(some & weight.keys()):
            for j in holders[word]:
                shared[j] += weight[word]
            holders[word].append(i)
        kin = [j for j, common in shared.items() if common >= ALIKE * (sums[i] + sums[j] - common)]
        for j in [*kin, said.setdefault(tuple(sorted(some)), i)]:
            a, b = sorted((first(i), first(j)))
            parent[b] = a
    return [first(i) for i in range(len(words))]


def key(text: str) -> str:
    """An order that has nothing to do with the content and is the same everywhere."""
    return hashlib.sha256(text.encode()).hexdigest()


def split(pool: list[Row], test: list[Row], sizes: dict[str, int]) -> dict[str, list[Row]]:
    """Rows by file. Families go to the files whole, in the order of their keys, until one is full.

    With rows of a `test` of its own, the pool's relatives of them are left out.
    """
    rows = test + pool
    family = families([row["question"] for row in rows])
    members: dict[int, list[Row]] = defaultdict(list)
    for row, number in zip(pool, family[len(test) :], strict=True):
        members[number].append(row)
    for number in family[: len(test)]:
        members.pop(number, None)
    queue = sorted(members.values(), key=lambda rows: min(key(row["question"]) for row in rows))
    files: dict[str, list[Row]] = {name: [] for name in sizes}
    filling = iter(sizes.items())
    name, size = next(filling)
    for rows in queue:
        while len(files[name]) >= size:
            name, size = next(filling, (name, math.inf))
        files[name] += rows
    if test:
        files["test"] = test[:]
    for rows in files.values():
        rows.sort(key=lambda row: key(row["question"]))
    return files


def read(paths: Iterable[Path]) -> list[Row]:
    """The usable problems of the files, a question that is asked twice once."""
    found: dict[str, Row] = {}
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
            row = json.loads(line)
            name = f"{path.parent.name}-{path.stem}-{number}"
            row = {key: str(row.get(key, name)) for key in ("question", "answer", "id")}
            if row["id"] not in LEFT_OUT and usable(row):
                found.setdefault(" ".join(row["question"].split()).lower(), row)
    return list(found.values())


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("files", type=Path, nargs="+", metavar="FILE", help="problems with solutions")
    add("--test_from", type=Path, nargs="+", default=[], metavar="FILE", help="test problems")
    add("--output_dir", type=Path, required=True, help="folder to write to")
    add("--test", type=int, default=1000, help="test problems, about (default 1000)")
    add("--validation", type=int, default=200, help="validation problems, about (200)")
    add("--warm", type=int, default=600, help="problems of the warm start, about (600)")
    add("--generate", type=int, default=10**9, help="problems to generate on (the others)")
    args = parser.parse_args(argv)
    if missing := [str(p) for p in (*args.files, *args.test_from) if not p.is_file()]:
        parser.error(f"no such file: {', '.join(missing)}")
    sizes = {name: getattr(args, name) for name in ("test", "validation", "warm", "generate")}
    if min(sizes.values()) < 1:
        parser.error("--test, --validation, --warm and --generate count problems: give 1 or more")
    test = sorted(read(args.test_from), key=lambda row: key(row["question"]))[: args.test]
    if args.test_from:
        del sizes["test"]
    files = split(read(args.files), test, sizes)
    if short := [name for name, rows in files.items() if not rows]:
        parser.error(f"the files have too few problems: nothing is left for {', '.join(short)}")
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        rows = rows[: args.generate] if name == "generate" else rows
        path = args.output_dir / f"{name}.jsonl"
        print(f"{path}: {write_lines(path, rows)} problems")
    return 0


if __name__ == "__main__":
    sys.exit(main())
