"""What the end-to-end tests share: programs, generated models, mounts.

    from helpers import HCT, MKHCT, make_safetensors, mount, run, sha256, tree_digests

The programs come from the folder that HCT_BUILD names, build/ when it is not set, so a
sanitizer build can be tested by the same files.
"""

import contextlib
import gc
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("HCT_BUILD", ROOT / "build")).absolute()
MKHCT = BUILD / "mkhct"
HCTFS = BUILD / "hctfs"
HCT = BUILD / "hct"

# Exit codes of the three programs (codec/error.h).
EXIT_OK = 0
EXIT_BAD_DATA = 1
EXIT_USAGE = 2
EXIT_SYSTEM = 3
EXIT_INTERRUPTED = 130

# Bits of one element of each dtype that the safetensors format knows.
DTYPE_BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8,
    "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16,
    "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64,
    "U64": 64,
}  # fmt: skip


# Programs ----------------------------------------------------------------------------


def run(*command, expect=EXIT_OK, timeout=300, env=None, cwd=None):
    """Runs a program to its end and returns its CompletedProcess with text output.

    The test fails, with both outputs shown, when the exit code is not `expect`; with
    expect=None any code will do.  env is added to the environment.
    """
    command = [str(word) for word in command]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        env={**os.environ, **env} if env else None,
        cwd=cwd,
        check=False,
    )
    if expect is not None and done.returncode != expect:
        pytest.fail(
            f"{' '.join(command)}: exit code {done.returncode}, expected {expect}\n"
            f"stdout: {done.stdout}\nstderr: {done.stderr}",
            pytrace=False,
        )
    return done


def compress(source, bundle, *options):
    """mkhct SOURCE BUNDLE --lossless -q; returns the bundle's path."""
    run(MKHCT, "--lossless", "-q", *options, source, bundle)
    return Path(bundle)


def peak_memory(*command, timeout=300):
    """Runs a program, which must succeed; returns the bytes of memory it had at its peak.

    A small process in between starts it, because the figure begins with the parent's.
    """
    script = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = run(sys.executable, "-c", script, *command, timeout=timeout)
    return int(done.stdout.split()[-1]) << 10


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def tree_digests(top):
    """{relative path: sha256} of every file below top, symlinks followed."""
    top = Path(top)
    return {
        os.path.relpath(os.path.join(folder, name), top): sha256(os.path.join(folder, name))
        for folder, _, names in os.walk(top, followlinks=True)
        for name in names
    }


def is_sanitized():
    """Whether hctfs was built under AddressSanitizer."""
    return b"__asan_init" in Path(HCTFS).read_bytes()


# Mounts ------------------------------------------------------------------------------


def fuse_missing():
    """Why nothing can be mounted here, or None."""
    if not shutil.which("fusermount3"):
        return "fusermount3 is not installed"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"/dev/fuse: {error.strerror}"
    return None


def is_mounted(path):
    """Whether a file system is mounted at path, asked without touching it."""
    path = os.path.abspath(path)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        points = [line.split()[4] for line in table]
    return path in [point.encode().decode("unicode_escape") for point in points]


def wait_until(condition, timeout=30.0, interval=0.02):
    """True as soon as condition() is, False after timeout seconds."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(interval)
    return True


def unmount(path):
    """Unmounts path if something is mounted there; lazily when it stays busy."""

    def gone():
        if is_mounted(path):
            subprocess.run(["fusermount3", "-u", path], stderr=subprocess.DEVNULL, check=False)
        return not is_mounted(path)

    if not wait_until(gone, timeout=5.0, interval=0.1):
        subprocess.run(["fusermount3", "-u", "-z", path], check=False)


class Mount:
    """A running hctfs: its mount point, its process and what it printed."""

    def __init__(self, path, process, log_path):
        self.path = path
        self.process = process
        self.log_path = log_path

    @property
    def log(self):
        return self.log_path.read_text(errors="replace")


def outlives_unmount(process):
    """Reaps hctfs after its unmounting; True when something still used the mount."""
    try:
        process.wait(timeout=30)
        return False
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True


@contextlib.contextmanager
def mounted(bundle, *options, env=None):
    """Runs hctfs -f on bundle, yields a Mount, and always unmounts and reaps it.

    A test that ends the mount itself finds nothing left to do here; one that leaves it
    checks on the way out that hctfs ends with exit code 0.
    """
    reason = fuse_missing()
    if reason:
        if os.environ.get("HCT_REQUIRE_FUSE"):
            pytest.fail(f"HCT_REQUIRE_FUSE is set but {reason}", pytrace=False)
        pytest.skip(f"cannot mount: {reason}")
    folder = Path(tempfile.mkdtemp(prefix="hct-mount-"))
    point = folder / "mnt"
    point.mkdir()
    log_path = folder / "log"
    with open(log_path, "wb") as log:
        process = subprocess.Popen(
            [str(HCTFS), "-f", *map(str, options), str(bundle), str(point)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **env} if env else None,
        )
    mount = Mount(point, process, log_path)
    try:
        wait_until(lambda: is_mounted(point) or process.poll() is not None)
        if not is_mounted(point):
            pytest.fail(f"hctfs did not mount {bundle}: {mount.log}", pytrace=False)
        yield mount
    finally:
        gc.collect()  # tensors that nobody holds any more may still map the files
        unmount(point)
        busy = outlives_unmount(process)
        text = mount.log
        if not is_mounted(point):
            shutil.rmtree(folder, ignore_errors=True)
    assert not busy, "the mount was still in use: drop what maps its files before leaving it"
    assert process.returncode == 0, f"hctfs ended with exit code {process.returncode}: {text}"


@contextlib.contextmanager
def mount(bundle, *options, env=None):
    """Like mounted, and yields only the path of the mount point."""
    with mounted(bundle, *options, env=env) as running:
        yield running.path


def servers_of(path):
    """Process ids of the hctfs processes that were started for a mount point."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            words = Path("/proc", entry, "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if entry.isdigit() and os.fsencode(path) in words and words[0] == os.fsencode(HCTFS):
            found.append(int(entry))
    return found


def running_with(pid):
    """Whether a process lives; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


# Generated models --------------------------------------------------------------------


def make_safetensors(path, tensors, metadata=None, pad=0, align=8):
    """Writes {name: (dtype, shape, bytes)} as a safetensors file, in this order.

    The header is padded with spaces to a multiple of align, as the reference library does
    with 8, and then with pad spaces more.  The bytes are not checked against the shape.
    """
    header = {}
    if metadata is not None:
        header["__metadata__"] = metadata
    offset = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [offset, offset + len(data)],
        }
        offset += len(data)
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % align + pad)
    return write_safetensors(path, text, b"".join(data for _, _, data in tensors.values()))


def write_safetensors(path, header, data=b"", length=None):
    """Writes length (of the header unless it is given), header and data as they are."""
    path = Path(path)
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
    return path


def weights(rng, *shape):
    """float32 values as trained matrices have them: Gaussian with row and column scales."""
    values = rng.standard_normal(shape, dtype=np.float32) * np.float32(0.04)
    if len(shape) >= 2:
        values *= np.exp(rng.normal(0, 0.5, shape[-2])).astype(np.float32)[:, None]
        values *= np.exp(rng.normal(0, 0.5, shape[-1])).astype(np.float32)
    return values


def bf16_bytes(values):
    """float32 values rounded to nearest even bfloat16, as bytes."""
    bits = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()


def float_bytes(dtype, values):
    """float32 values cast to a floating-point dtype of safetensors, as bytes."""
    if dtype == "BF16":
        return bf16_bytes(values)
    if dtype == "F8_E5M2":  # the upper byte of a half
        return (values.astype("<f2").view("<u2") >> 8).astype("u1").tobytes()
    if dtype == "F8_E4M3":  # exponents -6 .. 8 around 1, cut after three bits of mantissa
        sign = np.signbit(values).astype("u1") << 7
        size = np.minimum(np.abs(values) * 2.0**-120, 2.0**-112 * 1.75).astype("<f4")
        return (sign | (size.view("<u4") >> 20).astype("u1")).tobytes()
    return values.astype({"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]).tobytes()


def random_tensor(rng, dtype, shape):
    """(dtype, shape, bytes) with values as they occur in models."""
    count = int(np.prod(shape, dtype=np.int64))
    if dtype in ("F8_E5M2", "F8_E4M3", "F16", "BF16", "F32", "F64"):
        return dtype, shape, float_bytes(dtype, weights(rng, *shape))
    if dtype == "BOOL":
        return dtype, shape, rng.integers(0, 2, count, dtype="u1").tobytes()
    if dtype in ("I16", "I32", "I64", "U16", "U32", "U64"):
        width = f"<{dtype[0].lower()}{DTYPE_BITS[dtype] // 8}"
        return dtype, shape, (np.arange(count) % 1000).astype(width).tobytes()
    return dtype, shape, rng.bytes(count * DTYPE_BITS[dtype] // 8)


def odd_tensors(seed=1):
    """Every dtype of the format, each rank and size that tends to break, odd names."""
    rng = np.random.default_rng(seed)
    tensors = {f"dtype.{d}": random_tensor(rng, d, (6, 40)) for d in DTYPE_BITS}
    for dtype in ("F32", "BF16", "F16", "I64"):
        tensors[f"scalar.{dtype}"] = random_tensor(rng, dtype, ())
        tensors[f"one.{dtype}"] = random_tensor(rng, dtype, (1,))
        tensors[f"empty.{dtype}"] = (dtype, (3, 0, 5), b"")
        tensors[f"odd.{dtype}"] = random_tensor(rng, dtype, (7, 3, 1, 11, 13))
        tensors[f"vector.{dtype}"] = random_tensor(rng, dtype, (100_003,))
        tensors[f"tall.{dtype}"] = random_tensor(rng, dtype, (70_001, 3))
    special = [0x7FC00001, 0xFF800000, 0x7F800000, 0x80000000, 0x00000001, 0x7F7FFFFF, 0xFFFFFFFF]
    tensors["special"] = ("F32", (7, 999), np.repeat(np.array(special, "<u4"), 999).tobytes())
    tensors["zeros"] = ("F32", (300, 300), bytes(4 * 300 * 300))
    tensors["noise"] = ("F32", (300, 300), rng.bytes(4 * 300 * 300))
    tensors["encoder/layer_0/kernel"] = random_tensor(rng, "BF16", (128, 257))
    tensors["слой.重み.🙂"] = random_tensor(rng, "F32", (31, 33))
    tensors['quote " back \\ tab \t, and space'] = random_tensor(rng, "F32", (5,))
    tensors[""] = random_tensor(rng, "U8", (3,))
    return tensors


def make_odd_model(folder):
    """A model directory with everything odd: three safetensors files and plain ones."""
    folder = Path(folder)
    (folder / "onnx" / "deep").mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "odd"}\n')
    (folder / "onnx" / "deep" / "vocab ü.txt").write_text("one\ntwo\n")
    (folder / "empty.txt").write_bytes(b"")
    make_safetensors(folder / "model.safetensors", odd_tensors(), {"format": "pt", "x-unknown": "é"})
    rng = np.random.default_rng(2)
    make_safetensors(
        folder / "adapter.safetensors",  # no __metadata__, a long padded header, unaligned
        {"b": random_tensor(rng, "F16", (64, 64)), "a": random_tensor(rng, "F32", (64, 65))},
        pad=4099,
        align=1,
    )
    make_safetensors(folder / "onnx" / "none.safetensors", {})
    return folder


def make_sharded_model(folder, shards=3, layers=6, width=256):
    """A BF16 transformer in several shards with model.safetensors.index.json."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": width}))
    rng = np.random.default_rng(3)
    tensors = {"model.embed_tokens.weight": random_tensor(rng, "BF16", (4 * width, width))}
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        tensors[f"{prefix}.input_layernorm.weight"] = random_tensor(rng, "BF16", (width,))
        for name, rows in (("q_proj", width), ("k_proj", width // 4), ("o_proj", width)):
            tensors[f"{prefix}.self_attn.{name}.weight"] = random_tensor(rng, "BF16", (rows, width))
        tensors[f"{prefix}.mlp.up_proj.weight"] = random_tensor(rng, "BF16", (3 * width, width))
    files = [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
    names = list(tensors)
    weight_map = {name: files[i * shards // len(names)] for i, name in enumerate(names)}
    for file in files:
        part = {name: tensors[name] for name in names if weight_map[name] == file}
        make_safetensors(folder / file, part, {"format": "pt"})
    total = sum(len(data) for _, _, data in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    return folder


def real_model(name):
    """A folder of real weights from $HCT_MODELS or ../shared/models; skips without it."""
    for models in (os.environ.get("HCT_MODELS"), ROOT.parent / "shared" / "models"):
        if models and (Path(models) / name).is_dir():
            return Path(models) / name
    pytest.skip(f"real weights: no folder {name}: set HCT_MODELS to the folder that holds it")
