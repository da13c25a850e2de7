"""What contrib/ has for clusters, as far as it can be tested without one.

The Jobs of Kubernetes are held against what its documentation asks of an indexed Job; submit.sh
prints what it would submit.  test_slurm.py runs the latter.
"""

import re
import shlex

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
        (["-m", "10M", "SRC", "OUT"], "too little"),
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
        (["nowhere", "OUT"], "no folder"),
        (["SRC", "nowhere/OUT"], "no folder"),
        (["SRC", "SRC/OUT"], "lies in the source"),
        (["EMPTY", "OUT"], "no .safetensors file"),
        (["-l", "nowhere", "SRC", "OUT"], "no folder for logs"),
    ],
)
def test_submit_refuses(source, tmp_path, words, said):
    (tmp_path / "EMPTY").mkdir()
    words = [word.replace("SRC", source.name) for word in words]
    done = submit(*words, expect=EXIT_USAGE, cwd=tmp_path)
    assert said in done.stderr and done.stderr.count("\n") == 1 and not done.stdout


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


@pytest.mark.parametrize("code, wanted", [(0, 0), (2, 2), (3, 3), (130, 130), (127, 127)])
def test_the_job_ends_with_the_code_of_mkhct(tmp_path, code, wanted):
    """Without a Slurm that says that the job runs nothing is requeued."""
    mkhct = tmp_path / "mkhct"
    mkhct.write_text(f'#!/bin/sh\nprintf "<%s>" "$@"\nexit {code}\n')
    mkhct.chmod(0o755)
    env = {f"SLURM_ARRAY_TASK_{k}": v for k, v in zip(["ID", "MIN", "MAX", "COUNT"], "3188", strict=True)}
    env |= {"MKHCT": str(mkhct), "SLURM_JOB_ID": "1", "SLURM_CPUS_PER_TASK": "5"}
    done = run("sh", ARRAY, "a b", "-c", "--keep", "x", env=env, expect=wanted)
    assert "<-j><5><--shards><3/8><--keep><x><--><a b><-c>" in done.stdout
    done = run("sh", ARRAY, "--finish", "-c", env=env, expect=wanted)
    assert "<--finish><--><-c>" in done.stdout
