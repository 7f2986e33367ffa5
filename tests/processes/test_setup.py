"""scripts/setup.sh on machines without a fitting Python; nothing is installed.

python -m pytest tests/processes/test_setup.py
"""

import re
import shutil

import pytest

from tests.support.stages import ROOT, run_program

NEEDED = ("bash", "cat", "chmod", "cksum", "dirname", "grep", "mkdir")
OLD = "#!/bin/sh\nexit 1\n"
"""A Python that cannot even say its version."""
UV = """#!/usr/bin/env bash
echo "uv $*" >>"$CALLS"
mkdir -p "${@: -1}/bin"
printf '#!/bin/sh\\necho "python $* $DS_ACCELERATOR" >>"$CALLS"\\n' >"${@: -1}/bin/python"
chmod +x "${@: -1}/bin/python"
"""


@pytest.fixture
def machine(tmp_path):
    """A call of setup.sh where PATH has an old Python and what the script needs."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in NEEDED:
        (tools / name).symlink_to(shutil.which(name))

    def setup(python="", code=0, **programs):
        for name, text in {"python3": OLD, **programs}.items():
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        environment = {"PATH": str(tools), "HOME": str(tmp_path), "PYTHON": python}
        environment |= {"VENV": str(tmp_path / "venv"), "CALLS": str(tmp_path / "calls")}
        setup = ROOT / "scripts" / "setup.sh"
        return run_program(tools / "bash", setup, env=environment, code=code)

    return setup


def test_uv_makes_the_environment_where_no_python_fits(machine, tmp_path):
    done = machine(uv=UV)
    assert "uv finds or fetches one" in done.stdout
    steps = [line for line in done.stdout.splitlines() if re.match(r"setup\.sh: \d+:\d\d ", line)]
    assert len(steps) == 5 and f"source {tmp_path}/venv/bin/activate" in steps[-1]
    first, *others = (tmp_path / "calls").read_text().splitlines()
    assert first == f"uv venv -q --seed --allow-existing --python >=3.10,<3.15 {tmp_path}/venv"
    assert any("pip install" in line and "FastChat" in line for line in others)
    # Beside a GPU its build asks for CUDA's compiler otherwise.
    assert sum("deepspeed" in line for line in others) == 1
    assert next(line for line in others if "deepspeed" in line).endswith("deepspeed cpu")
    assert machine().stdout == f"setup.sh: {tmp_path}/venv is up to date\n"


def test_without_a_python_that_fits_it_is_said_what_to_do(machine):
    assert "apt-get install python3-venv" in machine(code=1).stderr
    done = machine(python="python3", uv=UV, code=2)
    assert "PYTHON=python3 is no Python 3.10 to 3.14" in done.stderr
