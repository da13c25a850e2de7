"""Fixtures and markers of the end-to-end tests; the functions are in helpers.py, hct_tool.py,
mkhct_tool.py and losses.py.

    @pytest.mark.fuse    needs /dev/fuse and fusermount3 (mount() skips by itself too)
    @pytest.mark.root    needs to run as root

With HCT_REQUIRE_FUSE=1 a test that cannot mount fails instead of being skipped.
"""

import importlib.util
import json
import os

import helpers
import numpy as np
import pytest

# Their assertions, too, are to show what was compared.
pytest.register_assert_rewrite("hct_tool", "losses", "mkhct_tool")

from losses import llama_tensors  # noqa: E402
from mkhct_tool import make_sparse, small_tensors  # noqa: E402

# Needs heavy packages, which make check-loaders installs.
collect_ignore = [] if importlib.util.find_spec("transformers") else ["test_loaders.py"]


def pytest_configure(config):
    config.addinivalue_line("markers", "fuse: needs to mount a file system")
    config.addinivalue_line("markers", "root: needs to run as root")
    missing = [p for p in (helpers.MKHCT, helpers.HCTFS, helpers.HCT) if not p.exists()]
    if missing:
        pytest.exit(f"{missing[0]} is not there: run make first, or set HCT_BUILD", returncode=2)


def pytest_runtest_setup(item):
    if item.get_closest_marker("fuse") and not os.environ.get("HCT_REQUIRE_FUSE"):
        reason = helpers.fuse_missing()
        if reason:
            pytest.skip(f"cannot mount: {reason}")
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("must run as root")


def pytest_terminal_summary(terminalreporter):
    """Closes with the same line as the unit tests do; HCT_SUITE names the suite."""
    stats = {kind: len(reports) for kind, reports in terminalreporter.stats.items()}
    failed = stats.get("failed", 0) + stats.get("error", 0)
    skipped = stats.get("skipped", 0) + stats.get("xfailed", 0)
    suite = os.environ.get("HCT_SUITE", "e2e")
    line = f"{suite}: {stats.get('passed', 0)} passed, {failed} failed, {skipped} skipped"
    terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def odd_model(tmp_path_factory):
    """Source directory with every dtype, shape and name that is odd.  Do not change it."""
    return helpers.make_odd_model(tmp_path_factory.mktemp("odd") / "source")


@pytest.fixture(scope="session")
def odd_bundle(odd_model):
    """odd_model compressed.  Copy it before damaging it."""
    return helpers.compress(odd_model, odd_model.parent / "bundle.hct")


@pytest.fixture(scope="session")
def sharded_model(tmp_path_factory):
    """Source directory of a BF16 model in three shards.  Do not change it."""
    return helpers.make_sharded_model(tmp_path_factory.mktemp("sharded") / "source")


@pytest.fixture(scope="session")
def sharded_bundle(sharded_model):
    """sharded_model compressed.  Copy it before damaging it."""
    return helpers.compress(sharded_model, sharded_model.parent / "bundle.hct")


@pytest.fixture(scope="session")
def large_model(tmp_path_factory):
    """One file of 96 MiB: large matrices, and small tensors between them."""
    folder = tmp_path_factory.mktemp("large") / "source"
    folder.mkdir()
    block = helpers.bf16_bytes(helpers.weights(np.random.default_rng(7), 2048, 1024))
    tensors = {}
    for i in range(24):
        turned = block[1024 * i :] + block[: 1024 * i]
        tensors[f"layer.{i}.weight"] = ("BF16", (2048, 1024), turned)
        tensors[f"layer.{i}.norm"] = ("BF16", (1024,), turned[:2048])
        tensors[f"layer.{i}.bias"] = ("BF16", (77,), turned[:154])
    helpers.make_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def large_bundle(large_model):
    return helpers.compress(large_model, large_model.parent / "bundle.hct")


@pytest.fixture(scope="session")
def large_bytes(large_model):
    return (large_model / "model.safetensors").read_bytes()


@pytest.fixture
def point(tmp_path):
    """An empty folder that is unmounted at the end, whatever the test did."""
    path = tmp_path / "point"
    path.mkdir()
    yield path
    helpers.unmount(path)


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    """A Llama of eight small layers.  Do not change it."""
    folder = tmp_path_factory.mktemp("llama") / "llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 8}))
    helpers.make_safetensors(folder / "model.safetensors", llama_tensors())
    return folder


@pytest.fixture(scope="session")
def matrices(tmp_path_factory):
    """F32 and BF16 matrices of more than one chunk, and a norm.  Do not change it."""
    folder = tmp_path_factory.mktemp("matrices") / "matrices"
    folder.mkdir()
    rng = np.random.default_rng(12)
    helpers.make_safetensors(folder / "model.safetensors", {
        "layers.0.fc.weight": helpers.random_tensor(rng, "F32", (520, 512)),
        "layers.0.proj.weight": helpers.random_tensor(rng, "BF16", (256, 384)),
        "layers.1.fc.weight": helpers.random_tensor(rng, "F16", (384, 256)),
        "layers.1.proj.weight": helpers.random_tensor(rng, "F64", (96, 128)),
        "layers.1.norm.weight": helpers.random_tensor(rng, "F32", (256,)),
    })  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def uneven(tmp_path_factory):
    """Matrices of very different rates, of 1.3 M weights.  Do not change it."""
    folder = tmp_path_factory.mktemp("uneven") / "uneven"
    folder.mkdir()
    rng = np.random.default_rng(14)
    smooth = np.cumsum(np.cumsum(rng.standard_normal((512, 256)), 0), 1).astype(np.float32)
    tensors = {"smooth.weight": ("F32", (512, 256), smooth.tobytes())}
    for i in range(3):
        dtype = ("F32", "BF16")[i % 2]
        tensors[f"h.{i}.mlp.weight"] = helpers.random_tensor(rng, dtype, (512, 512))
        tensors[f"h.{i}.norm.weight"] = helpers.random_tensor(rng, "F32", (512,))
    helpers.make_safetensors(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def model(tmp_path):
    """A small model directory that the test may change."""
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    helpers.make_safetensors(folder / "model.safetensors", small_tensors())
    (folder / "config.json").write_text("{}\n")
    (folder / "sub" / "notes.txt").write_text("notes\n")
    return folder


@pytest.fixture
def slow_model(tmp_path):
    """A model that takes much longer than a test waits."""
    folder = tmp_path / "slow"
    folder.mkdir()
    (folder / "a.txt").write_text("comes first\n")
    make_sparse(folder / "model.safetensors", 64 << 30)
    return folder
