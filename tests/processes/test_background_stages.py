"""What a script runs on the second core ends with it, however it ends.

python -m pytest tests/processes/test_background_stages.py
"""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.servers import alive, wait_for

STAGES = Path(__file__).parents[2] / "scripts" / "stages.sh"
SCRIPT = f"""set -euo pipefail
. {STAGES}
beside() {{ stage beside sleep 600; }}
background beside
echo "$BESIDE" >"$OUT/beside"
stage here sleep "$SECONDS_HERE"
exit 1
"""


@pytest.mark.parametrize("killed", [True, False])
def test_a_script_that_ends_leaves_no_stage_behind(tmp_path, killed):
    process = subprocess.Popen(
        ["bash", "-c", SCRIPT],
        env=os.environ | {"OUT": str(tmp_path), "SECONDS_HERE": "600" if killed else "2"},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    logs = [tmp_path / "logs" / f"{name}.log.group" for name in ("beside", "here")]
    files = [tmp_path / "beside", *logs]
    wait_for(lambda: all(file.exists() and file.read_text().strip() for file in files))
    groups = [file.read_text().strip() for file in files]
    assert all(map(alive, groups))
    if killed:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not any(map(alive, groups)))


def test_a_stage_has_time_to_save_what_it_has(tmp_path):
    step = "trap 'sleep 9 & wait; touch $OUT/checkpoint; exit 143' TERM; touch $OUT/begun;"
    step += " while :; do sleep 0.1; done"
    process = subprocess.Popen(
        ["bash", "-c", f'. {STAGES}; stage train bash -c "$STEP"'],
        env=os.environ | {"OUT": str(tmp_path), "STEP": step},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for((tmp_path / "begun").exists)
    group = (tmp_path / "logs" / "train.log.group").read_text().strip()
    process.kill()
    process.wait()
    wait_for(lambda: not alive(group))
    assert (tmp_path / "checkpoint").exists()
