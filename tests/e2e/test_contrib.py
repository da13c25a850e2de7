"""What contrib/ has for clusters, as far as it can be tested without one.

The Jobs of Kubernetes are held against what its documentation asks of an indexed Job; submit.sh
prints what it would submit.  test_slurm.py runs the latter.
"""

import os
import re
import shlex
import signal
import subprocess

import pytest
from helpers import EXIT_USAGE, MKHCT, ROOT, make_safetensors, run

KUBERNETES = ROOT / "contrib" / "kubernetes"
SUBMIT = ROOT / "contrib" / "slurm" / "submit.sh"
ARRAY = ROOT / "contrib" / "slurm" / "mkhct-array.sbatch"


def mebibytes(text):
    number, unit = re.fullmatch(r"(\d+)([MG])i?", text).groups()
    return int(number) * {"M": 1, "G": 1024}[unit]


def document(name):
    """The only document of a YAML file, without a key that is given twice."""
    yaml = pytest.importorskip("yaml")

    class Strict(yaml.SafeLoader):
        pass

    def mapping(loader, node):
        pairs = loader.construct_pairs(node, deep=True)
        assert len(dict(pairs)) == len(pairs), f"{name}: a key twice in {pairs}"
        return dict(pairs)

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    return yaml.load((KUBERNETES / name).read_text(), Strict)


def job_parts(name):
    """Specification of a Job, of its pods, and their one container."""
    job = document(name)
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    spec = job["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    return spec, pod, container


@pytest.fixture(scope="module", params=["mkhct-job.yaml", "mkhct-finish.yaml"])
def job(request):
    return job_parts(request.param)


def test_a_wrong_command_line_is_not_tried_again_and_a_preemption_always_is(job):
    spec, pod, container = job
    assert pod["restartPolicy"] == "Never"  # asked for by podFailurePolicy
    assert spec["podReplacementPolicy"] == "Failed"  # never two pods of one part
    rules = spec["podFailurePolicy"]["rules"]
    assert rules[0]["action"] == "Ignore"
    assert rules[0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    actions = {}
    for rule in rules:
        # Each rule has one of the two, and a FailIndex needs backoffLimitPerIndex.
        assert ("onExitCodes" in rule) != ("onPodConditions" in rule)
        if codes := rule.get("onExitCodes"):
            assert codes["containerName"] == container["name"]
            assert codes["operator"] == "In"
            assert codes["values"] == sorted(set(codes["values"])) and 0 not in codes["values"]
            actions.update(dict.fromkeys(codes["values"], rule["action"]))
    assert actions[EXIT_USAGE] == "FailJob"
    assert 3 not in actions  # a system error is tried again on another machine
    assert actions[130] == actions[143] == "Ignore"
    assert pod["terminationGracePeriodSeconds"] >= 60


def test_pods_have_the_memory_that_mkhct_takes(job):
    _, _, container = job
    words = container["command"] + container.get("args", [])
    given = [word.split("=")[1] for word in words if word.startswith("--memory=")]
    bound = mebibytes(given[0] if given else "1G")
    resources = container["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    assert mebibytes(resources["limits"]["memory"]) >= bound + 512
    jobs = [word.split("=")[1] for word in words if word.startswith("--jobs=")]
    assert resources["requests"]["cpu"] == (jobs[0] if jobs else "1")


def test_the_indexed_job_does_every_part_once():
    spec, _, container = job_parts("mkhct-job.yaml")
    assert spec["completionMode"] == "Indexed"
    assert 1 <= spec["parallelism"] <= spec["completions"]
    assert spec["backoffLimitPerIndex"] >= 1 and "backoffLimit" not in spec
    (shards,) = [e["value"] for e in container["env"] if e["name"] == "MKHCT_SHARDS"]
    assert shards == str(spec["completions"])
    # The shell's words, with echo in place of mkhct.
    command = [word.replace("exec mkhct", "exec echo") for word in container["command"]]
    for index in (0, spec["completions"] - 1):
        env = {"JOB_COMPLETION_INDEX": str(index), "MKHCT_SHARDS": shards}
        said = run(*command, *container["args"], env=env).stdout.split()
        assert said == ["--shards", f"{index + 1}/{shards}", *container["args"]]
    assert command != container["command"]


def test_the_indexed_job_gives_words_that_mkhct_knows(tmp_path):
    _, _, container = job_parts("mkhct-job.yaml")
    source = tmp_path / "source"
    source.mkdir()
    make_safetensors(source / "model.safetensors", {"a": ("F32", (2,), bytes(8))})
    options = [word for word in container["args"] if word.startswith("--")]
    run(MKHCT, *options, source, tmp_path / "out")


def test_all_pods_share_one_volume_and_the_source_is_read_only():
    claim = document("models-claim.yaml")
    assert (claim["apiVersion"], claim["kind"]) == ("v1", "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    outs = []
    for name in ("mkhct-job.yaml", "mkhct-finish.yaml"):
        _, pod, container = job_parts(name)
        (volume,) = pod["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        mounts = {m["mountPath"]: m for m in container["volumeMounts"]}
        assert {m["name"] for m in mounts.values()} == {volume["name"]}
        assert not mounts["/models/out"].get("readOnly")
        if "/models/source" in mounts:
            assert mounts["/models/source"]["readOnly"] is True
        outs.append((container["command"] + container.get("args", []))[-1])
    assert outs[0] == outs[1] and outs[0].startswith("/models/out/")


# submit.sh ---------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "the source's"
    folder.mkdir()
    for i in range(3):
        make_safetensors(folder / f"m{i}.safetensors", {"a": ("F32", (2,), bytes(8))})
    return folder


def submit(*words, expect=0, cwd=None):
    return run(SUBMIT, "--dry-run", *words, env={"MKHCT": str(MKHCT)}, expect=expect, cwd=cwd)


def test_submit_prints_an_array_and_a_job_that_waits_for_it(source, tmp_path):
    done = submit(
        "-n", "2", "--at-once", "1", "-c", "7", "-m", "4G", "-t", "2:00:00", "-p", "big",
        "-s", "--account=me", source.name, "out dir", "--", "--tensor", "a*=.9",
        cwd=tmp_path,
    )  # fmt: skip
    array, finish = (shlex.split(line) for line in done.stdout.splitlines())
    at = array.index(str(ARRAY))
    out = str(tmp_path / "out dir")
    assert array[at + 1 :] == [str(source), out, "--memory", "4G", "--tensor", "a*=.9"]
    assert {
        "--array=1-2%1", "--cpus-per-task=7", "--mem=4608M", "--time=2:00:00", "--partition=big",
        "--account=me",
    } <= set(array[:at])  # fmt: skip
    assert finish[finish.index(str(ARRAY)) + 1 :] == ["--finish", out]
    assert {
        "--dependency=afterok:JOB", "--kill-on-invalid-dep=yes", "--partition=big", "--account=me"
    } <= set(finish)  # fmt: skip
    assert not (tmp_path / "out dir").exists()


def test_submit_has_no_more_tasks_than_model_files(source, tmp_path):
    done = submit("--tasks", "9", source, tmp_path / "out")
    assert "--array=1-3 " in done.stdout and "one model file is one machine's work" in done.stderr
    assert "--array=1-3 " in submit(source, tmp_path / "out").stdout


@pytest.mark.parametrize(
    "words, said",
    [
        (["SRC"], "SRC and OUT are wanted"),
        (["-n", "0", "SRC", "OUT"], "'0' is no number"),
        (["-n", "1-3", "SRC", "OUT"], "'1-3' is no number"),
        (["-n"], "value is missing"),
        (["-m", "255M", "SRC", "OUT"], "too little"),
        (["-c", "1025", "SRC", "OUT"], "number of threads"),
        (["-m", "1.5G", "SRC", "OUT"], "no size"),
        (["-m", "lots", "SRC", "OUT"], "no size"),
        (["-s", "account", "SRC", "OUT"], "no option of sbatch"),
        (["--lossless", "SRC", "OUT"], "mkhct's own follow"),
        (["SRC", "OUT", "--lossless"], "one too many"),
        (["SRC", "OUT", "--", "--restart"], "remove OUT instead"),
        (["SRC", "OUT", "--", "--shards=1/2"], "several machines"),
        (["SRC", "OUT", "--", "-f"], "several machines"),
        (["SRC", "OUT", "--", "-j2"], "--cpus"),
        (["SRC", "OUT", "--", "--memory=2G"], "asks for as much"),
        # What getopt_long takes for the same.
        (["SRC", "OUT", "--", "--rest"], "(--restart)"),
        (["SRC", "OUT", "--", "--mem", "4G"], "(--memory)"),
        (["SRC", "OUT", "--", "--mem=4G"], "(--memory)"),
        (["SRC", "OUT", "--", "--jo=2"], "(--jobs)"),
        (["SRC", "OUT", "--", "--sh", "1/2"], "(--shards)"),
        (["SRC", "OUT", "--", "--forc"], "(--force)"),
        (["SRC", "OUT", "--", "--fin"], "(--finish)"),
        (["SRC", "OUT", "--", "--dry"], "(--dry-run)"),
        (["SRC", "OUT", "--", "-vf"], "several machines"),
        (["SRC", "OUT", "--", "-qj4"], "--cpus"),
        # They would do nothing and end with 0.
        (["SRC", "OUT", "--", "--help"], "several machines"),
        (["SRC", "OUT", "--", "-V"], "several machines"),
        # What mkhct judges.
        (["SRC", "OUT", "--", "--retention", "7"], "'7' is no retention"),
        (["SRC", "OUT", "--", "--size=1G", "--lossless"], "exclude each other"),
        (["SRC", "OUT", "--", "--nosuch"], "no such option"),
        (["SRC", "OUT", "--", "--keep"], "too many"),
        (["SRC", "OUT", "--", "EMPTY"], "too many"),
        (["SRC", "OUT", "--", "--", "EMPTY"], "too many"),
        (["SRC", "OUT", "--", "--exclude", "nosuch"], "nosuch: matches no file"),
        (["nowhere", "OUT"], "no folder"),
        (["SRC", "nowhere/OUT"], "no folder"),
        (["SRC", "SRC/OUT"], "lies in the source"),
        (["SRC", "MIXED"], "has files"),
        (["-l", "nowhere", "SRC", "OUT"], "no folder for logs"),
    ],
)
def test_submit_refuses(source, tmp_path, words, said):
    (tmp_path / "MIXED").mkdir()
    (tmp_path / "MIXED" / "file").touch()
    words = [word.replace("SRC", source.name) for word in words]
    done = submit(*words, expect=EXIT_USAGE, cwd=tmp_path)
    assert said in done.stderr and done.stderr.count("\n") == 1 and not done.stdout


def test_submit_counts_the_model_files_that_mkhct_takes(source, tmp_path):
    out = tmp_path / "out"
    for words in (["--exclude", "m0.*"], ["--exc=m0.*", "--keep", "a"], ["--lossless", "--incl", "*[12].safetensors"]):
        assert "--array=1-2 " in submit(source, out, "--", *words).stdout
    for words in (["--bpw", "4"], ["--keep", "a=b", "--tensor==x=.9", "--log", tmp_path / "log"], ["-vv"]):
        assert "--array=1-3 " in submit(source, out, "--", *words).stdout
    assert not (tmp_path / "log").exists() and not out.exists()
    run(MKHCT, "--lossless", source, tmp_path / "bundle")
    assert "--array=1-3 " in submit(tmp_path / "bundle", out, "--", "--lossless").stdout
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no .safetensors file" in submit(empty, out, expect=1).stderr


@pytest.fixture
def fake(tmp_path):
    """A folder for PATH whose sbatch notes its words, and whose queue is empty."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("sbatch", f'echo "$*" >>"{tmp_path}/submitted"\necho 7\n'), ("squeue", "")):
        (folder / name).write_text(f"#!/bin/sh\n{text}")
        (folder / name).chmod(0o755)
    return {"MKHCT": str(MKHCT), "PATH": f"{folder}:{os.environ['PATH']}"}


def test_submit_goes_on_with_what_is_begun_and_leaves_what_is_finished(source, tmp_path, fake):
    out, submitted = tmp_path / "out", tmp_path / "submitted"
    words = (SUBMIT, "-l", tmp_path, source, out, "--", "--lossless")
    run(*words, env=fake)
    array, finish = submitted.read_text().splitlines()
    assert "--array=1-3 " in array and "--dependency=afterok:7 " in finish

    run(MKHCT, "--shards", "1/2", "--lossless", source, out)
    run(*words, env=fake)
    array, finish = submitted.read_text().splitlines()[2:]
    assert "--array=1-2 " in array
    refused = run(SUBMIT, "-l", tmp_path, "-n", "3", source, out, env=fake, expect=EXIT_USAGE)
    assert "begun with 2 tasks" in refused.stderr

    run(MKHCT, "--shards", "2/2", "--lossless", source, out)
    run(*words, env=fake)  # it may be the finishing that is left
    assert len(submitted.read_text().splitlines()) == 6
    run(MKHCT, "--finish", out)
    done = run(*words, env=fake)
    assert "is finished already" in done.stdout
    assert len(submitted.read_text().splitlines()) == 6
    (out / ".hct" / "checkpoint-2-of-2.json").touch()  # published, but not to the end
    run(*words, env=fake)
    assert len(submitted.read_text().splitlines()) == 8


def test_submit_leaves_what_one_machine_began(source, tmp_path, fake):
    out = tmp_path / "out" / ".hct"
    out.mkdir(parents=True)
    (out / "checkpoint.json").touch()
    done = run(SUBMIT, "-l", tmp_path, source, out.parent, env=fake, expect=EXIT_USAGE)
    assert "begun by one machine" in done.stderr and not (tmp_path / "submitted").exists()


@pytest.mark.parametrize(
    "words, env, said",
    [
        (["SRC"], {}, "SRC and OUT are missing"),
        (["SRC", "OUT"], {}, "not a task of an array"),
        (["--finish"], {}, "OUT is missing"),
        (
            ["SRC", "OUT"],
            dict(zip(["ID", "MIN", "MAX", "COUNT"], "3358", strict=True)),
            "the array is not 1-N",
        ),
        (["SRC", "OUT"], dict(zip(["ID", "MIN", "MAX", "COUNT"], "3383", strict=True)), "MKHCT_SHARDS"),
    ],
)
def test_the_job_refuses(words, env, said):
    env = {f"SLURM_ARRAY_TASK_{key}": value for key, value in env.items()}
    done = run("sh", ARRAY, *words, env=env, expect=EXIT_USAGE)
    assert said in done.stderr


def task(mkhct, text, **env):
    """The environment of task 3 of 8, whose mkhct is a shell script."""
    mkhct.write_text(f"#!/bin/sh\n{text}")
    mkhct.chmod(0o755)
    slurm = {f"SLURM_ARRAY_TASK_{k}": v for k, v in zip(["ID", "MIN", "MAX", "COUNT"], "3188", strict=True)}
    slurm |= {"MKHCT": str(mkhct), "SLURM_JOB_ID": "1", "SLURM_CPUS_PER_TASK": "5", "MKHCT_PAUSE": "0"}
    return slurm | env


# Codes of mkhct(1); 137 is a death, such as by the out-of-memory killer.
@pytest.mark.parametrize("code, runs", [(0, 1), (1, 1), (2, 1), (3, 4), (130, 1), (143, 1), (137, 4)])
def test_the_job_ends_with_the_code_of_mkhct(tmp_path, code, runs):
    """Without a Slurm that says that the job runs nothing is requeued."""
    env = task(tmp_path / "mkhct", f'printf "<%s>" "$@"\nexit {code}\n')
    done = run("sh", ARRAY, "a b", "-c", "--keep", "x", env=env, expect=code)
    assert done.stdout.count("<-j><5><--shards><3/8><--keep><x><--><a b><-c>") == runs
    done = run("sh", ARRAY, "--finish", "-c", env=env, expect=code)
    assert done.stdout.count("<--finish><--><-c>") == runs


@pytest.mark.parametrize("restarts", ["0", "9"])
def test_the_job_counts_failures_and_not_preemptions(tmp_path, restarts):
    fails = f'echo >>"{tmp_path}/runs"\n[ "$(wc -l <"{tmp_path}/runs")" -gt 2 ] || exit 3\n'
    env = task(tmp_path / "mkhct", fails, SLURM_RESTART_COUNT=restarts, MKHCT_RETRIES="2")
    done = run("sh", ARRAY, "a", "b", env=env)
    assert "retry 2 of 2" in done.stdout
    (tmp_path / "runs").unlink()
    done = run("sh", ARRAY, "a", "b", env=env | {"MKHCT_RETRIES": "1"}, expect=3)
    assert "exit code 3" in done.stderr


@pytest.mark.parametrize("name", ["MKHCT_RETRIES", "MKHCT_PAUSE"])
@pytest.mark.parametrize("value", ["x", "-1", "1.5", "08", "99999"])
def test_the_job_refuses_what_is_no_number(tmp_path, name, value):
    env = task(tmp_path / "mkhct", "exit 0\n", **{name: value})
    done = run("sh", ARRAY, "a", "b", env=env, expect=EXIT_USAGE)
    assert f"{name}: '{value}'" in done.stderr


def test_a_signal_ends_the_pause_between_two_tries(tmp_path):
    env = task(tmp_path / "mkhct", "exit 3\n", MKHCT_PAUSE="60")
    with subprocess.Popen(
        ["sh", ARRAY, "a", "b"], env=os.environ | env, stdout=subprocess.PIPE, text=True
    ) as job:
        for line in job.stdout:
            if "retry 1 of 3 in 60 s" in line:
                break
        job.send_signal(signal.SIGTERM)
        assert job.wait(10) == 3
        assert "retry" not in job.stdout.read()
