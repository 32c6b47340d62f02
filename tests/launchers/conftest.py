"""Engines for sweeps, as real as one machine allows: Slurm with one node on loopback, and a two-node Ray cluster."""

import importlib.util
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.conftest import application, start, teacher, tiny

assert application and start and teacher and tiny  # fixtures

SLURM = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
KillWait=10
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="session")
def daemons() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a process that is killed at the end of the session, with all its children."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*command: str, log: Path, **environment: str) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            env = {**os.environ, **environment}
            process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True, env=env)
        started.append(process)
        return process

    yield run
    for process in reversed(started):
        end(process)


def end(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL a daemon and its group."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports: list[int] = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def until(command: list[str], words: str, log: Path, **environment: str) -> None:
    """Wait until a command prints `words`."""
    limit = time.monotonic() + 120
    while words not in subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}).stdout:
        assert time.monotonic() < limit, log.read_text()[-2000:]
        time.sleep(0.5)


@pytest.fixture(scope="session")
def slurm(daemons: Callable[..., object], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which `sbatch` submits to a Slurm of one node with two processors."""
    need("submitit")
    if missing := [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if not shutil.which(name)]:
        pytest.skip(f"needs {', '.join(missing)}: apt-get install slurm-wlm munge")
    if os.geteuid():
        pytest.skip("needs root, as which slurmd starts jobs")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    text = SLURM.format(host=socket.gethostname(), user="root", folder=folder, ports=free_ports(2))
    (folder / "slurm.conf").write_text(text)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    daemons("munged", "-F", "--force", *(f"--{k}={folder}/munge.{v}" for k, v in files.items()), log=folder / "log")
    environment, log = {"SLURM_CONF": str(folder / "slurm.conf")}, folder / "log"
    until(["munge", "-n", f"--socket={folder}/munge.socket"], "MUNGE:", log)
    daemons("slurmctld", "-D", "-c", log=log, **environment)
    daemons("slurmd", "-D", log=log, **environment)
    until(["sinfo", "--noheader"], " idle ", log, **environment)
    yield environment
    # Its jobs are not children of the daemons: they have ended once the node is idle again.
    subprocess.run(["scancel", "--me"], env={**os.environ, **environment}, check=False)
    until(["sinfo", "--noheader"], " idle ", log, **environment)


@pytest.fixture
def ray_nodes(
    daemons: Callable[..., "subprocess.Popen[bytes]"],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[str, list["subprocess.Popen[bytes]"]]]:
    """The address of a Ray cluster and its two single-CPU nodes, the head first."""
    need("ray")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # it listens beyond loopback
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    log, [port] = tmp_path_factory.mktemp("ray") / "log", free_ports(1)
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    common = ("--num-cpus=1", "--block", "--disable-usage-stats", "--object-store-memory=100000000")
    head = daemons(*ray, "start", "--head", f"--port={port}", "--include-dashboard=false", *common, log=log)
    until(["cat", str(log)], "Ray runtime started", log)
    [address] = re.findall(r"ray start --address='(.*?)'", log.read_text())  # Ray replaces loopback by the machine's address
    node = daemons(*ray, "start", f"--address={address}", *common, log=log)
    until([*ray, "status", f"--address={address}"], "/2.0 CPU", log)
    yield address, [head, node]
    for process in (node, head):
        end(process)


def need(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"needs {module}: pip install 'findistill[{module}]'")


def workers(runs: Path) -> dict[str, int]:
    """The processes that are running jobs: name of the job's lock -> process id."""
    holders = {}
    for process in Path("/proc").glob("[0-9]*"):
        for link in open_files(process):
            with suppress(OSError):  # closed since
                target = link.readlink()
                if target.parent == runs / ".artifacts" and target.name.startswith("job-"):
                    holders[target.name] = int(process.name)
    return holders


def open_files(process: Path) -> list[Path]:
    """The links to a process's open files; none if it has ended."""
    try:
        return [*(process / "fd").iterdir()]
    except OSError:
        return []
