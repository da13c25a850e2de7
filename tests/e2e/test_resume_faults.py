"""mkhct, where single calls fail at its end: it stays to be gone on with, and says so."""

import sys

import numpy as np
from helpers import EXIT_OK, EXIT_SYSTEM, MKHCT, ROOT, make_safetensors, random_tensor, run
from mkhct_tool import listing
from resume_tool import go_on, same_bundle, state, two  # noqa: F401
from shim_tool import preload
from test_crash import KEPT

sys.path.insert(0, str(ROOT / "tests/crash"))


def make_old(source):
    """A bundle of what is called otherwise, but for a file."""
    (source / "deep").mkdir(parents=True)
    rng = np.random.default_rng(5)
    for name in "old.safetensors", "deep/old.safetensors":
        make_safetensors(source / name, {"w": random_tensor(rng, "BF16", (8, 8))})
    (source / "deep/old.txt").write_text("old\n")
    (source / "config.json").write_text('{"old": 1}\n')
    run(MKHCT, "-q", source, source.parent / "old")
    return source.parent / "old"


def test_old_files_that_cannot_be_removed(two, tmp_path):
    """--force: none of them is left in a bundle that is said to be finished."""
    from trace import calls  # noqa: PLC0415

    old, plain, refused = make_old(tmp_path / "source"), tmp_path / "plain", set()
    run(MKHCT, "-q", "--lossless", two, plain)
    for at in range(1, 100):
        out, trace = tmp_path / f"out-{at}", tmp_path / f"trace-{at}"
        run("cp", "-a", old, out)
        done = run(MKHCT, "-q", "-f", "--lossless", two, out, expect=None,
                   env=preload(SHIM_ROOT=str(out), SHIM_TRACE=str(trace), SHIM_ONLY="unlink",
                               SHIM_AT=str(at), SHIM_DO="5"))  # fmt: skip
        if done.returncode != EXIT_OK:
            assert done.returncode == EXIT_SYSTEM, done.stderr
            (line,) = done.stderr.splitlines()
            assert "cannot be removed" in line and "Input/output error" in line, line
            assert KEPT in line, line
            assert state(out)["stage"] == "naming"
            refused |= {name for name in listing(old) if f"mkhct: {name}: " in line}
            go_on(two, out)
        same_bundle(out, plain)
        if calls(trace).count("unlink") < at:
            break
    assert refused == {"deep", "deep/old.safetensors.hct", "deep/old.txt", "old.safetensors.hct"}
