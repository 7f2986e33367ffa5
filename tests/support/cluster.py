"""A cluster on this machine: Slurm's daemons and sshd as Debian packages them, on loopback."""

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.servers import free_port, wait_for
from tests.support.stages import ROOT, run_program

NODES = ("127.0.0.2", "127.0.0.3")
"""Names of nodes, which resolve everywhere."""
SECONDS = 240.0
"""For whatever a job does, on a machine that others use too."""

SLURM_CONF = """ClusterName=rise
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool.%n
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=bf_interval=1,sched_interval=1
KillWait=5
NodeName={nodes[0]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=8
NodeName={nodes[1]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=8
PartitionName=serve Nodes=ALL MaxTime=INFINITE PriorityTier=1 GraceTime=5
PartitionName=train Nodes=ALL MaxTime=INFINITE PriorityTier=1 GraceTime=30
PartitionName=high Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=10
"""
"""Two nodes of eight cores; a job of the last partition preempts those of the others."""


def skip_without(*programs: str) -> None:
    """Skip a test that is not run as root, or that lacks a program."""
    path = f"{os.environ['PATH']}{os.pathsep}/usr/sbin"
    missing = [name for name in programs if shutil.which(name, path=path) is None]
    if os.geteuid() or missing:
        pytest.skip(f"needs root and {', '.join(programs)}; scripts/test.sh installs them as root")


@contextlib.contextmanager
def daemons() -> Iterator[tuple[Path, Callable[..., None]]]:
    """A folder with a short path, as sockets need, and how to start a daemon that ends with it."""
    started: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="nodes") as folder:
        place = Path(folder)
        environment = os.environ | {"SLURM_CONF": f"{place}/slurm.conf"}
        environment["PATH"] += f"{os.pathsep}/usr/sbin"

        def start(program: str, *arguments: str) -> None:
            found = shutil.which(program, path=environment["PATH"])
            with (place / f"{program}.{len(started)}.log").open("w") as log:
                command = [str(found), *arguments]  # sshd wants its whole path
                started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

        try:
            yield place, start
        finally:
            for process in reversed(started):
                process.terminate()
            for process in started:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(20)
                process.kill()
                process.wait()
            _end_whoever_names(folder)


def _end_whoever_names(place: str) -> None:
    """Kill what a job has left: its environment says where it comes from."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if place.encode() in path.read_bytes():
                os.kill(int(path.parent.name), signal.SIGKILL)


class Slurm:
    """A controller and two nodes, as a user sees them."""

    def __init__(self, place: Path):
        self.place = place

    def run(self, *command: object, **environment: str) -> str:
        """The output of one of Slurm's commands, called in the repository."""
        variables = os.environ | environment | {"SLURM_CONF": f"{self.place}/slurm.conf"}
        return run_program(*command, cwd=ROOT, env=variables).stdout

    def submit(self, *command: object, **environment: str) -> str:
        """The number of a new job."""
        return self.run("sbatch", "--parsable", *command, **environment).strip()

    def state(self, job: str) -> tuple[str, int]:
        """What a job does, or how it ended, and how often it was requeued."""
        text = self.run("scontrol", "show", "job", "-o", job)
        return re.findall(r"JobState=(\S+)", text)[0], int(re.findall(r"Restarts=(\d+)", text)[0])

    def reaches(self, job: str, state: str, *restarts: int) -> None:
        """Wait until a job is in a state for which nothing went wrong, after so many restarts."""
        deadline, wanted = time.monotonic() + SECONDS, [(state, n) for n in restarts or (0,)]
        while (now := self.state(job)) not in wanted:
            bad = {"FAILED", "COMPLETED", "CANCELLED", "TIMEOUT", "NODE_FAIL"} - {state}
            if now[0] in bad or time.monotonic() > deadline:
                raise AssertionError(f"job {job} is {now}, not {state}:\n{self._logs()}")
            time.sleep(0.2)

    def _logs(self) -> str:
        return "".join(f"{path}:\n{path.read_text()[-3000:]}" for path in self.place.glob("*.log"))


@contextlib.contextmanager
def slurm() -> Iterator[Slurm]:
    """Slurm with two nodes; skips the test where it cannot be started."""
    skip_without("munged", "slurmctld", "slurmd", "sbatch")
    with daemons() as (place, start):
        ports = [free_port() for _ in range(3)]
        text = SLURM_CONF.format(host=socket.gethostname(), place=place, ports=ports, nodes=NODES)
        (place / "slurm.conf").write_text(text)
        (place / "munge.key").write_bytes(secrets.token_bytes(128))
        (place / "munge.key").chmod(0o400)
        for name in ("state", *(f"spool.{node}" for node in NODES)):
            (place / name).mkdir()
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid"}
        files |= {"seed-file": "seed", "log-file": "daemon.log"}
        words = [f"--{flag}={place}/munge.{name}" for flag, name in files.items()]
        start("munged", "--foreground", "--force", *words)
        wait_for((place / "munge.socket").exists)
        start("slurmctld", "-D", "-i")
        for node in NODES:
            start("slurmd", "-D", "-N", node)
        cluster = Slurm(place)
        wait_for(lambda: cluster.run("sinfo", "-hN", "-o%T").split() == ["idle"] * 6, seconds=60)
        yield cluster


SSHD_CONFIG = """Port {port}
ListenAddress {nodes[0]}
ListenAddress {nodes[1]}
HostKey {place}/key
AuthorizedKeysFile {place}/key.pub
PidFile none
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
StrictModes no
"""
SSH_CONFIG = """Host *
Port {port}
IdentityFile {place}/key
IdentitiesOnly yes
IdentityAgent none
StrictHostKeyChecking no
UserKnownHostsFile {place}/known_hosts
LogLevel ERROR
"""


@contextlib.contextmanager
def ssh_nodes() -> Iterator[Path]:
    """Two nodes that the `ssh` of the folder reaches without a password.

    sshd and its keys end with the block. What is started on the nodes ends too if its environment
    names the folder.
    """
    skip_without("sshd", "ssh", "pdsh")
    separated = Path("/run/sshd")  # sshd wants it
    is_missing = not separated.exists()
    with daemons() as (place, start):
        values = {"port": free_port(), "place": place, "nodes": NODES}
        (place / "sshd_config").write_text(SSHD_CONFIG.format(**values))
        (place / "ssh_config").write_text(SSH_CONFIG.format(**values))
        ssh = f'#!/bin/sh\nexec "{shutil.which("ssh")}" -F "{place}/ssh_config" "$@"\n'
        (place / "ssh").write_text(ssh)
        (place / "ssh").chmod(0o755)
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / "key")]
        subprocess.run(key, check=True)
        separated.mkdir(exist_ok=True)
        try:
            start("sshd", "-D", "-e", "-f", f"{place}/sshd_config")
            ask = [place / "ssh", NODES[1], "true"]
            wait_for(lambda: subprocess.run(ask, capture_output=True).returncode == 0)
            yield place
        finally:
            if is_missing:
                separated.rmdir()
