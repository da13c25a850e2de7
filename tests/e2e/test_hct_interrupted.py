"""hct extract and check, interrupted by a signal."""

import os
import shutil
import signal
import subprocess

import numpy as np
import pytest
from helpers import EXIT_INTERRUPTED, EXIT_OK, HCT, compress, make_safetensors, wait_until


@pytest.fixture(scope="module")
def big_bundle(tmp_path_factory):
    """Takes long enough to be interrupted: 192 MiB that do not shrink."""
    folder = tmp_path_factory.mktemp("big")
    (folder / "source").mkdir()
    noise = np.random.default_rng(4).bytes(192 << 20)
    make_safetensors(folder / "source" / "a.safetensors", {"w": ("I32", (48 << 20,), noise)})
    yield compress(folder / "source", folder / "bundle.hct")
    shutil.rmtree(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_extract_interrupted(tmp_path, big_bundle, number):
    for attempt in range(5):  # it may be done before the signal comes
        out = tmp_path / f"out{attempt}"
        part = out / ".a.safetensors.part"
        process = subprocess.Popen(
            [HCT, "extract", "-q", "-j", "1", big_bundle, out], stderr=subprocess.PIPE, text=True
        )
        wait_until(lambda: part.exists() or process.poll() is not None, interval=0.0005)
        process.send_signal(number)
        _, messages = process.communicate(timeout=60)
        if process.returncode != EXIT_OK:
            break
        shutil.rmtree(out)
    assert process.returncode == EXIT_INTERRUPTED
    assert messages == "hct extract: interrupted\n"
    assert not out.exists()


def test_check_interrupted(big_bundle):
    for _ in range(5):
        process = subprocess.Popen(
            [HCT, "check", "-j", "1", big_bundle], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        wait_until(lambda: len(os.listdir(f"/proc/{process.pid}/task")) > 1, interval=0.0005)
        process.send_signal(signal.SIGINT)
        output, messages = process.communicate(timeout=60)
        if process.returncode != EXIT_OK:
            break
    assert process.returncode == EXIT_INTERRUPTED
    assert (output, messages) == (b"", b"hct check: interrupted\n")
