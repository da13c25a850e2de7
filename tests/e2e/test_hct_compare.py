"""hct compare: figures, grades and what cannot be compared."""

import json
import math
import os
import shutil
import struct

import numpy as np
import pytest
from hct_tool import close, copy_bundle, extents, flip, hct, hct_json
from helpers import (
    EXIT_BAD_DATA,
    bf16_bytes,
    compress,
    make_safetensors,
    odd_tensors,
    random_tensor,
)

TENSOR_KEYS = (
    "name dtype shape elements source_bytes stored_bytes bits_per_weight codec "
    "relative_squared_error cosine psnr_db max_abs_error grade"
).split()
TOTAL_KEYS = (
    "elements source_bytes stored_bytes bits_per_weight relative_squared_error cosine ratio"
).split()
DIFFER_KEYS = "tensors elements relative_squared_error cosine grade worst".split()


def bf16_values(data):
    return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").astype(np.float64)


def known_pair():
    """{name: (dtype, shape, bytes of A, bytes of B, values of A, values of B)}"""
    rng = np.random.default_rng(9)
    pair = {}

    def add(name, dtype, a, b, va, vb):
        pair[name] = dtype, (len(va),), a, b, va.astype(np.float64), vb.astype(np.float64)

    a = rng.standard_normal(700_001).astype("<f4")
    for name, error in (("fine", 0.01), ("good", 0.1), ("fair", 0.17), ("low", 0.25), ("bad", 0.9)):
        b = (a + np.float32(error) * rng.standard_normal(len(a))).astype("<f4")
        add(f"f32.{name}", "F32", a.tobytes(), b.tobytes(), a, b)
    add("f32.same", "F32", a.tobytes(), a.tobytes(), a, a)
    b = a.copy()
    b[3] += 1
    add("f32.once", "F32", a.tobytes(), b.tobytes(), a, b)
    half_a, half_b = a[:300_007].astype("<f2"), (a[:300_007] * 1.01).astype("<f2")
    add("f16", "F16", half_a.tobytes(), half_b.tobytes(), half_a, half_b)
    brain_a, brain_b = bf16_bytes(a), bf16_bytes(a * np.float32(0.97))
    add("bf16", "BF16", brain_a, brain_b, bf16_values(brain_a), bf16_values(brain_b))
    byte_a = rng.integers(-128, 128, 100_003, dtype="i1")
    byte_b = np.clip(byte_a.astype(int) + rng.integers(-2, 3, len(byte_a)), -128, 127).astype("i1")
    add("i8", "I8", byte_a.tobytes(), byte_b.tobytes(), byte_a, byte_b)
    wide_a = rng.standard_normal(50_000)
    wide_b = wide_a * (1 + 1e-9)
    add("f64", "F64", wide_a.tobytes(), wide_b.tobytes(), wide_a, wide_b)
    return pair


def expected_figures(a, b):
    """relative squared error, cosine, PSNR, largest error"""
    square = np.sum((a - b) ** 2)
    if square == 0:
        return 0, 1, None, 0
    return (
        square / np.sum(a * a),
        np.sum(a * b) / math.sqrt(np.sum(a * a) * np.sum(b * b)),
        10 * math.log10(np.max(np.abs(a)) ** 2 / (square / len(a))),
        np.max(np.abs(a - b)),
    )


def grade(cosine):
    steps = (0.998, "Excellent"), (0.993, "Good"), (0.98, "Acceptable"), (0.95, "Degraded")
    return next((name for least, name in steps if round(cosine, 3) >= least), "Poor")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two model directories that differ by what known_pair says, and their bundles."""
    folder = tmp_path_factory.mktemp("pair")
    for side in (0, 1):
        source = folder / "ab"[side]
        source.mkdir()
        tensors = {n: (d, s, (a, b)[side]) for n, (d, s, a, b, _, _) in known_pair().items()}
        make_safetensors(source / "model.safetensors", tensors)
        (source / "config.json").write_text("{}" * side)
        compress(source, folder / f"{'ab'[side]}.hct")
    return folder


FORMS = {
    "directory": "{}",
    "file": "{}/model.safetensors",
    "bundle": "{}.hct",
    "hct": "{}.hct/model.safetensors.hct",
}


@pytest.mark.parametrize("b", FORMS)
@pytest.mark.parametrize("a", FORMS)
def test_compare_figures(pair, a, b):
    path_a, path_b = pair / FORMS[a].format("a"), pair / FORMS[b].format("b")
    result = hct_json("compare", path_a, path_b)
    assert list(result) == ["tensors", "differ", "total"]
    expected = known_pair()
    assert [t["name"] for t in result["tensors"]] == list(expected)
    weighed = "a" if a in ("bundle", "hct") and b in ("directory", "file") else "b"
    compressed = {a, b} & {"bundle", "hct"}
    if compressed:
        listing = hct_json("ls", pair / f"{weighed}.hct")["files"][0]["tensors"]
    for i, tensor in enumerate(result["tensors"]):
        dtype, shape, data, _, va, vb = expected[tensor["name"]]
        assert list(tensor) == TENSOR_KEYS
        error, cosine, psnr, largest = expected_figures(va, vb)
        assert close(tensor["relative_squared_error"], error)
        assert close(tensor["cosine"], cosine)
        assert tensor["psnr_db"] is None if psnr is None else close(tensor["psnr_db"], psnr)
        assert tensor["max_abs_error"] == largest
        assert tensor["grade"] == grade(cosine)
        assert (tensor["dtype"], tensor["shape"]) == (dtype, list(shape))
        assert (tensor["elements"], tensor["source_bytes"]) == (len(va), len(data))
        stored = listing[i]["stored_bytes"] if compressed else len(data)
        assert tensor["stored_bytes"] == stored
        assert tensor["codec"] == (listing[i]["codec"] if compressed else "none")
        assert close(tensor["bits_per_weight"], 8 * stored / len(va))
    total = result["total"]
    assert list(total) == TOTAL_KEYS
    all_a, all_b = (np.concatenate([t[k] for t in expected.values()]) for k in (4, 5))
    error, cosine, _, _ = expected_figures(all_a, all_b)
    assert close(total["relative_squared_error"], error)
    assert close(total["cosine"], cosine)
    assert total["elements"] == len(all_a)
    assert total["source_bytes"] == (pair / "a" / "model.safetensors").stat().st_size
    on_disk = pair / FORMS["hct" if compressed else "file"].format(weighed)
    assert total["stored_bytes"] == on_disk.stat().st_size
    assert close(total["ratio"], total["source_bytes"] / total["stored_bytes"])
    assert close(total["bits_per_weight"], 8 * total["stored_bytes"] / len(all_a))
    # Means over what differs, by elements.
    differ = result["differ"]
    assert list(differ) == DIFFER_KEYS
    unequal = [t for t in result["tensors"] if t["relative_squared_error"] > 0]
    assert differ["tensors"] == len(unequal) == 10
    assert differ["elements"] == sum(t["elements"] for t in unequal)
    for key in ("relative_squared_error", "cosine"):
        mean = sum(t[key] * t["elements"] for t in unequal) / differ["elements"]
        assert close(differ[key], mean)
    assert differ["grade"] == grade(differ["cosine"]) == "Degraded"
    worst = next(t for t in unequal if t["name"] == "f32.bad")
    keys = "relative_squared_error", "cosine", "grade"
    assert differ["worst"] == {"tensor": "f32.bad", **{k: worst[k] for k in keys}}


def test_grades_are_all_met():
    cosines = {n: expected_figures(va, vb)[1] for n, (*_, va, vb) in known_pair().items()}
    assert {grade(c) for c in cosines.values()} == {
        "Excellent",
        "Good",
        "Acceptable",
        "Degraded",
        "Poor",
    }


def test_compare_does_not_depend_on_threads(pair):
    outputs = {
        hct("compare", "--json", "-j", jobs, pair / "a", pair / "b.hct").stdout
        for jobs in (1, 2, 3, 7)
    }
    assert len(outputs) == 1


def test_compare_table(pair):
    lines = hct("compare", pair / "a", pair / "b.hct").stdout.splitlines()
    assert lines[0].split() == "ERROR COSINE PSNR MAX ERR GRADE BITS TENSOR".split()
    assert sum("same" in line for line in lines) == 1
    (mean,) = [line for line in lines if line.startswith("mean")]
    differ = hct_json("compare", pair / "a", pair / "b.hct")["differ"]
    assert mean == (
        f"mean   error {differ['relative_squared_error']:.3g}, cosine {differ['cosine']:.5f}, "
        "Degraded: by elements, of the 10 that differ"
    )
    (worst,) = [line for line in lines if line.startswith("worst")]
    assert worst.endswith("f32.bad") and "Poor" in worst
    assert lines[-1].startswith("11 tensors: 1 bit-identical, 10 differ (")
    quiet = hct("compare", "-q", pair / "a", pair / "b.hct").stdout.splitlines()
    assert quiet == lines[-len(quiet) :] and len(quiet) == 4


def test_compare_of_equals(odd_model, odd_bundle, sharded_model, sharded_bundle):
    for a, b in ((odd_model, odd_bundle), (odd_bundle, odd_model), (odd_bundle, odd_bundle)):
        done = hct("compare", a, b)
        count = len(odd_tensors()) + 2
        assert done.stdout.splitlines()[-1] == f"{count} tensors, all bit-identical"
        assert done.stderr == ""
    result = hct_json("compare", sharded_model, sharded_bundle)
    assert {t["relative_squared_error"] for t in result["tensors"]} == {0}
    assert {t["psnr_db"] for t in result["tensors"]} == {None}
    assert {t["grade"] for t in result["tensors"]} == {"Excellent"}
    total = result["total"]
    assert total["relative_squared_error"] == 0 and total["cosine"] == 1
    differ = result["differ"]
    assert list(differ) == DIFFER_KEYS[:-1] and list(differ.values()) == [0, 0, 0, 1, "Excellent"]
    assert total["stored_bytes"] == sum(p.stat().st_size for p in sharded_bundle.glob("*.safetensors.hct"))


def test_compare_of_other_shards(tmp_path, sharded_model, sharded_bundle):
    """Tensors are found wherever they lie; one shard is weighed alone."""
    merged = {}
    for shard in sorted(sharded_model.glob("*.safetensors")):
        data = shard.read_bytes()
        (length,) = struct.unpack_from("<Q", data)
        for name, tensor in json.loads(data[8 : 8 + length]).items():
            if name != "__metadata__":
                begin, end = (8 + length + at for at in tensor["data_offsets"])
                merged[name] = tensor["dtype"], tensor["shape"], data[begin:end]
    names = sorted(merged)
    make_safetensors(tmp_path / "all.safetensors", {n: merged[n] for n in names})
    done = hct("compare", tmp_path / "all.safetensors", sharded_bundle)
    assert done.stdout.endswith(f"{len(names)} tensors, all bit-identical\n")
    shard = sorted(sharded_model.glob("*.safetensors"))[0]
    result = hct_json("compare", shard, sharded_bundle, expect=EXIT_BAD_DATA)
    stored = sharded_bundle / f"{shard.name}.hct"
    assert result["total"]["stored_bytes"] == stored.stat().st_size
    assert result["total"]["source_bytes"] == shard.stat().st_size


def test_compare_by_value_of_other_dtypes(tmp_path):
    rng = np.random.default_rng(6)
    values = rng.standard_normal(300_000).astype("<f4")
    make_safetensors(tmp_path / "a.safetensors", {"w": ("F32", (300, 1000), values.tobytes())})
    make_safetensors(tmp_path / "b.safetensors", {"w": ("BF16", (300, 1000), bf16_bytes(values))})
    (tmp_path / "source").mkdir()
    shutil.copy(tmp_path / "b.safetensors", tmp_path / "source" / "b.safetensors")
    bundle = compress(tmp_path / "source", tmp_path / "b.hct")
    rounded = bf16_values(bf16_bytes(values))
    error, cosine, psnr, largest = expected_figures(values.astype(np.float64), rounded)
    for b in (tmp_path / "b.safetensors", bundle):
        (tensor,) = hct_json("compare", tmp_path / "a.safetensors", b)["tensors"]
        assert close(tensor["relative_squared_error"], error)
        assert close(tensor["cosine"], cosine)
        assert close(tensor["psnr_db"], psnr)
        assert tensor["max_abs_error"] == largest
        assert (tensor["dtype"], tensor["source_bytes"]) == ("F32", 1_200_000)
    assert "w (F32, BF16)" in hct("compare", tmp_path / "a.safetensors", bundle).stdout
    # The same numbers in another dtype are equal, but not bit-identical.
    exact = {"w": ("F32", (300, 1000), rounded.astype("<f4").tobytes())}
    make_safetensors(tmp_path / "c.safetensors", exact)
    done = hct("compare", bundle, tmp_path / "c.safetensors")
    assert done.stdout.endswith("1 tensor: 1 equal in value only\n")


def test_compare_of_what_is_no_number(tmp_path):
    def tensors(flag, nan):
        return {
            "bool": ("BOOL", (4,), bytes([0, 1, 1, 0])),
            "c64": ("C64", (2,), np.array([1 + 2j, 3 + 4j * flag], "<c8").tobytes()),
            "f4": ("F4", (4,), bytes([0x12, 0x34])),
            "nan": ("F32", (3,), np.array([1, nan, np.inf], "<f4").tobytes()),
            "none": ("F32", (0, 7), b""),
            "zero": ("F32", (2,), np.array([0.0, 0.0 if flag == 1 else -0.0], "<f4").tobytes()),
        }

    make_safetensors(tmp_path / "a.safetensors", tensors(1, np.nan))
    make_safetensors(tmp_path / "b.safetensors", tensors(2, np.nan))
    result = hct_json("compare", tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    found = {t["name"]: t for t in result["tensors"]}
    errors = {name: t["relative_squared_error"] for name, t in found.items()}
    assert errors == {"bool": 0, "c64": None, "f4": 0, "nan": 0, "none": 0, "zero": 0}
    assert found["c64"]["grade"] == "Poor" and found["c64"]["cosine"] is None
    assert found["none"]["bits_per_weight"] == 0
    # What differs without a number leaves totals and means without one.
    assert result["total"]["relative_squared_error"] is None
    assert result["differ"]["relative_squared_error"] is None
    assert result["differ"]["cosine"] is None and result["differ"]["grade"] == "Poor"
    text = hct("compare", tmp_path / "a.safetensors", tmp_path / "b.safetensors").stdout
    assert "\nmean   error inf, cosine -, Poor: by elements, of the 1 that differ\n" in text
    assert "\nworst  error inf, cosine -, Poor: c64\n" in text
    assert text.endswith("6 tensors: 4 bit-identical, 1 equal in value only, 1 differ (1 Poor)\n")
    make_safetensors(tmp_path / "c.safetensors", tensors(1, 5))
    (nan,) = [
        t
        for t in hct_json("compare", tmp_path / "a.safetensors", tmp_path / "c.safetensors")["tensors"]
        if t["name"] == "nan"
    ]
    assert nan["relative_squared_error"] is None and nan["grade"] == "Poor"


@pytest.mark.parametrize("scale", [1e300, 1e-300, 1e-5])
def test_compare_of_any_scale(tmp_path, scale):
    """Squares beyond the range of double show in no figure, nor does one tensor hide another."""
    rng = np.random.default_rng(12)
    a, noise, large = rng.standard_normal(5000), rng.standard_normal(5000), np.array([1e308])
    values = {side: (a + step * noise) * scale for side, step in (("a", 0), ("b", 0.2))}
    for side, v in values.items():
        tensors = {
            "w": ("F64", (50, 100), v.tobytes()),
            "bias": ("F32", (5000,), (v / scale).astype("<f4").tobytes()),
            "exact": ("F64", (), large.tobytes()),
        }
        make_safetensors(tmp_path / f"{side}.safetensors", tensors)
    sides = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    result = hct_json("compare", *sides)
    found = {t["name"]: t for t in result["tensors"]}
    error, cosine, psnr, largest = expected_figures(a, a + 0.2 * noise)
    for name, unit in (("w", scale), ("bias", 1)):
        tensor = found[name]
        assert tensor["relative_squared_error"] == pytest.approx(error, rel=1e-6)
        assert tensor["cosine"] == pytest.approx(cosine, rel=1e-6)
        assert tensor["psnr_db"] == pytest.approx(psnr, rel=1e-6)
        assert tensor["max_abs_error"] == pytest.approx(largest * unit, rel=1e-5)
    assert result["differ"]["relative_squared_error"] == pytest.approx(error, rel=1e-6)
    assert result["differ"]["cosine"] == pytest.approx(cosine, rel=1e-6)
    # All as one: next to 1e308 little counts, but no figure says equal.
    assert 0 < result["total"]["relative_squared_error"] < 1e-10 and result["total"]["cosine"] > 0.99
    (mean,) = [t for t in hct("compare", *sides).stdout.splitlines() if t.startswith("mean")]
    assert f"error {error:.3g}, cosine {cosine:.5f}" in mean


def test_compare_lists_what_cannot_be_compared(tmp_path):
    rng = np.random.default_rng(7)
    common = random_tensor(rng, "F32", (8, 8))
    a = {
        "common": common,
        "only.a": random_tensor(rng, "F32", (3,)),
        "shape": ("F32", (2, 8), common[2][:64]),
        "kind": ("F8_E8M0", (64,), common[2][:64]),
    }
    b = {
        "common": common,
        "only.b\x1b[31m": random_tensor(rng, "F32", (3,)),
        "shape": ("F32", (8, 2), common[2][:64]),
        "kind": ("U8", (64,), common[2][:64]),
    }
    make_safetensors(tmp_path / "a.safetensors", a)
    make_safetensors(tmp_path / "b.safetensors", b)
    done = hct(
        "compare", tmp_path / "a.safetensors", tmp_path / "b.safetensors", expect=EXIT_BAD_DATA
    )
    lines = done.stderr.splitlines()
    assert len(lines) == 4
    for word in ("only.a", "only.b\\x1b[31m", "[2,8]", "F8_E8M0"):
        assert sum(word in line for line in lines) == 1
    assert done.stdout.endswith("1 tensor, all bit-identical; 4 not compared\n")
    result = hct_json(
        "compare", tmp_path / "a.safetensors", tmp_path / "b.safetensors", expect=EXIT_BAD_DATA
    )
    assert [t["name"] for t in result["tensors"]] == ["common"]


def test_compare_with_one_name_in_two_files(tmp_path):
    """Files of the same path belong together, whatever their order."""
    rng = np.random.default_rng(8)
    for side, files in (("a", ("1", "2")), ("b", ("2", "1"))):
        for name in files:
            (tmp_path / side / name).mkdir(parents=True)
    for name in ("1", "2"):
        tensor = {"w": random_tensor(rng, "F32", (100,))}
        make_safetensors(tmp_path / "a" / name / "m.safetensors", tensor)
        make_safetensors(tmp_path / "b" / name / "m.safetensors", tensor)
    done = hct("compare", tmp_path / "a", tmp_path / "b")
    assert done.stdout.endswith("2 tensors, all bit-identical\n")
    # One of them moved: what is left over goes by name.
    (tmp_path / "b" / "2").rename(tmp_path / "b" / "0")
    done = hct("compare", tmp_path / "a", tmp_path / "b")
    assert done.stdout.endswith("2 tensors, all bit-identical\n")


def test_compare_with_a_damaged_side(tmp_path, sharded_model, sharded_bundle):
    bundle = copy_bundle(sharded_bundle, tmp_path)
    shards = sorted(bundle.glob("*.safetensors.hct"))
    listing = hct_json("ls", shards[0])["files"][0]["tensors"]
    flip(shards[0], extents(shards[0])[0][0])
    done = hct("compare", sharded_model, bundle, expect=EXIT_BAD_DATA)
    assert f"'{listing[0]['name']}' cannot be read" in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout.endswith("; 1 not compared\n")
    os.truncate(shards[1], 3000)
    done = hct("compare", sharded_model, bundle, expect=EXIT_BAD_DATA)
    assert shards[1].name in done.stderr
    for shard in shards:
        for offset, _ in extents(shard) if shard is not shards[1] else []:
            flip(shard, offset + 1)
    done = hct("compare", sharded_model, bundle, expect=EXIT_BAD_DATA)
    assert done.stdout.startswith("no tensor was compared; ") and done.stdout.count("\n") == 1
    # What is missing because a file does not open is counted, not listed.
    assert "is only in" not in done.stderr
    result = hct_json("compare", sharded_model, bundle, expect=EXIT_BAD_DATA)
    assert list(result["total"]) == TOTAL_KEYS and set(result["total"].values()) == {None}
    assert list(result["differ"].values()) == [0, 0, None, None, None]
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "m.safetensors").write_bytes(b"\xff" * 100)
    done = hct("compare", sharded_model, broken, expect=EXIT_BAD_DATA)
    assert "m.safetensors" in done.stderr.splitlines()[0]
    (broken / "m.safetensors").unlink()
    done = hct("compare", sharded_model, broken, expect=EXIT_BAD_DATA)
    assert done.stderr.count("\n") == 1


def test_compare_totals_with_an_unreadable_tensor(tmp_path, sharded_model, sharded_bundle):
    bundle = copy_bundle(sharded_bundle, tmp_path)
    before = hct_json("compare", sharded_model, bundle)
    shard = min(bundle.glob("*.safetensors.hct"))
    flip(shard, extents(shard)[0][0])
    after = hct_json("compare", sharded_model, bundle, expect=EXIT_BAD_DATA)
    assert len(after["tensors"]) == len(before["tensors"]) - 1
    assert after["total"] == before["total"]
    assert after["total"]["elements"] == sum(t["elements"] for t in before["tensors"])


def test_compare_lists_a_few_that_are_missing(tmp_path):
    tensors = {f"t{i}": ("U8", (4,), b"abcd") for i in range(20)}
    make_safetensors(tmp_path / "a.safetensors", tensors)
    make_safetensors(tmp_path / "b.safetensors", {"t3": tensors["t3"]})
    done = hct(
        "compare", tmp_path / "a.safetensors", tmp_path / "b.safetensors", expect=EXIT_BAD_DATA
    )
    lines = done.stderr.splitlines()
    assert len(lines) == 6 and lines[5] == "hct compare: ... and 14 more"
    assert done.stdout.endswith("1 tensor, all bit-identical; 19 not compared\n")


def test_compare_of_a_file_of_any_name(tmp_path, sharded_model):
    """A cache names files by their hash."""
    shard = sorted(sharded_model.glob("*.safetensors"))[0]
    shutil.copy(shard, tmp_path / "0a1b2c")
    done = hct("compare", tmp_path / "0a1b2c", shard)
    assert done.stdout.endswith("all bit-identical\n")
