"""A disk that fills while a checkpoint is saved: one line, and the same command goes on later.

python -m pytest tests/processes/test_trainer_full_disk.py
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastchat.train.checkpoints import saving
from tests.support.training_data import command, make_case, record

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "FastChat/fastchat/train/train_mem.py"
TWICE = """
mount -t tmpfs -o size="$SIZE" tmpfs disk || exit 9
for attempt in full free; do
    if [ "$attempt" = free ]; then mount -o remount,size=16m disk; fi
    "$@" >"$attempt.out" 2>"$attempt.err"
    echo "$?" >"$attempt.code"
done
cp disk/out/training.json .
"""


@pytest.fixture
def small_disk(tmp_path):
    """Trains on a disk of some size, and again once it has grown; what both attempts said."""
    unshare = shutil.which("unshare") or "false"
    (tmp_path / "disk").mkdir()
    tried = [unshare, "-rm", "mount", "-t", "tmpfs", "tmpfs", tmp_path / "disk"]
    if subprocess.run(tried, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here in a name space of its own")
    words = command(make_case(tmp_path), Path("disk/out"), "--save_steps", "1", "--max_steps", "3")

    def train(size):
        subprocess.run(
            [unshare, "-rm", "bash", "-c", TWICE, "bash", sys.executable, SCRIPT, *words],
            cwd=tmp_path,
            env=os.environ | {"SIZE": size, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            check=True,
        )
        return [
            [(tmp_path / f"{attempt}.{name}").read_text() for name in ("code", "out", "err")]
            for attempt in ("full", "free")
        ]

    return train


@pytest.mark.parametrize(
    ("size", "where", "cause"),
    [
        ("150k", "checkpoint-1", "No space left on device"),  # the weights: safetensors
        ("500k", "checkpoint-1", "inline_container"),  # the optimizer: torch
        ("1300k", "checkpoint-2", ""),
    ],
)
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    small_disk, tmp_path, size, where, cause
):
    (code, out, err), (later, resumed, _) = small_disk(size)
    assert code == "1\n" and "Traceback" not in out + err, err
    [line] = [line for line in err.splitlines() if "error: " in line]
    assert line.startswith(f"train_mem.py: error: the system refused: disk/out/{where} cannot be ")
    assert cause in line and "the same command goes on from the last complete checkpoint" in line
    assert later == "0\n"
    assert ("resuming from disk/out/checkpoint-1" in resumed) == (where == "checkpoint-2")
    assert record(tmp_path)["steps"] == 3


def test_other_errors_while_saving_are_not_the_disks(tmp_path):
    with pytest.raises(RuntimeError, match="^CUDA"), saving(tmp_path):
        raise RuntimeError("CUDA error")
