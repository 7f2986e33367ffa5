"""Two nodes that ssh reaches train what one process does, started by DeepSpeed's pdsh.

python -m pytest tests/processes/test_nodes.py
"""

import os
import shlex
import sys
from pathlib import Path

import pytest

from fastchat.train.train import main
from tests.processes.test_launchers import ROOT, run
from tests.support.cluster import NODES, SECONDS, ssh_nodes
from tests.support.servers import free_port
from tests.support.training_data import figures, make_case, record

pytestmark = pytest.mark.timeout(2 * SECONDS)


def test_a_hostfile_trains_on_its_nodes_what_one_process_does(tmp_path):
    model, data = make_case(tmp_path, count=16)
    (tmp_path / "hostfile").write_text("".join(f"{node} slots=1\n" for node in NODES))
    folder = Path(sys.executable).parent
    knobs = {"MODEL": str(model), "DATA_PATH": str(data), "OUTPUT_DIR": str(tmp_path / "two")}
    knobs |= {"HOSTFILE": str(tmp_path / "hostfile"), "MASTER_ADDR": NODES[0], "ACCUMULATION": "4"}
    knobs |= {"MASTER_PORT": str(free_port()), "REPORT_TO": "none"}
    with ssh_nodes() as place:
        knobs["PATH"] = os.pathsep.join([str(place), str(folder), os.environ["PATH"]])
        # DeepSpeed hands it on.
        knobs["PYTHONPATH"] = os.pathsep.join([str(ROOT / "FastChat"), str(place)])
        flags = ["--bf16", "False", "--max_steps", "2", "--learning_rate", "1e-3"]
        script = ["bash", ROOT / "scripts" / "finetune_deepspeed.sh", *flags]
        printed = run(script, VIRTUAL_ENV=str(folder.parent), **knobs)

    launched = next(line for line in printed.splitlines() if line.startswith("+ deepspeed"))
    words = shlex.split(launched)
    own = words[words.index("--model_name_or_path") :]
    own += ["--output_dir", str(tmp_path / "one"), "--gradient_accumulation_steps", "8"]
    assert main(own) == 0
    found = record(tmp_path / "two")
    assert (found["status"], found["processes"]) == ("finished", 2)
    assert found["settings"]["zero_stage"] == 3
    for key in ("loss", "grad_norm"):
        expected = figures(tmp_path / "one", key)
        assert len(expected) == 2
        assert figures(tmp_path / "two", key) == pytest.approx(expected, rel=1e-5)
