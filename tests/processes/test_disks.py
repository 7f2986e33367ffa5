"""A disk that is full or read only: one line that says so, and the same command goes on later.

python -m pytest tests/processes/test_disks.py
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastchat.train.checkpoints import saving
from rise.episodes.journal import load_episodes
from rise.episodes.shorthand import sketch
from tests.support.conversion import write_run
from tests.support.servers import ENVIRONMENT
from tests.support.stages import ROOT, command, environment, run_program, write_inputs
from tests.support.training_data import command as training_command
from tests.support.training_data import make_case

PROBLEMS = 60
ARGUMENTS = ("--max_turns", 2, "--models", "experts.py:student", "experts.py:teacher")
GENERATION = """
set -e
mount -t tmpfs -o size=100k tmpfs run
for attempt in full still-full free; do
    if [ "$attempt" = free ]; then mount -o remount,size=4m run; fi
    code=0
    "$@" >"$attempt.out" 2>"$attempt.err" || code=$?
    echo "$code" >"$attempt.code"
    cp -r run "$attempt"
done
"""
SIZES = ("150k", "500k", "1300k")
TRAINING = """
import contextlib, io, json, subprocess, sys
from fastchat.train.train import main

said, (sizes, *words) = {}, sys.argv[1:]
for size in sizes.split():
    subprocess.run(["mkdir", size], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", size], check=True)
    said[size] = []
    for attempt in ("full", "free"):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([*words, "--output_dir", f"{size}/out"])
        said[size].append([code, out.getvalue(), err.getvalue()])
        subprocess.run(["mount", "-o", "remount,size=16m", size], check=True)
    with open(f"{size}/out/training.json") as record:
        said[size].append(json.load(record)["steps"])
with open("said.json", "w") as file:
    json.dump(said, file)
"""
MOUNTED = 'mount -t tmpfs -o ro tmpfs RO && exec "$@"'


@pytest.fixture(scope="module")
def unshared():
    """Words before a command that may then mount what only it and its children see."""
    words = [shutil.which("unshare") or "false", "-rm"]
    tried = [*words, "mount", "-t", "tmpfs", "tmpfs", "/tmp"]
    if subprocess.run(tried, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here in a name space of its own")
    return words


def said(place, attempt):
    """Exit code, output and error text of one attempt."""
    return [(place / f"{attempt}.{name}").read_text() for name in ("code", "out", "err")]


def test_a_run_survives_a_full_disk(unshared, tmp_path):
    """Its disk fills, is still full at the second call, and has grown at the third."""
    place = tmp_path
    write_inputs(place, problems=PROBLEMS)
    (place / "run").mkdir()
    script = command("workflow_gen.py", *ARGUMENTS, "--log_dir", "run", "--concurrency", 1)
    words = [*unshared, "bash", "-c", GENERATION, "bash", *script]
    subprocess.run(words, cwd=place, env=environment(), check=True)
    code, out, err = said(place, "full")
    assert code == "1\n" and "Traceback" not in out + err
    assert out.count("No space left on device") == 1 and "the same command goes on" in out
    code, out, err = said(place, "still-full")
    assert code == "1\n" and "Traceback" not in out + err
    assert (out + err).count("No space left on device") == 1
    written = load_episodes(place / "full")
    assert len(written) == PROBLEMS
    assert not list((place / "full").glob("*.tmp")) and not (place / "full/2_turns.json").exists()
    assert json.loads((place / "full" / "config.json").read_text())["problems"] == PROBLEMS
    assert said(place, "free")[0] == "0\n"
    before = (place / "full" / "rows.jsonl").read_bytes()
    assert (place / "free" / "rows.jsonl").read_bytes().startswith(before)
    assert [episode.task_id for episode in load_episodes(place / "free")] == list(range(PROBLEMS))
    assert len(json.loads((place / "free" / "2_turns.json").read_text())) == PROBLEMS


@pytest.fixture(scope="module")
def small_disks(unshared, tmp_path_factory):
    """What two trainings on a disk of each size said, the second of them once it had grown."""
    place = tmp_path_factory.mktemp("place")
    words = training_command(make_case(place), Path("out"), "--save_steps", "1", "--max_steps", "3")
    program = [*unshared, sys.executable, "-c", TRAINING, " ".join(SIZES), *words]
    run_program(*program, cwd=place, env=ENVIRONMENT)
    return json.loads((place / "said.json").read_text())


@pytest.mark.parametrize(
    ("size", "where", "cause"),
    [
        (SIZES[0], "checkpoint-1", "No space left on device"),  # the weights: safetensors
        (SIZES[1], "checkpoint-1", "inline_container"),  # the optimizer: torch
        (SIZES[2], "checkpoint-2", ""),
    ],
)
def test_a_training_survives_a_full_disk(small_disks, size, where, cause):
    (code, out, err), (later, resumed, _), steps = small_disks[size]
    assert code == 1 and "Traceback" not in out + err, err
    [line] = [line for line in err.splitlines() if "error: " in line]
    assert line.startswith(
        f"train_mem.py: error: the system refused: {size}/out/{where} cannot be "
    )
    assert cause in line and "the same command goes on from the last complete checkpoint" in line
    assert (later, steps) == (0, 3)
    assert (f"resuming from {size}/out/checkpoint-1" in resumed) == (where == "checkpoint-2")


def test_other_errors_while_saving_are_not_the_disks(tmp_path):
    with pytest.raises(RuntimeError, match="^CUDA"), saving(tmp_path):
        raise RuntimeError("CUDA error")


@pytest.fixture
def read_only(unshared, tmp_path):
    """Runs a script where RO is such a file system; returns what it said in its one line."""
    (tmp_path / "RO").mkdir()

    def refused(script, *arguments, notes=False):
        program = [sys.executable, str(ROOT / script), *arguments]
        words = [*unshared, "bash", "-c", MOUNTED, "bash", *program]
        done = run_program(*words, cwd=tmp_path, env=environment(), code=2)
        assert bool(done.stdout) == notes
        assert len(done.stderr.splitlines()) == 1 and "Read-only file system" in done.stderr
        return done.stderr

    return refused


def test_embedded_problems_and_a_conversion_on_a_read_only_disk(read_only, tmp_path):
    said = read_only("data/arithmetic.py", "--output_dir", "RO/x")
    assert "RO/x: " in said and "give a place that you may write to" in said
    write_run(tmp_path / "run", sketch("w7 r5"))
    said = read_only("workflow_convert.py", "--filepath", "run", "--output", "RO/a/f.json")
    assert "--output RO/a/f.json: " in said and "give a place that you may write to" in said


@pytest.mark.parametrize("source", ["network", "file"])
def test_fetched_data_on_a_read_only_disk(read_only, tmp_path, source):
    row = {"question": "What is 1 + 1?", "answer": "1+1=2\n#### 2"}
    (tmp_path / "test.jsonl").write_text(json.dumps(row) + "\n")
    given = ["--from", "test.jsonl"] if source == "file" else ["--base_url", "http://127.0.0.1:9"]
    # With --from a note on the checksum comes first, on standard output.
    words = ("data/fetch.py", "gsm8k", *given, "--output_dir", "RO/d")
    said = read_only(*words, notes=source == "file")
    assert "--output_dir RO/d: give a folder that you may write to" in said
