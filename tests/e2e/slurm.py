"""A cluster of one node: munged, slurmctld and slurmd in a folder of their own.

    with slurm.cluster() as cluster:
        cluster.run("sbatch", "--wrap", "true")

Nothing outside the folder is used or changed but two free ports of this machine; a Slurm that
runs here already is not met.  Everything is started as the user who runs the tests, ended by
process id, and ends by itself when the tests are killed.
"""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from helpers import run, wait_until

DAEMONS = ("munged", "slurmctld", "slurmd")
COMMANDS = ("sbatch", "squeue", "scontrol", "scancel")
PACKAGES = "slurmctld, slurmd, slurm-client and munge (contrib/setup.sh --dev)"

# What makes a real cluster wait is short here: cred_expire is how long a requeued job must
# wait, KillWait the time between SIGTERM and SIGKILL.  What the machine really has does not
# count (config_overrides), so that three tasks run at the same time on any.
CONFIG = """
ClusterName=hct
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
KillWait=10
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 CPUs=3 RealMemory=1000000
PartitionName=work Nodes=n1 Default=YES PriorityTier=1
PartitionName=urgent Nodes=n1 PriorityTier=9 PreemptMode=OFF
"""


def find(program):
    """The path of a program, also of one in a folder that PATH has for root only."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")


def missing():
    """Why no cluster can be started here, or None."""
    lacking = [p for p in DAEMONS + COMMANDS if not find(p)]
    return f"{', '.join(lacking)} not found: needs {PACKAGES}" if lacking else None


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


class Cluster:
    def __init__(self, folder):
        self.folder = folder
        self.processes = []
        self.env = {"SLURM_CONF": str(folder / "slurm.conf"), "SQUEUE_FORMAT": "%i %T %r"}

    def run(self, *command, **options):
        """helpers.run with the cluster's configuration."""
        return run(*command, env={**self.env, **options.pop("env", {})}, **options)

    def logs(self):
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-4000:]}"
            for path in sorted(self.folder.glob("*.log"))
        )

    def start(self, program, *words):
        with open(self.folder / f"{program}.out.log", "wb") as log:
            self.processes.append(
                subprocess.Popen(
                    ["setpriv", "--pdeathsig", "TERM", find(program), *map(str, words)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **self.env},
                    cwd=self.folder,
                    start_new_session=True,
                )
            )

    def await_or_fail(self, condition, what, timeout=120.0):
        if not wait_until(condition, timeout, interval=0.05):
            queue = self.run("squeue", expect=None).stdout
            pytest.fail(f"after {timeout:.0f} s: {what}\n{queue}\n{self.logs()}", pytrace=False)

    def jobs(self):
        """{job or job_task: (state, restarts)} of what the controller still knows."""
        text = self.run("scontrol", "-o", "show", "job", expect=None).stdout
        found = {}
        for line in text.splitlines():
            words = dict(word.split("=", 1) for word in line.split() if "=" in word)
            if "JobId" not in words:
                continue
            name = words["JobId"]
            if "ArrayTaskId" in words:
                name = f"{words['ArrayJobId']}_{words['ArrayTaskId']}"
            found[name] = (words["JobState"], int(words.get("Restarts", 0)))
        return found

    def is_idle(self):
        done = self.run("scontrol", "-o", "show", "node", "n1", expect=None)
        return "State=IDLE " in done.stdout

    def up(self):
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        host = socket.gethostname().split(".")[0]
        (self.folder / "slurm.conf").write_text(
            CONFIG.format(
                folder=self.folder, host=host, user=getpass.getuser(), ports=free_ports(2)
            )
        )
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        munge_socket = self.folder / "munge.socket"
        self.start(
            "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={munge_socket}",
            f"--log-file={self.folder}/munged.log", f"--pid-file={self.folder}/munged.pid",
            f"--seed-file={self.folder}/munged.seed",
        )  # fmt: skip
        self.await_or_fail(munge_socket.exists, "munged does not answer")
        self.start("slurmctld", "-D", "-f", self.folder / "slurm.conf")
        self.start("slurmd", "-D", "-f", self.folder / "slurm.conf")
        self.await_or_fail(self.is_idle, "the node is not there")

    def down(self):
        """Ends jobs first, then what was started, the last one first."""
        self.run("scancel", "--user", getpass.getuser(), expect=None, timeout=30)
        wait_until(lambda: not self.run("squeue", "-h", expect=None).stdout, 15.0, 0.2)
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def cluster():
    """A running Cluster.  Skips the test where Slurm is not installed; with HCT_REQUIRE_SLURM
    it fails instead."""
    reason = missing()
    if reason:
        if os.environ.get("HCT_REQUIRE_SLURM"):
            pytest.fail(f"HCT_REQUIRE_SLURM is set but {reason}", pytrace=False)
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="hct-slurm-"))  # short: it holds a socket
    one = Cluster(folder)
    try:
        one.up()
        yield one
    finally:
        one.down()
        shutil.rmtree(folder, ignore_errors=True)
