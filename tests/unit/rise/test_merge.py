"""Shards of a run, and the run that they are together.

python -m pytest tests/unit/rise/test_merge.py
"""

import json
import shutil

import pytest

from rise import merge
from rise.episodes.journal import load_episodes
from tests.support.stages import call, files_in, run_main, write_inputs

GEN = ("workflow_gen.py", "--max_turns", 2, "--models", "experts.py:student", "experts.py:teacher")
EVAL = ("workflow_eval.py", "--max_turns", 3, "--model", "experts.py:student")
PARALLEL = ("workflow_eval.py", "--num_of_samples", 3, "--model", "experts.py:student")
PARALLEL += ("--max_turns", 1)
SAID_ONCE = ("wall_s", "versions", "config")
"""What a summary says about the call, not about the episodes."""


@pytest.fixture
def place(tmp_path):
    write_inputs(tmp_path, problems=20)
    return tmp_path


def shards(place, stage, count, *arguments):
    """The run directories of all shards of a stage."""
    paths = [place / f"{stage[0][9:-3]}-{i}" for i in range(1, count + 1)]
    for i, path in enumerate(paths, start=1):
        call(place, *stage, *arguments, "--shard", f"{i}/{count}", "--log_dir", path.name)
    return paths


def join(place, *paths, code=0):
    """What the merge says."""
    argv = [str(path) for path in paths]
    done = run_main(lambda: merge.main(argv), "merge.py", directory=place, code=code)
    return done.stdout + done.stderr


def content(path, turns):
    """What a run directory says about its problems."""
    summary = json.loads((path / "summary.json").read_text())
    config = json.loads((path / "config.json").read_text())
    for key in ("log_dir", "command"):
        del config[key]
    rows = sorted((path / "rows.jsonl").read_text().splitlines())
    log = (path / f"{turns}_turns.json").read_text()
    return rows, log, config, {k: v for k, v in summary.items() if k not in SAID_ONCE}


@pytest.mark.parametrize(
    ("stage", "turns", "more"),
    [
        (GEN, 2, ()),
        (EVAL, 3, ("--limit", 19, "--num_of_samples", 2)),
        (EVAL, 3, ("--shown_attempts", "own", "--limit", 19)),
    ],
)
def test_the_shards_together_are_the_one_run(place, stage, turns, more):
    if "--shown_attempts" in more:
        call(place, *EVAL, "--log_dir", "own")
    runs = shards(place, stage, 3, *more)
    sizes = [len(load_episodes(run)) for run in runs]
    assert max(sizes) - min(sizes) <= 1
    call(place, *stage, *more, "--log_dir", "single")
    out = join(place, *runs[::-1], "-o", "joint")
    assert f"{sum(sizes)} of {sum(sizes)} episodes are in joint" in out
    assert content(place / "joint", turns) == content(place / "single", turns)
    before = files_in(place / "joint")
    again = call(place, *stage, *more, "--log_dir", "joint")
    assert f"All {sum(sizes)} episodes are in joint; nobody was asked" in again.stdout
    assert files_in(place / "joint")["rows.jsonl"] == before["rows.jsonl"]


def test_both_published_evaluations_share_a_joint_directory(place):
    for stage in (EVAL, PARALLEL):
        runs = [run / ("1_turns" if stage == PARALLEL else "") for run in shards(place, stage, 2)]
        join(place, *runs, "-o", "joint")
        call(place, *stage, "--log_dir", "single")
    assert content(place / "joint", 3) == content(place / "single", 3)
    metrics = json.loads((place / "joint" / "summary.json").read_text())["metrics"]
    assert {"m1@t1", "m3@t1", "m1@t3"} <= metrics.keys()


def test_overlaps_gaps_and_differences_are_refused_by_name(place):
    first, second, third = shards(place, GEN, 3)
    other = place / "other"
    call(place, *GEN, "--shard", "3/3", "--seed", 5, "--limit", 19, "--log_dir", "other")
    joint = place / "joint"
    differ = ("different configurations", "seed: 0 -> 5", "problems: 20 -> 19")
    for runs, *messages in (
        ((first, second, second), "overlap: both have 7 problems (1, 4, 7, 10, 13, ...)"),
        ((first, third), "7 problems (1, 4, 7, 10, 13, ...) of 20 are in none", "shard 3/3"),
        ((first, second, other), *differ),
        ((first, second, place / "none"), "none is no run"),
    ):
        out = join(place, *runs, "-o", joint, code=2)
        assert all(message in out for message in messages), out
        assert "Traceback" not in out and not joint.exists()
    assert "another configuration" in join(place, first, second, third, "-o", other, code=2)


def test_an_unfinished_shard_is_a_gap_and_a_torn_merge_goes_on(place):
    runs = shards(place, GEN, 2)
    whole = (runs[0] / "rows.jsonl").read_bytes()
    (runs[0] / "rows.jsonl").write_bytes(whole[:-10])
    out = join(place, *runs, "-o", "joint", code=2)
    assert "1 problems (" in out and "finish the runs" in out
    (runs[0] / "rows.jsonl").write_bytes(whole)
    join(place, *runs, "-o", "joint")
    rows = (place / "joint" / "rows.jsonl").read_bytes()
    shutil.copytree(place / "joint", place / "torn")
    (place / "torn" / "rows.jsonl").write_bytes(rows[: len(rows) // 2])
    join(place, *runs, "-o", "torn")
    assert (place / "torn" / "rows.jsonl").read_bytes() == rows


def test_a_merge_that_was_killed_counts_what_failed_once(place):
    runs = shards(place, GEN, 2)
    for run in runs:
        rows = (run / "rows.jsonl").read_text().splitlines()
        failed = json.loads(rows[0])
        failed |= {"error": {"kind": "timeout", "message": "none"}}
        # An attempt that failed twice in the same words is two rows.
        lines = [json.dumps(failed)] * 2 + rows
        (run / "rows.jsonl").write_text("\n".join(lines) + "\n")
    join(place, *runs, "-o", "joint")
    rows = (place / "joint" / "rows.jsonl").read_bytes()
    lines = rows.splitlines(keepends=True)
    assert sum(b'"timeout"' in line for line in lines) >= 4
    for kept in (1, 3, 4, 6):
        torn = place / f"torn{kept}"
        shutil.copytree(place / "joint", torn)
        (torn / "rows.jsonl").write_bytes(b"".join(lines[:kept]) + lines[kept][:9])
        join(place, *runs, "-o", torn)
        assert (torn / "rows.jsonl").read_bytes() == rows


def test_a_shard_that_is_none_or_empty_or_in_the_place_of_another_is_refused(place):
    run = (*GEN, "--log_dir", "run")
    for shard in ("0/3", "4/3", "1", "a/b", "1/0", "-1/2"):
        refused = call(place, *run, f"--shard={shard}", code=2)
        assert f"--shard is '{shard}': give I/N" in refused.stderr
    assert "--shard 21/21 is empty" in call(place, *run, "--shard", "21/21", code=2).stderr
    assert not (place / "run").exists()
    call(place, *run, "--shard", "1/4")
    assert "shard: 1/4 -> 2/4" in call(place, *run, "--shard", "2/4", code=2).stderr
