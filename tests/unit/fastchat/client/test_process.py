"""What a server that ended says of its arguments.

python -m pytest tests/unit/fastchat/client/test_process.py
"""

import time

import pytest

from fastchat.client.process import Child


@pytest.mark.parametrize(
    ("command", "refusal"),
    [
        (
            "echo 'worker.py: error: no model at\n  /here (--help lists the flags)'; exit 2",
            "no model at /here",
        ),
        ("echo something else; exit 2", None),
        ("echo 'worker.py: error: out of memory'; exit 1", None),
    ],
)
def test_only_a_refusal_of_arguments_counts_as_one(tmp_path, command, refusal):
    child = Child("worker", ["sh", "-c", command], tmp_path / "worker.log")
    while child.code is None:
        time.sleep(0.01)
    assert child.refusal() == refusal
