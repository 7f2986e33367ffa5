"""A pipe into `head` or `true`: no traceback, exit code 141, and what was written is kept.

python -m pytest tests/processes/test_broken_pipe.py
"""

import os
import subprocess
import sys

import pytest

from rise.episodes.journal import load_episodes
from rise.episodes.shorthand import sketch
from rise.program.exits import BROKEN_PIPE, run_program, usage_errors
from tests.support import run_dirs
from tests.support.conversion import write_run
from tests.support.stages import ROOT, command, environment, write_inputs


def unread(words, place, streams=("stdout",), **changes):
    """Run a program whose output nobody reads; returns (code, what it said on stderr)."""
    reader, writer = os.pipe()
    os.close(reader)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | dict.fromkeys(streams, writer)
    done = subprocess.run(
        [str(word) for word in words],
        cwd=place,
        env=environment(**changes),
        text=True,
        check=False,
        **pipes,
    )
    os.close(writer)
    return done.returncode, done.stderr or ""


@pytest.mark.parametrize("changes", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_a_comparison(tmp_path, changes):
    runs = [run_dirs.write_run(tmp_path / name, "w7 r5") for name in ("base", "rise")]
    words = [sys.executable, "-m", "rise.compare", *runs]
    assert unread(words, tmp_path, **changes) == (141, "")
    assert unread(words, tmp_path, ("stdout", "stderr"), **changes)[0] == 141


def test_an_evaluation_keeps_its_episodes(tmp_path):
    write_inputs(tmp_path)
    words = command("workflow_eval.py", "--model", "experts.py:student", "--log_dir", "log")
    code, said = unread(words, tmp_path)
    assert code == 141 and "Traceback" not in said and "rror" not in said
    assert len(load_episodes(tmp_path / "log")) == 12


def test_a_conversion_keeps_its_data(tmp_path):
    write_run(tmp_path / "run", sketch("w7 r5"))
    script = ROOT / "workflow_convert.py"
    words = [sys.executable, script, "--filepath", "run", "--output", "data.json"]
    assert unread(words, tmp_path, PYTHONUNBUFFERED="1") == (141, "")
    assert (tmp_path / "data.json").exists()


def test_a_broken_pipe_is_no_usage_error(capsys):
    def main():
        with usage_errors():
            raise BrokenPipeError

    with pytest.raises(SystemExit) as exit_:
        run_program(main)
    assert exit_.value.code == BROKEN_PIPE == 141
    assert capsys.readouterr() == ("", "")
