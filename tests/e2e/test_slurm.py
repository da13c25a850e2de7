"""contrib/slurm on a cluster of one node: three machines' work, each interrupted on the way.

Needs Slurm (contrib/setup.sh --dev); HCT_REQUIRE_SLURM=1 makes its absence a failure.
"""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import slurm
from helpers import HCT, MKHCT, ROOT, make_sharded_model, run, tree_digests
from shim_tool import preload

SUBMIT = ROOT / "contrib" / "slurm" / "submit.sh"
OPTIONS = ("--effort", "9", "--checkpoint-interval", "1")

# Stands in for mkhct: becomes it, but the first run of each part is stopped before it saves its
# state for the fifth time (tests/crash/shim.c), so that a test meets every part on its way whatever
# the speed of the machine.
HOLD = """#!{python} -B
import os, re, sys, time
words = " ".join(sys.argv[1:])
part = "SLURM_JOB_ID" in os.environ and re.search(r"--shards (\\d+)/(\\d+)", words)
mark = part and f"{marks}/" + part[1]
if part and not os.path.exists(mark + ".met"):
    open(mark + ".met", "w").close()
    os.environ.update({hold!r}, SHIM_ROOT=sys.argv[-1])
    me = os.getpid()
    if os.fork() == 0:
        if os.fork() == 0:
            state = lambda: open(f"/proc/{{me}}/stat").read().rpartition(")")[2].split()[0]
            try:
                while state() not in "TZ":
                    time.sleep(.01)
                save = f"{{sys.argv[-1]}}/.hct/checkpoint-{{part[1]}}-of-{{part[2]}}.json"
                with open(save) as file:
                    held = re.search(r'"completed_tensors":\\s*[1-9]', file.read())
            except OSError:
                held = None
            with open(mark + ".new", "w") as file:
                file.write(str(me) if held else "0")
            os.rename(mark + ".new", mark + ".held")
        os._exit(0)
    os.wait()
os.execv({mkhct!r}, [{mkhct!r}] + sys.argv[1:])
"""


@pytest.fixture(scope="module")
def cluster():
    with slurm.cluster() as one:
        yield one


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of seven shards, and what one machine makes of it."""
    top = tmp_path_factory.mktemp("slurm")
    source = make_sharded_model(top / "source", shards=7, layers=8, width=384)
    run(MKHCT, "-q", *OPTIONS, source, top / "alone.hct")
    return source, top / "alone.hct"


class Work:
    """One submission: the bundle, the logs, and the mkhct that holds its parts."""

    def __init__(self, cluster, source, folder):
        self.cluster, self.source, self.folder = cluster, source, folder
        self.bundle = folder / "shared bundle.hct"
        self.mkhct = folder / "mkhct"
        hold = preload(SHIM_ONLY="rename", SHIM_AT="5", SHIM_DO="stop")
        self.mkhct.write_text(
            HOLD.format(python=sys.executable, marks=folder, mkhct=str(MKHCT), hold=hold)
        )
        self.mkhct.chmod(0o755)

    def submit(self, *options, mkhct=None, expect=0, words=OPTIONS, env=None):
        command = ["timeout", "180", SUBMIT, "--cpus", "1", "--memory", "256M", "--logs", self.folder, *options]
        env = {"MKHCT": str(mkhct or self.mkhct), "MKHCT_PAUSE": "1", **(env or {})}
        return self.cluster.run(
            *command, self.source, self.bundle, "--", *words,
            env=env, expect=expect, cwd=self.folder,
        )  # fmt: skip

    def logs(self):
        return "\n".join(f"{p.name}: {p.read_text()}" for p in sorted(self.folder.glob("*.log")))

    def held(self, part):
        """The process id of a part's mkhct once it is stopped in the middle of its work."""
        mark = self.folder / f"{part}.held"
        self.cluster.await_or_fail(mark.exists, f"part {part} does not run\n{self.logs()}")
        pid = int(mark.read_text())
        assert pid, f"part {part} was not stopped with a tensor saved\n{self.logs()}"
        return pid

    def parts_on_disk(self):
        """{final name: inode} of model files that are under way."""
        return {p.name[1:-5]: p.stat().st_ino for p in self.bundle.glob(".*.hct.part")}

    def await_state(self, job, wanted, timeout=180.0):
        self.cluster.await_or_fail(
            lambda: self.cluster.jobs().get(job, ("", 0))[0] == wanted,
            f"job {job} is not {wanted}: {self.cluster.jobs()}\n{self.logs()}", timeout,
        )  # fmt: skip

    def await_said(self, job, text):
        log = self.folder / f"mkhct-{job}.log"
        self.cluster.await_or_fail(
            lambda: log.exists() and text in log.read_text(), f"no '{text}' of {job}\n{self.logs()}"
        )

    def restarts(self, job):
        return self.cluster.jobs()[job][1]


@pytest.fixture
def work(cluster, model, tmp_path):
    one = Work(cluster, model[0], tmp_path)
    yield one
    cluster.run("scancel", "--user", str(os.getuid()), expect=None)
    for mark in tmp_path.glob("*.held"):  # nothing stays stopped when a test has failed
        pid = int(mark.read_text())
        words = Path(f"/proc/{pid}/cmdline")
        if pid and words.exists() and os.fsencode(one.bundle) in words.read_bytes():
            os.kill(pid, signal.SIGKILL)


def job_of(done):
    """The array's number from what submit.sh prints."""
    return done.stdout.split("submit: job ")[1].split(":")[0]


def timeless(report):
    """A report without what differs between two runs that make the same bundle."""
    if isinstance(report, dict):
        return {k: timeless(v) for k, v in report.items() if k not in ("seconds", "time", "date")}
    return [timeless(v) for v in report] if isinstance(report, list) else report


def same_bundle(one, other):
    """Byte by byte, but for the report's times."""
    files, others = tree_digests(one), tree_digests(other)
    assert files.keys() == others.keys()
    reports = {name for name in files if name.startswith(".hct/")}
    assert ".hct/report.json" in reports
    assert {n: d for n, d in files.items() if n not in reports} == {
        n: d for n, d in others.items() if n not in reports
    }
    texts = [json.loads((top / ".hct/report.json").read_text()) for top in (one, other)]
    assert timeless(texts[0]) == timeless(texts[1])


def test_each_worker_is_ended_on_the_way_and_the_bundle_is_the_same(cluster, model, work):
    array = job_of(work.submit("--tasks", "3"))
    finish = str(int(array) + 1)
    pids = {part: work.held(part) for part in (1, 2, 3)}
    under_way = work.parts_on_disk()
    assert under_way

    # The warning before the time limit goes to the batch shell alone; mkhct must get it.
    cluster.run("scancel", "--batch", "--signal=TERM", f"{array}_1")
    os.kill(pids[1], signal.SIGCONT)
    # A worker dies.
    os.kill(pids[2], signal.SIGKILL)
    cluster.await_or_fail(
        lambda: work.restarts(f"{array}_1") >= 1, f"part 1 is not begun again\n{work.logs()}"
    )
    work.await_said(f"{array}_2", "retry 1 of 3")
    # Somebody more important takes the node.
    cluster.run("sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=true")

    work.await_state(finish, "COMPLETED")
    jobs = cluster.jobs()
    assert {jobs[f"{array}_{part}"][0] for part in (1, 2, 3)} == {"COMPLETED"}
    assert all(work.restarts(f"{array}_{part}") >= 1 for part in (1, 3)), jobs
    # They went on with what they had saved, in the files that they had begun.
    for part in (1, 2, 3):
        assert "going on with" in (work.folder / f"mkhct-{array}_{part}.log").read_text()
    for name, inode in under_way.items():
        assert (work.bundle / name).stat().st_ino == inode, name
    same_bundle(work.bundle, model[1])
    run(HCT, "check", work.bundle)


def test_cancelled_jobs_stay_so_and_the_same_command_goes_on(cluster, model, work):
    array = job_of(work.submit("--tasks", "2"))
    for part in (1, 2):
        work.held(part)
    under_way = work.parts_on_disk()
    busy = work.submit("--tasks", "2", expect=2)
    assert "in the queue already" in busy.stderr
    cluster.run("scancel", array)
    work.await_state(str(int(array) + 1), "CANCELLED")
    work.await_state(f"{array}_2", "CANCELLED")
    cluster.await_or_fail(
        lambda: not cluster.run("squeue", "--noheader").stdout, f"jobs stay\n{work.logs()}"
    )
    assert work.restarts(f"{array}_2") == 0

    again = job_of(work.submit("--tasks", "2"))
    work.await_state(str(int(again) + 1), "COMPLETED")
    for name, inode in under_way.items():
        assert (work.bundle / name).stat().st_ino == inode, name
    same_bundle(work.bundle, model[1])

    submitted = cluster.jobs().keys()
    assert "is finished already" in work.submit("--tasks", "2").stdout
    assert cluster.jobs().keys() == submitted


def test_preemptions_do_not_use_up_the_retries(cluster, model, work):
    """Run 1 and 2 are taken from the node, 3 meets a system error, 4 does the part."""
    fake = work.folder / "fails"
    fake.write_text(
        f"""#!/bin/sh
[ "${{SLURM_ARRAY_TASK_ID:-}}" ] || exec {MKHCT} "$@"
echo >>{work.folder}/runs
case $(wc -l <{work.folder}/runs) in
1 | 2) echo "run $(wc -l <{work.folder}/runs) waits" && exec sleep 60 ;;
3) exit 3 ;;
esac
exec {MKHCT} "$@"
"""
    )
    fake.chmod(0o755)
    array = job_of(work.submit("--tasks", "1", mkhct=fake, env={"MKHCT_RETRIES": "1"}))
    for count in (1, 2):
        work.await_said(f"{array}_1", f"run {count} waits")
        cluster.run("scontrol", "requeue", f"{array}_1")
    work.await_state(str(int(array) + 1), "COMPLETED")
    assert work.restarts(f"{array}_1") == 2
    assert "exit code 3; retry 1 of 1" in work.logs()
    same_bundle(work.bundle, model[1])


def test_a_wrong_option_ends_everything_at_once(cluster, work):
    done = work.submit("--tasks", "2", "--wait", mkhct=MKHCT, words=("--keep", "nosuch"), expect=1)
    assert "is not finished" in done.stderr
    array = job_of(done)
    assert "nosuch" in (work.folder / f"mkhct-{array}_1.log").read_text()
    for part in (1, 2):
        assert cluster.jobs()[f"{array}_{part}"] == ("FAILED", 0)
