"""A Slurm of one's own for a test: munge, slurmctld and three nodes on loopback, with or without slurmdbd and MariaDB.

Everything lies in one folder and listens on ports of its own, so that nothing of an installed Slurm is touched; every
process is ended by `stop`. It needs the programs of Debian's packages slurm-wlm, slurmdbd, mariadb-server and munge.
"""

from __future__ import annotations

import contextlib
import ctypes
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
PATH = f"{os.environ.get('PATH', '')}{os.pathsep}{SBIN}"
PROGRAMS = ["munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol"]
ACCOUNTING = ["slurmdbd", "mariadbd", "mariadb-install-db", "sacct", "sacctmgr"]
NODES = ["node1", "node2", "node3"]

SIZE = "CPUs=4 RealMemory=256000 Gres=gpu:2"  # more than the machine has: Slurm believes it

SLURM_CONF = """
ClusterName=test
SlurmctldHost=localhost
SlurmctldPort={ctld}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=30
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool.%n
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
SlurmdParameters=config_overrides
ReturnToService=2
SlurmctldTimeout=300
SlurmdTimeout=300
InactiveLimit=0
KillWait=2
MinJobAge={min_job_age}
MessageTimeout=5
SchedulerParameters=sched_interval=2,bf_interval=2,requeue_setup_env_fail
JobRequeue=1
JobAcctGatherType={gather}
JobAcctGatherFrequency=1
AccountingStorageType={storage}
{accounting}
NodeName=node[1-3] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[{slurmd}-{slurmd_last}] {size}
PartitionName=main Nodes=node[1-3] Default=YES MaxTime=INFINITE DefaultTime=10 OverTimeLimit=0 State=UP
"""
SLURMDBD_CONF = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdPort={dbd}
SlurmUser={user}
PidFile={folder}/slurmdbd.pid
LogFile={folder}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={mariadb}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct
"""


def missing(accounting: bool = True) -> list[str]:
    """Programs that are not installed."""
    return [name for name in PROGRAMS + ACCOUNTING * accounting if not shutil.which(name, path=PATH)]


def marks() -> list[pytest.MarkDecorator]:
    """Of a file of tests that need it."""
    lacking = missing()
    return [pytest.mark.slurm, pytest.mark.skipif(bool(lacking), reason=f"not installed: {', '.join(lacking)}")]


def until(condition: Callable[[], object], what: str, ceiling: float = 600.0, step: float = 0.2):
    """The first true value of `condition`; an AssertionError that says `what` after `ceiling` seconds."""
    deadline = time.monotonic() + ceiling
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {ceiling:.0f} s: {what}"
        time.sleep(step)
    return value


class Cluster:
    """Slurm in a folder; `env` is the environment in which its commands and its users' programs run."""

    def __init__(self, folder: Path, accounting: bool = True, min_job_age: int = 3600):
        self.folder, self.accounting = folder, accounting
        self.ports = dict(zip(("ctld", "slurmd", "dbd", "mariadb"), _free_ports(), strict=True))
        self.running: dict[str, subprocess.Popen] = {}
        self.user = getpass.getuser()
        self.env = dict(os.environ) | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": PATH}
        self.min_job_age = min_job_age

    # -- start and stop ----------------------------------------------------------------------------------------------
    def start(self) -> Cluster:
        try:
            self._configure()
            self.start_munge()
            if self.accounting:
                self.start_database()
                self.start_slurmdbd()
                self.command("sacctmgr", "--immediate", "add", "cluster", "test")
            self.start_slurmctld()
            for node in NODES:
                self.start_node(node)
            until(lambda: self.command("sinfo", "-h", "-N", "-o", "%t").split() == ["idle"] * 3, "three idle nodes")
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End every process of the cluster, those of its jobs included."""
        for name in [*NODES, "slurmctld", "slurmdbd", "mariadb", "munge"]:
            self.kill(name, signal.SIGKILL)
        for _ in range(3):  # those that have just been forked as well
            for pid in self.processes():
                _signal(pid, signal.SIGKILL)
            time.sleep(0.1)

    def __enter__(self) -> Cluster:
        return self.start()

    def __exit__(self, *_) -> None:
        self.stop()

    def _configure(self) -> None:
        for name in ("state", *(f"spool.{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        values = {"folder": self.folder, "user": self.user, "min_job_age": self.min_job_age, "size": SIZE} | self.ports
        gather, storage = "jobacct_gather/linux", "accounting_storage/slurmdbd"
        accounting = f"AccountingStorageHost=localhost\nAccountingStoragePort={self.ports['dbd']}"
        accounting += f"\nAccountingStoragePass={self.folder}/munge.socket"
        if not self.accounting:
            gather, storage, accounting = "jobacct_gather/none", "accounting_storage/none", ""
        text = SLURM_CONF.format(
            gather=gather, storage=storage, accounting=accounting, slurmd_last=self.ports["slurmd"] + 2, **values
        )
        (self.folder / "slurm.conf").write_text(text)
        for n in range(2):  # a GPU is the file of a device; nobody opens it
            (self.folder / f"gpu{n}").touch()
        (self.folder / "gres.conf").write_text(f"Name=gpu File={self.folder}/gpu[0-1]\n")
        (self.folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        (self.folder / "slurmdbd.conf").write_text(SLURMDBD_CONF.format(**values))
        (self.folder / "slurmdbd.conf").chmod(0o600)

    # -- the daemons -------------------------------------------------------------------------------------------------
    def start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid"}
        files |= {"log-file": "munged.log", "seed-file": "munged.seed"}
        options = [f"--{name}={self.folder / file}" for name, file in files.items()]
        self._spawn("munge", ["munged", "--foreground", "--force", *options])
        until(lambda: (self.folder / "munge.socket").exists(), "munge's socket")

    def start_database(self) -> None:
        data, sock = self.folder / "mariadb", self.folder / "mariadb.socket"
        if not data.exists():
            install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", f"--user={self.user}"]
            done = subprocess.run([*install, "--skip-test-db"], env=self.env, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
        where = [f"--datadir={data}", f"--socket={sock}", f"--user={self.user}", f"--port={self.ports['mariadb']}"]
        small = ["--bind-address=127.0.0.1", "--innodb-buffer-pool-size=32M", "--innodb-log-file-size=16M"]
        self._spawn("mariadb", ["mariadbd", "--no-defaults", *where, *small])
        made = "CREATE USER IF NOT EXISTS {0} IDENTIFIED BY 'slurm'; GRANT ALL ON slurm_acct.* TO {0};"
        user = "".join(made.format(name) for name in ("slurm@'%'", "slurm@localhost"))
        call = ["mariadb", "--no-defaults", f"--socket={sock}", f"--user={self.user}", "-e", user]
        until(lambda: subprocess.run(call, env=self.env, capture_output=True).returncode == 0, "MariaDB")

    def start_slurmdbd(self) -> None:
        self._spawn("slurmdbd", ["slurmdbd", "-D"])
        listed = ["sacctmgr", "--noheader", "list", "cluster"]
        until(lambda: subprocess.run(listed, env=self.env, capture_output=True).returncode == 0, "slurmdbd")

    def start_slurmctld(self) -> None:
        self._spawn("slurmctld", ["slurmctld", "-D"])
        ping = ["scontrol", "ping"]
        until(lambda: b"UP" in subprocess.run(ping, env=self.env, capture_output=True).stdout, "slurmctld")

    def start_node(self, name: str) -> None:
        self._spawn(name, ["slurmd", "-D", "-N", name], {"TEST_NODE": name})  # which its slurmstepd have, too

    def _spawn(self, name: str, call: list[str], more: dict[str, str] | None = None) -> None:
        with (self.folder / f"{name}.said").open("ab") as said:
            self.running[name] = started(call, said, env=self.env | (more or {}))

    def kill(self, name: str, how: int = signal.SIGKILL) -> None:
        """End a daemon (`slurmctld`, `slurmdbd`, a node's name ...) and wait for its end."""
        if process := self.running.pop(name, None):
            process.send_signal(how)
            process.wait()

    def lose_node(self, node: str) -> None:
        """A node goes down with all that runs on it, and Slurm learns of it."""
        self.kill(node)
        for own in (f"TEST_NODE={node}", f"SLURMD_NODENAME={node}"):  # what would report a job's end, then the jobs
            for pid, environment in self.processes().items():
                if own in environment:
                    _signal(pid, signal.SIGKILL)
        self.command("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")

    # -- questions ---------------------------------------------------------------------------------------------------
    def processes(self) -> dict[int, set[str]]:
        """Processes in this cluster's environment -> their variables: daemons, steps, and what jobs started."""
        ours = f"SLURM_CONF={self.folder / 'slurm.conf'}"
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                variables = set((folder / "environ").read_bytes().decode(errors="replace").split("\0"))
            except OSError:
                continue
            if ours in variables and int(folder.name) != os.getpid():
                found[int(folder.name)] = variables
        return found

    def command(self, *call: str) -> str:
        """What a command of Slurm says; an AssertionError where it fails."""
        done = subprocess.run(call, env=self.env, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(call)}: {done.stdout}{done.stderr}"
        return done.stdout

    def jobs(self, states: str = "all") -> list[tuple[str, str, str]]:
        """(id, state, comment) of all jobs in some states, oldest first."""
        listed = self.command("squeue", "-h", f"--states={states}", "-o", "%A|%T|%k").splitlines()
        return sorted((tuple(line.split("|", 2)) for line in listed), key=lambda job: int(job[0]))


def started(call: list[str], said: IO[bytes], **options) -> subprocess.Popen:
    """A process in a session of its own, which ends with this one, however it ends; its words go to `said`."""
    prctl = ctypes.CDLL(None).prctl  # loaded before the fork

    def dies_with_us():
        prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where tests are started with `&`

    files = {"stdout": said, "stderr": said, "stdin": subprocess.DEVNULL}
    return subprocess.Popen(call, start_new_session=True, preexec_fn=dies_with_us, **files, **options)


def _signal(pid: int, how: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, how)


def _free_ports() -> list[int]:
    """Ports of slurmctld, of the first of three nodes, of slurmdbd and of MariaDB, each free now."""
    held, ports = [], []
    base = 20000 + secrets.randbelow(30000)
    while len(ports) < 6:
        base += 1
        probe = socket.socket()
        try:
            probe.bind(("127.0.0.1", base))
        except OSError:
            probe.close()
            ports = ports if len(ports) not in (2, 3) else ports[:1]  # the nodes' ports follow each other
            continue
        held.append(probe)
        ports.append(base)
    for probe in held:
        probe.close()
    return [ports[0], ports[1], ports[4], ports[5]]
