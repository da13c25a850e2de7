"""Sources for mkhct, and mkhct as its tests run it."""

import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from helpers import HCT, MKHCT, random_tensor, run, tree_digests, wait_until, write_safetensors


REPORTS = [".hct/report.html", ".hct/report.json"]


def small_tensors(seed=5):
    rng = np.random.default_rng(seed)
    return {
        "a.weight": random_tensor(rng, "BF16", (96, 64)),
        "a.bias": random_tensor(rng, "F32", (96,)),
        "ids": random_tensor(rng, "I64", (17,)),
    }


def make_sparse(path, size, count=1, columns=1):
    """Tensors of zeros that take a long time to read and no space on disk."""
    step = size // count
    shape = [step // 4] if columns == 1 else [step // 4 // columns, columns]
    text = json.dumps({
        f"big.{i}": {"dtype": "F32", "shape": shape, "data_offsets": [i * step, (i + 1) * step]}
        for i in range(count)
    }).encode()  # fmt: skip
    write_safetensors(path, text)
    try:
        os.truncate(path, 8 + len(text) + size)
    except OSError as error:
        pytest.skip(f"no sparse files here: {error}")


def listing(folder):
    """Every file and folder below folder."""
    return sorted(
        os.path.relpath(os.path.join(top, name), folder)
        for top, folders, files in os.walk(folder)
        for name in folders + files
    )


def refuse(source, out, *options, code, match):
    """mkhct fails with this code and one line that matches, and OUT is as it was."""
    before = listing(out) if os.path.isdir(out) else None
    done = run(MKHCT, *options, source, out, expect=code)
    assert done.stdout == ""
    assert re.fullmatch(r"mkhct: [^\n]+\n", done.stderr), done.stderr
    assert re.search(match, done.stderr), done.stderr
    assert (listing(out) if os.path.isdir(out) else None) == before
    return done.stderr


def same_after_extract(source, bundle, tmp_path):
    back = tmp_path / "extracted"
    run(HCT, "extract", bundle, back)
    assert tree_digests(back) == tree_digests(source)
    shutil.rmtree(back)


def start(*words, env=None):
    return subprocess.Popen([MKHCT, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env={**os.environ, **(env or {})})  # fmt: skip


def started_writing(out):
    part = out / ".model.safetensors.hct.part"
    return wait_until(lambda: part.exists() and part.stat().st_size > 0)
