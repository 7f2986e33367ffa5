"""A disk that fills while a checkpoint is saved: one line, and the same command goes on later.

python -m pytest tests/processes/test_trainer_full_disk.py
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastchat.train.checkpoints import saving
from tests.support.servers import ENVIRONMENT
from tests.support.training_data import command, make_case

SIZES = ("150k", "500k", "1300k")
TWICE = """
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


@pytest.fixture(scope="module")
def small_disks(tmp_path_factory):
    """What two trainings on a disk of each size said, the second of them once it had grown."""
    place = tmp_path_factory.mktemp("place")
    unshare = shutil.which("unshare") or "false"
    (place / "disk").mkdir()
    tried = [unshare, "-rm", "mount", "-t", "tmpfs", "tmpfs", place / "disk"]
    if subprocess.run(tried, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here in a name space of its own")
    words = command(make_case(place), Path("out"), "--save_steps", "1", "--max_steps", "3")
    program = [unshare, "-rm", sys.executable, "-c", TWICE, " ".join(SIZES), *words]
    done = subprocess.run(program, cwd=place, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads((place / "said.json").read_text())


@pytest.mark.parametrize(
    ("size", "where", "cause"),
    [
        (SIZES[0], "checkpoint-1", "No space left on device"),  # the weights: safetensors
        (SIZES[1], "checkpoint-1", "inline_container"),  # the optimizer: torch
        (SIZES[2], "checkpoint-2", ""),
    ],
)
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(small_disks, size, where, cause):
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
