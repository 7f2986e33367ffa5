"""An output on a file system that is read only: one line with flag, value and remedy.

python -m pytest tests/processes/test_read_only.py
"""

import json
import shutil
import subprocess
import sys

import pytest

from rise.episodes.shorthand import sketch
from tests.support.conversion import write_run
from tests.support.stages import ROOT, environment

MOUNTED = 'mount -t tmpfs -o ro tmpfs RO && exec "$@"'


@pytest.fixture
def read_only(tmp_path):
    """Runs a script where RO is such a file system; returns what it said in its one line."""
    (tmp_path / "RO").mkdir()
    prefix = [shutil.which("unshare") or "false", "-rm", "bash", "-c", MOUNTED, "bash"]
    if subprocess.run([*prefix, "true"], cwd=tmp_path, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here in a name space of its own")

    def refused(script, *arguments, notes=False):
        words = [*prefix, sys.executable, str(ROOT / script), *arguments]
        env = environment()
        done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 2 and bool(done.stdout) == notes, done.stderr
        assert len(done.stderr.splitlines()) == 1 and "Read-only file system" in done.stderr
        return done.stderr

    return refused


def test_embedded_problems_and_a_conversion(read_only, tmp_path):
    said = read_only("data/arithmetic.py", "--output_dir", "RO/x")
    assert "--output_dir RO/x: give a folder that can be written to" in said
    write_run(tmp_path / "run", sketch("w7 r5"))
    said = read_only("workflow_convert.py", "--filepath", "run", "--output", "RO/a/f.json")
    assert "--output RO/a/f.json: " in said and "give a place that you may write to" in said


@pytest.mark.parametrize("source", ["network", "file"])
def test_fetched_data(read_only, tmp_path, source):
    row = {"question": "What is 1 + 1?", "answer": "1+1=2\n#### 2"}
    (tmp_path / "test.jsonl").write_text(json.dumps(row) + "\n")
    given = ["--from", "test.jsonl"] if source == "file" else ["--base_url", "http://127.0.0.1:9"]
    # With --from a note on the checksum comes first, on standard output.
    words = ("data/fetch.py", "gsm8k", *given, "--output_dir", "RO/d")
    said = read_only(*words, notes=source == "file")
    assert "--output_dir RO/d: give a folder that you may write to" in said
