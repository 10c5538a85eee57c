"""A real Slurm of one node and a real Ray of two, each started for the tests and ended after them."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.run import conftest

# The start of a cluster is in the time of the first test.
wait_for = partial(conftest.wait_for, seconds=240.0)

SLURM = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
SlurmUser=root
SlurmdUser=root
SlurmctldPort={control}
SlurmdPort={node}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
SwitchType=switch/none
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000
PartitionName=debug Nodes={host} Default=YES State=UP
"""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _munge() -> Iterator[None]:
    """Have munged run, Slurm's authentication."""
    with socket.socket(socket.AF_UNIX) as probe:  # the socket of a daemon that was killed is a file that nobody answers
        if probe.connect_ex("/run/munge/munge.socket.2") == 0:
            yield
            return
    key = Path("/etc/munge/munge.key")
    for folder in ("/etc/munge", "/run/munge", "/var/log/munge", "/var/lib/munge"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        shutil.chown(folder, "munge", "munge")
    Path("/run/munge").chmod(0o755)
    if not key.exists():
        key.write_bytes(os.urandom(1024))
    shutil.chown(key, "munge", "munge")
    key.chmod(0o400)
    subprocess.run(["su", "-s", "/bin/sh", "munge", "-c", "munged --force"], check=True)
    yield
    with contextlib.suppress(OSError, ValueError):
        os.kill(int(Path("/run/munge/munged.pid").read_text()), signal.SIGTERM)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which Slurm's commands find a cluster of this one machine."""
    if not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))):
        missing("Slurm is not installed (slurm-wlm, munge)")
    if os.geteuid() != 0:
        missing("Slurm's daemons want root")
    if importlib.util.find_spec("submitit") is None:
        missing("submitit is not installed")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host = socket.gethostname()
    conf = folder / "slurm.conf"
    conf.write_text(SLURM.format(host=host, folder=folder, control=free_port(), node=free_port()))
    environment = {"SLURM_CONF": str(conf)}
    with contextlib.contextmanager(_munge)():
        subprocess.run(["slurmctld"], env={**os.environ, **environment}, check=True, capture_output=True)
        subprocess.run(["slurmd", "-N", host], env={**os.environ, **environment}, check=True, capture_output=True)
        try:
            wait_for(lambda: "idle" in _said("sinfo", environment), "an idle node")
            yield environment
        finally:
            for name in ("slurmd", "slurmctld"):
                with contextlib.suppress(OSError, ValueError):
                    os.kill(int((folder / f"{name}.pid").read_text()), signal.SIGTERM)


def _said(command: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [command, "-h"], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    return done.stdout


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[dict[str, str]]:
    """The environment in which Ray's `auto` is a cluster of two nodes on this machine."""
    if _ray() is None:
        missing("Ray is not installed")
    port = free_port()
    environment = {"RAY_ADDRESS": f"127.0.0.1:{port}", "RAY_TMPDIR": f"/tmp/ablate-ray-{port}"}
    environment["RAY_AUTH_MODE"] = "disabled"  # no token is written into the user's home
    head = ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={environment['RAY_TMPDIR']}"]
    try:
        with ray_node(environment, *head), ray_node(environment):
            yield environment
    finally:
        shutil.rmtree(environment["RAY_TMPDIR"], ignore_errors=True)


@contextlib.contextmanager
def ray_node(environment: dict[str, str], *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A node of one core: the head of the cluster, or one that joins it. All of its processes are in its group."""
    options = ["--num-cpus=1", "--node-ip-address=127.0.0.1", "--disable-usage-stats", "--block"]
    command = [str(_ray()), "start", *(words or (f"--address={environment['RAY_ADDRESS']}",)), *options]
    # What the tests' own processes see is not what the nodes' tasks see.
    clean = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {"RAY_AUTH_MODE": "disabled"}
    before = 0 if words else _alive(environment)
    node = subprocess.Popen(
        [*command, "--object-store-memory=100000000"],
        env=clean,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(lambda: _alive(environment) > before, "a Ray node")
        yield node
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(node.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            node.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(node.pid, signal.SIGKILL)


def _ray() -> str | None:
    beside = Path(sys.executable).with_name("ray")
    return str(beside) if beside.exists() else shutil.which("ray")


def _alive(environment: dict[str, str]) -> int:
    words = [str(_ray()), "status", f"--address={environment['RAY_ADDRESS']}"]
    done = subprocess.run(words, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    return done.stdout.count("node_")
