"""A server in a process of its own: its port, and what it says when it ends.

python -m pytest tests/unit/fastchat/client/test_process.py
"""

import socket
import time

import pytest

from fastchat.client import process
from fastchat.client.process import Child, free_ports


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


def test_a_free_port_is_none_that_a_connection_may_get_or_a_server_has(monkeypatch):
    ports = free_ports(50)
    assert len({*ports}) == 50 and max(ports) < 32_768  # where Linux begins for connections
    monkeypatch.setattr(process, "_PORTS", range(ports[0], ports[0] + 1))
    assert free_ports(1) == ports[:1]
    with socket.socket() as server:
        server.bind(("127.0.0.1", ports[0]))
        with pytest.raises(OSError, match=f"ports of {ports[0]} to {ports[0]} are free"):
            free_ports(1)
