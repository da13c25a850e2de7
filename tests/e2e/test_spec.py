"""The specification, its plain decoder and libhct agree on every valid file."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from helpers import (
    EXIT_BAD_DATA,
    HCT,
    compress,
    make_safetensors,
    mount,
    random_tensor,
    run,
    sha256,
    tree_digests,
)
from verdict import NAMES, TESTS, VARIANTS, check_says, spec_says, write_bundle

import hctcases
import hctspec

GOLDEN = TESTS / "golden"
FLOATS = list(hctspec.LAYOUTS)


def extracted(bundle, folder, variant):
    """{relative path: sha256} of what hct extract makes with one variant."""
    run(HCT, "extract", bundle, folder, env={"HCT_SIMD": variant})
    return tree_digests(folder)


def spec_digests(bundle):
    """The same by hctspec, of the .hct files only."""
    return {
        str(path.relative_to(bundle))[: -len(".hct")]: hashlib.sha256(
            hctspec.open(path).read_all()
        ).hexdigest()
        for path in bundle.rglob("*.hct")
        if path.is_file()
    }


def models(digests):
    return {path: digest for path, digest in digests.items() if path.endswith(".safetensors")}


# What mkhct writes -------------------------------------------------------------------


def float_tensors():
    """Each dtype that split knows: weights, all equal, noise, special values."""
    rng = np.random.default_rng(7)
    tensors = {}
    for dtype in FLOATS:
        unit = hctspec.dtype_unit(dtype)
        base = {"C64": "F32", "F8_E5M2FNUZ": "F8_E5M2", "F8_E4M3FNUZ": "F8_E4M3"}.get(dtype, dtype)
        halves = 2 if dtype == "C64" else 1
        _, _, data = random_tensor(rng, base, (201, 997 * halves))
        tensors[f"{dtype}.weights"] = dtype, (201, 997), data
        tensors[f"{dtype}.equal"] = dtype, (70_000,), data[:unit] * 70_000
        tensors[f"{dtype}.noise"] = dtype, (3, 20_011), rng.bytes(3 * 20_011 * unit)
        tensors[f"{dtype}.rare"] = dtype, (66, 1024), sprinkled(rng, data[: 66 * 1024 * unit], unit)
    return tensors


def sprinkled(rng, data, unit):
    """data with an element here and there of any bits: NaN, infinity, subnormal, huge."""
    elements = np.frombuffer(data, np.uint8).reshape(-1, unit).copy()
    where = rng.choice(len(elements), len(elements) // 300, replace=False)
    elements[where] = rng.integers(0, 256, (len(where), unit), dtype=np.uint8)
    elements[where[::2], -1] |= 0x7F
    return elements.tobytes()


@pytest.fixture(scope="module")
def float_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("floats")
    (folder / "source").mkdir()
    make_safetensors(folder / "source" / "model.safetensors", float_tensors())
    return folder / "source", compress(folder / "source", folder / "bundle")


@pytest.mark.parametrize("name", ["odd", "sharded", "float"])
def test_hctspec_decodes_what_mkhct_writes(request, name):
    if name == "float":
        source, bundle = request.getfixturevalue("float_model")
    else:
        source = request.getfixturevalue(f"{name}_model")
        bundle = request.getfixturevalue(f"{name}_bundle")
    found = spec_digests(bundle)
    assert found == models(tree_digests(source))
    for path in found:
        file = hctspec.open(bundle / f"{path}.hct")
        assert file.version == (1, 0)
        assert file.source.mtime_sec == int((source / path).stat().st_mtime)
        assert json.loads(file.provenance)


def test_mkhct_uses_every_codec(float_model, odd_bundle):
    """Otherwise the tests here would show less than they say."""
    paths = [*odd_bundle.rglob("*.hct"), *float_model[1].rglob("*.hct")]
    files = [hctspec.open(path) for path in paths if path.is_file()]
    assert {e.codec for f in files for e in f.extents} == {hctspec.RAW, hctspec.ZSTD, hctspec.SPLIT}
    split = {t.dtype for f in files for t in f.tensors
             if f.extents[t.first_extent:t.first_extent + 1]
             and f.extents[t.first_extent].codec == hctspec.SPLIT}
    assert {"BF16", "F32"} <= split


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["odd", "sharded", "float"])
def test_libhct_decodes_what_mkhct_writes(request, tmp_path, name, variant):
    if name == "float":
        source, bundle = request.getfixturevalue("float_model")
    else:
        source = request.getfixturevalue(f"{name}_model")
        bundle = request.getfixturevalue(f"{name}_bundle")
    assert extracted(bundle, tmp_path / "out", variant) == tree_digests(source)
    assert check_says(bundle, variant) == {}


def test_hctspec_command(odd_model, odd_bundle, tmp_path):
    command = [sys.executable, str(TESTS / "hctspec.py")]
    file = odd_bundle / "model.safetensors.hct"
    run(*command, file, "-o", tmp_path / "out")
    assert sha256(tmp_path / "out") == sha256(odd_model / "model.safetensors")
    (tmp_path / "cut").write_bytes(file.read_bytes()[:-1])
    done = run(*command, tmp_path / "cut", expect=1)
    assert "UNFINISHED" in done.stderr


# What mkhct would not write ----------------------------------------------------------


@pytest.fixture(scope="module")
def unusual(tmp_path_factory):
    """A bundle of the valid files of hctcases.py, and what hctspec makes of each."""
    files = {name: make() for name, make in hctcases.VALID.items()}
    bundle = write_bundle(tmp_path_factory.mktemp("unusual") / "bundle", files)
    return bundle, spec_digests(bundle)


@pytest.mark.parametrize("variant", VARIANTS)
def test_libhct_decodes_unusual_files(unusual, tmp_path, variant):
    bundle, expected = unusual
    assert check_says(bundle, variant) == {}
    assert extracted(bundle, tmp_path / "out", variant) == expected


@pytest.mark.fuse
@pytest.mark.parametrize("variant", VARIANTS)
def test_ranges_of_unusual_files(unusual, variant):
    """Reads of any length at any place, through a mount."""
    bundle, expected = unusual
    rng = np.random.default_rng(11)
    with mount(bundle, "-o", "readahead=0", env={"HCT_SIMD": variant}) as mnt:
        for name, digest in expected.items():
            whole = hctspec.open(bundle / f"{name}.hct").read_all()
            with open(mnt / name, "rb", buffering=0) as file:
                for _ in range(8):
                    begin, end = sorted(rng.integers(0, len(whole) + 1, 2))
                    file.seek(begin)
                    assert file.read(end - begin) == whole[begin:end], name
            assert sha256(mnt / name) == digest


# Golden files ------------------------------------------------------------------------

MANIFEST = json.loads((GOLDEN / "manifest.json").read_text())
GOOD = {name: entry["sha256"] for name, entry in MANIFEST.items() if "sha256" in entry}
BAD = {name: entry["error"] for name, entry in MANIFEST.items() if "error" in entry}


def test_golden_files_are_all_listed():
    assert {path.name for path in GOLDEN.glob("*.hct")} == MANIFEST.keys()
    assert GOOD and BAD


@pytest.mark.parametrize("name", GOOD)
def test_golden_file(name, tmp_path):
    """Every version reads what every earlier one wrote."""
    path = GOLDEN / name
    assert hashlib.sha256(hctspec.open(path).read_all()).hexdigest() == GOOD[name]
    for variant in VARIANTS:
        found = extracted(path, tmp_path / variant, variant)
        assert list(found.values()) == [GOOD[name]], variant


@pytest.mark.parametrize("name", BAD)
def test_golden_damaged_file(name):
    """Every version finds the same fault in them."""
    path = GOLDEN / name
    assert spec_says(path.read_bytes()) == BAD[name]
    for variant in VARIANTS:
        done = run(HCT, "check", "--json", path, expect=EXIT_BAD_DATA, env={"HCT_SIMD": variant})
        assert NAMES[json.loads(done.stdout)["bad"][0]["error"]] == BAD[name], variant


def test_golden_files_are_never_made_again():
    """The script that adds golden files leaves those alone that are there."""
    before = tree_digests(GOLDEN)
    subprocess.run([sys.executable, GOLDEN / "make.py"], check=True, stdout=subprocess.DEVNULL)
    assert tree_digests(GOLDEN) == before
