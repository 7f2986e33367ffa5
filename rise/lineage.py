"""What a model, a data set or a run was made of, as each stage's own record tells it.

    python -m rise.lineage log/rise/eval/iteration2
    python -m rise.lineage checkpoints/rise

Reads   config.json of a run, OUTPUT.report.json of a data set, training.json of a checkpoint, and
        what these name; nothing is written.

One line for each: its checksum now, how it was made, at which commit. "CHANGED" is said where it is
another one by now than when it was read, "missing" where it is no longer there.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fastchat.model.files import file_sha256
from fastchat.utils import Parser
from rise.episodes.journal import fingerprints, locate
from rise.policies.names import fingerprint
from rise.program.exits import DONE, exit_code, run_program
from rise.program.files import read_object

PUBLISHED = re.compile(r"(\d+)_turns\.json")


class Input(NamedTuple):
    """What a record says that it was made of."""

    role: str
    name: str
    checksum: str | None
    """As it was then; None where the record does not say."""


Record = tuple[str, list[Input]]
"""How something was made, in a few words, and of what."""


def of_run(config: dict[str, Any]) -> Record:
    """A run of workflow_gen.py or workflow_eval.py, from its config.json."""
    models = dict(zip(config["models"], fingerprints(config), strict=False))
    inputs = [Input("model", name, models.get(name)) for name in dict.fromkeys(config["models"])]
    if "data_path" in config:
        inputs.append(Input("problems", config["data_path"], config.get("data_sha256")))
    stage, count, env = (config.get(name) for name in ("stage", "problems", "env"))
    words = f"{stage}, {count} problems of {env}, seed {config.get('seed')}"
    return words + _commit(config), inputs


def of_data(report: dict[str, Any]) -> Record:
    """A data set of workflow_convert.py, from its report."""
    settings = report["settings"]
    logs = zip(report.get("filepath", []), settings.get("inputs", []), strict=False)
    words = f"{report.get('rows', report.get('pairs'))} rows, criteria {settings.get('criteria')}"
    words += f", weights {settings.get('weighting')}, tau {settings.get('temperature')}"
    return words + _commit(report), [Input("log", name, log["sha256"]) for name, log in logs]


def of_model(record: dict[str, Any]) -> Record:
    """A checkpoint of train_mem.py, from its training.json."""
    settings, data = record["settings"], record["data"]
    inputs = [
        Input("model", settings["model_name_or_path"], settings.get("model_fingerprint")),
        Input("data", data["path"], data.get("sha256")),
    ]
    steps = record.get("steps", record.get("status"))
    rate = settings.get("learning_rate")
    words = f"trained, {steps} steps at {rate:g}, seed {settings.get('seed')}"
    return words + _commit(record), inputs


def record_of(path: Path) -> Record | None:
    """How what is at a path was made; None where no record says so."""
    if turns := PUBLISHED.fullmatch(path.name):
        path = locate(path.parent, int(turns[1]))  # a log is made as its run was
    for file, read in (
        (path / "config.json", of_run),
        (path.with_name(f"{path.name}.report.json"), of_data),
        (path / "training.json", of_model),
    ):
        if file.is_file():
            found = read_object(file)
            # A checkpoint has a config.json too.
            if read is not of_run or "models" in found:
                try:
                    return read(found)
                except KeyError as error:
                    raise ValueError(f"{file} has no {error}") from error
    return None


def checksum(path: Path) -> str | None:
    """That of a run's rows or of a file; of a checkpoint or a function its fingerprint."""
    file = path / "rows.jsonl" if (path / "rows.jsonl").is_file() else path
    if not file.is_file():
        return fingerprint(str(path))
    return file_sha256(file)


def lines(
    item: Input, beside: Path, depth: int = 0, seen: set[Path] | None = None
) -> Iterator[str]:
    """A line for this and, further in, for everything that it was made of.

    The record that names it is `beside`: a path may be relative to a directory above.
    """
    seen = set() if seen is None else seen
    places = (Path(item.name), *(above / item.name for above in beside.absolute().parents))
    # FILE.py:FUNCTION is where its file is.
    path = next(
        (each for each in places if Path(re.sub(r"\.py:\w+$", ".py", str(each))).exists()),
        Path(item.name),
    )
    now = checksum(path)
    # A record may hold the first digits only.
    same = not (now and item.checksum) or now.startswith(item.checksum)
    state = "" if same else " CHANGED"
    if now is None and item.checksum and not path.exists() and ".py:" not in item.name:
        state = " missing"
    known = now or item.checksum
    head = f"{'  ' * depth}{item.role + ' ' if item.role else ''}{item.name}"
    head += f" ({known[:8]}{state})" if known else ""
    record = record_of(path)
    if record is None or path.resolve() in seen:
        yield head + (": as above" if record else "")
        return
    seen.add(path.resolve())
    yield f"{head}: {record[0]}"
    for each in record[1]:
        yield from lines(each, path, depth + 1, seen)


def _commit(record: dict[str, Any]) -> str:
    commit = record.get("git_commit")
    return f", commit {commit[:8]}" if commit else ""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="python -m rise.lineage", description=__doc__)
    parser.add_argument("path", type=Path, help="a run directory, a data set or a checkpoint")
    return parser.parse_args(argv)


def run(path: Path) -> int:
    if record_of(path) is None:
        raise ValueError(
            f"{path} has no record: give a run directory, a data set of workflow_convert.py or "
            "a checkpoint of train_mem.py"
        )
    print("\n".join(lines(Input("", str(path), None), path)))
    return DONE


def main(argv: list[str] | None = None) -> int:
    path = parse_args(argv).path
    return exit_code(lambda: run(path), "rise.lineage")


if __name__ == "__main__":
    run_program(main)
