"""mkhct with loss: forecasts, reports and what is printed."""

import json
import re

import numpy as np
import pytest
from helpers import EXIT_SYSTEM, HCT, MKHCT, compress, make_safetensors, run, tree_digests, weights
from losses import lossy, measure, report_of

# Dry run -----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--bpw", "3"], ["--lossless"], ["--policy", "hybrid"]])
def test_dry_run_agrees_with_the_run(uneven, tmp_path, options):
    before = tree_digests(tmp_path)
    forecast = json.loads(run(MKHCT, "--dry-run", "--json", *options, uneven).stdout)
    assert tree_digests(tmp_path) == before
    out = lossy(uneven, tmp_path / "out", *options)
    report, tensors = report_of(out)
    assert forecast["dry_run"] is True and forecast["options"] == report["options"]
    assert forecast["stored_bytes"] == pytest.approx(report["stored_bytes"], rel=0.005)
    assert forecast["source_bytes"] == report["source_bytes"]
    (file,) = forecast["files"]
    assert [t["name"] for t in file["tensor_list"]] == list(tensors)
    for t in file["tensor_list"]:
        real = tensors[t["name"]]
        assert t["lossy"] == ("relative_squared_error" in real)
        # Up to what tables of other tensors save by being compressed with these.
        stored = t["bits_per_weight"] * np.prod(real["shape"]) / 8
        assert stored == pytest.approx(real["stored_bytes"], rel=0.01, abs=1000)
        for key in ("relative_squared_error", "cosine", "target_error"):
            assert t.get(key, 0) == pytest.approx(real.get(key, 0), rel=1e-6)


def test_dry_run_prints_a_table(llama, tmp_path):
    out = tmp_path / "out"
    done = run(MKHCT, "--dry-run", llama, out)
    assert not out.exists()
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["dtype", "shape", "kept", "bits", "error", "cosine", "reason", "tensor"]
    norm = next(line for line in lines if line.endswith("model.norm.weight"))
    assert norm.split()[:3] == ["BF16", "[64]", "lossless"] and "norm" in norm.split()
    head = next(line for line in lines if line.endswith("lm_head.weight"))
    assert head.split()[2] == "loss" and head.split()[-2] == "uniform"
    assert lines[-2].startswith("expected  ") and lines[-1] == "nothing was written"
    # A bundle that is there already is in the way of a dry run as of a real one.
    compress(llama, out)
    done = run(MKHCT, "--dry-run", llama, out, expect=EXIT_SYSTEM)
    assert done.stdout == "" and str(out) in done.stderr


# Reports -----------------------------------------------------------------------------


def test_report_agrees_with_measurements(matrices, tmp_path):
    out = lossy(matrices, tmp_path / "out", "--quality-sample", "1")
    report, tensors = report_of(out)
    found = measure(matrices, out, tmp_path)
    for name, (error, cosine) in found.items():
        t = tensors[name]
        assert t["verified"] is True
        assert t.get("relative_squared_error", 0) == pytest.approx(error, rel=1e-5)
        assert t.get("cosine", 1) == pytest.approx(cosine, rel=1e-6)
    lossy_names = [n for n, (error, _) in found.items() if error > 0]
    sizes = {n: int(np.prod(tensors[n]["shape"])) for n in tensors}
    total = report["lossy"]
    assert total["tensors"] == len(lossy_names) == 4
    assert total["weights"] == sum(sizes[n] for n in lossy_names)
    mean = sum(sizes[n] * found[n][1] for n in lossy_names) / total["weights"]
    assert total["cosine"] == pytest.approx(mean, rel=1e-6)
    mean = sum(sizes[n] * found[n][0] for n in lossy_names) / total["weights"]
    assert total["relative_squared_error"] == pytest.approx(mean, rel=1e-5)
    worst = max(lossy_names, key=lambda n: found[n][0])
    assert total["worst"]["tensor"] == worst
    assert total["worst"]["relative_squared_error"] == pytest.approx(found[worst][0], rel=1e-5)
    assert total["worst"]["cosine"] == pytest.approx(found[worst][1], rel=1e-6)
    assert total["grade"] == "Good"
    assert report["lossless"]["tensors"] == 1
    assert report["verified_tensors"] == 5
    stored = (out / "model.safetensors.hct").stat().st_size
    assert report["weights"] == sum(sizes.values())
    assert report["bits_per_weight"] == pytest.approx(8 * stored / report["weights"], rel=1e-6)
    wide = {"F32": 2, "F64": 4}
    bf16 = report["model_source_bytes"] - sum(
        t["source_bytes"] - t["source_bytes"] // wide.get(t["dtype"], 1) for t in tensors.values())
    assert report["bf16_ratio"] == pytest.approx(bf16 / stored, rel=1e-6)


def test_hct_agrees_with_the_report(matrices, tmp_path):
    out = lossy(matrices, tmp_path / "out")
    report, tensors = report_of(out)
    (file,) = json.loads(run(HCT, "ls", "--json", out).stdout)["files"]
    for t in file["tensors"]:
        mine = tensors[t["name"]]
        assert t["relative_squared_error"] == pytest.approx(
            mine.get("relative_squared_error", 0), rel=1e-6)  # fmt: skip
        assert t["stored_bytes"] == mine["stored_bytes"]
    text = run(HCT, "ls", out).stdout
    assert "ERROR" in text and "COSINE" in text
    info = json.loads(run(HCT, "info", "--json", out).stdout)
    assert info["lossy"]["tensors"] == report["lossy"]["tensors"]
    assert info["lossy"]["stored_bytes"] == report["lossy"]["stored_bytes"]
    assert info["total"]["bits_per_weight"] == pytest.approx(report["bits_per_weight"], rel=1e-6)
    assert info["options"] == report["options"]
    assert "with loss     4 tensors" in run(HCT, "info", out).stdout
    compared = json.loads(run(HCT, "compare", "--json", matrices, out).stdout)
    for t in compared["tensors"]:
        mine = tensors[t["name"]]
        assert t["relative_squared_error"] == pytest.approx(
            mine.get("relative_squared_error", 0), rel=1e-5)  # fmt: skip
        assert t["cosine"] == pytest.approx(mine.get("cosine", 1), rel=1e-6)


def test_quality_sample_chooses_by_name(llama, tmp_path):
    none, _ = report_of(lossy(llama, tmp_path / "none", "--quality-sample", "0"))
    some, by_name = report_of(lossy(llama, tmp_path / "some", "--quality-sample", ".3"))
    more, all_names = report_of(lossy(llama, tmp_path / "more", "--quality-sample", ".6"))
    assert none["verified_tensors"] == 0
    assert 0 < some["verified_tensors"] < more["verified_tensors"] < more["tensors"]
    assert all("verified" in all_names[n] for n, t in by_name.items() if "verified" in t)


def test_final_table(llama, tmp_path):
    done = run(MKHCT, "--quality-sample", "1", llama, tmp_path / "out")
    text = done.stdout
    assert all(len(line) <= 80 for line in text.splitlines()), text
    assert re.search(r"^models +59 .* \d+\.\d{3}$", text, re.M), text
    assert re.search(r"^  with loss +50 ", text, re.M) and re.search(r"^  lossless +9 ", text, re.M)
    assert re.search(r"^quality   Good: the mean cosine to the source is 0\.99", text, re.M)
    assert re.search(r"^worst     0\.99\d+: model\.", text, re.M)
    assert re.search(r"^size      \d+\.\d+ times smaller than the same models in BF16$", text, re.M)
    assert "59 of 59 tensors were read back" in text


def test_verbose_shows_bits_and_cosine(llama, tmp_path):
    done = run(MKHCT, "-v", llama, tmp_path / "out")
    line = r"^  lm_head\.weight  BF16  \[256,64\]  tcq  \d\.\d{3}  \d\.\d{3} bits  cosine 0\.99\d+  \d+\.\d\d s$"
    assert re.search(line, done.stderr, re.M), done.stderr
    assert re.search(r"^  model\.norm\.weight  BF16  \[64\]  \w+  \d\.\d{3}  \d+\.\d\d s$", done.stderr, re.M)


# What cannot be lossy -----------------------------------------------------------------


@pytest.fixture
def unfit(tmp_path):
    """Matrices that stay lossless whatever is asked for, and one that does not."""
    folder = tmp_path / "unfit"
    folder.mkdir()
    rng = np.random.default_rng(16)
    tensors = {f"bad.{i}.weight": weights(rng, 64 * 64).reshape(64, 64) for i in range(4)}
    for i, value in enumerate((np.nan, np.inf, -np.inf, np.nan)):
        tensors[f"bad.{i}.weight"][3, i] = value
    tensors["empty.weight"] = np.zeros((64, 64), np.float32)
    tensors["good.weight"] = weights(rng, 256 * 256).reshape(256, 256)
    # Its energy is that of all others a million times over, and it is hardly wrong.
    tensors["huge.weight"] = 1e6 * np.cumsum(np.cumsum(weights(rng, 4096).reshape(64, 64), 0), 1)
    make_safetensors(folder / "model.safetensors",
                     {n: ("F32", a.shape, a.astype("<f4").tobytes()) for n, a in tensors.items()})  # fmt: skip
    return folder


def test_table_says_what_stays_lossless(unfit, tmp_path):
    done = run(MKHCT, "-v", unfit, tmp_path / "out")
    exact = [line for line in done.stdout.splitlines() if line.startswith("exact ")]
    assert exact == [
        "exact     4 tensors stay lossless: it has NaN or infinity; the first is bad.0.weight",
        "exact     1 tensor stays lossless: it is zero: empty.weight",
    ]
    for name, why in (("bad.2", "it has NaN or infinity"), ("empty", "it is zero")):
        line = rf"^  {name}\.weight  F32  \[64,64\]  \w+  \d+\.\d+  lossless: {why}  \d+\.\d\d s$"
        assert re.search(line, done.stderr, re.M), done.stderr
    report = json.loads(run(MKHCT, "--json", unfit, tmp_path / "json").stdout.splitlines()[-1])
    assert report["lossless"]["because"] == [
        {"reason": "it has NaN or infinity", "tensors": 4,
         "first": [f"bad.{i}.weight" for i in range(3)]},
        {"reason": "it is zero", "tensors": 1, "first": ["empty.weight"]},
    ]  # fmt: skip


def test_nothing_stays_lossless_for_a_reason(llama, tmp_path):
    done = run(MKHCT, "-v", llama, tmp_path / "out")
    assert "\nexact" not in done.stdout and "lossless:" not in done.stderr
    assert "because" not in report_of(tmp_path / "out")[0]["lossless"]
    done = run(MKHCT, "-v", "--lossless", llama, tmp_path / "lossless")
    assert "\nexact" not in done.stdout and "lossless:" not in done.stderr


def test_no_tensor_counts_for_its_scale(unfit, tmp_path):
    out = lossy(unfit, tmp_path / "out", "--tensor", "huge.weight=snr:60")
    report, tensors = report_of(out)
    errors = [tensors[n]["relative_squared_error"] for n in ("good.weight", "huge.weight")]
    mean = (errors[0] * 256 * 256 + errors[1] * 64 * 64) / (256 * 256 + 64 * 64)
    assert report["lossy"]["relative_squared_error"] == pytest.approx(mean, rel=1e-5)
    assert mean > 0.01 and report["lossy"]["worst"]["tensor"] == "good.weight"


# Figures -------------------------------------------------------------------------------


def test_no_cosine_is_printed_as_1(matrices, tmp_path):
    done = run(MKHCT, "-v", "--retention", ".99", matrices, tmp_path / "out")
    report, tensors = report_of(tmp_path / "out")
    total = report["lossy"]
    lacks = total["relative_squared_error"] / 2  # 1 - cosine
    for pattern in (r"^quality   Excellent: the mean cosine to the source is (\S+)$",
                    r"^worst     (\S+): layers\."):  # fmt: skip
        text = re.search(pattern, done.stdout, re.M)[1]
        assert 1 - float(text) == pytest.approx(lacks, rel=0.5), done.stdout
    assert 1 - total["cosine"] == pytest.approx(lacks, rel=0.1)
    assert all(t["cosine"] < 1 for t in tensors.values() if "cosine" in t)
    for text in re.findall(r"cosine (\S+)$", done.stderr, re.M):
        assert 1 - float(text) == pytest.approx(lacks, rel=0.5)
    dry = run(MKHCT, "--dry-run", "--retention", ".99", matrices).stdout.splitlines()
    cosines = [float(line.split()[5]) for line in dry if " loss " in line]
    assert cosines and all(1 - c == pytest.approx(lacks, rel=0.5) for c in cosines)


def test_what_is_larger_than_bf16_is_not_called_smaller(matrices, tmp_path):
    text = run(MKHCT, "--retention", "1", matrices, tmp_path / "out").stdout
    report, _ = report_of(tmp_path / "out")
    assert report["bf16_ratio"] < 1
    ratio = 1 / report["bf16_ratio"]
    assert f"size      {ratio:.3f} times larger than the same models in BF16\n" in text


@pytest.mark.parametrize("options", [
    ["--policy", "adaptive"], ["--policy", "importance"], ["--retention", ".99"],
    ["--tensor", "model.layers.0.self_attn.*_proj.weight*=.9"],
])  # fmt: skip
def test_columns_of_a_dry_run_are_straight(llama, options):
    text = run(MKHCT, "--dry-run", *options, llama).stdout
    lines = text.split("\n\n")[0].splitlines()
    column = lines[0].index("tensor")
    assert lines[0][column:] == "tensor"
    for line in lines[1:]:
        assert line[column - 1] == " " and re.fullmatch(r"(model|lm_head)\.\S+", line[column:]), text
    if options[0] == "--tensor":
        # A pattern that is too long is cut in the table, and whole in JSON.
        assert "--tensor model.layers.0.self_attn.*_pr..  model.layers.0" in text
        whole = run(MKHCT, "--dry-run", "--json", *options, llama).stdout
        assert '"--tensor model.layers.0.self_attn.*_proj.weight*"' in whole
