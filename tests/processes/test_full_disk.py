"""A disk that is full when the log is published; tests/unit/test_workflow_gen.py fills it earlier.

python -m pytest tests/processes/test_full_disk.py
"""

import json
import shutil
import subprocess

import pytest

from rise.episodes.journal import load_episodes
from tests.support.stages import command, environment, write_inputs

PROBLEMS = 60
ARGUMENTS = ("--max_turns", 2, "--models", "experts.py:student", "experts.py:teacher")
TWICE = """
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


def said(place, attempt):
    """Exit code, output and error text of one attempt."""
    return [(place / f"{attempt}.{name}").read_text() for name in ("code", "out", "err")]


def test_a_run_survives_a_full_disk(tmp_path):
    """Its disk fills, is still full at the second call, and has grown at the third."""
    place, unshare = tmp_path, shutil.which("unshare") or "false"
    tried = [unshare, "-rm", "mount", "-t", "tmpfs", "tmpfs", place]
    if subprocess.run(tried, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here in a name space of its own")
    write_inputs(place, problems=PROBLEMS)
    (place / "run").mkdir()
    script = command("workflow_gen.py", *ARGUMENTS, "--log_dir", "run", "--concurrency", 1)
    words = [unshare, "-rm", "bash", "-c", TWICE, "bash", *script]
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
