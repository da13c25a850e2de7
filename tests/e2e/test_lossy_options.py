"""mkhct with loss: options and importance files that are refused or have no effect."""

import os
import re

import pytest
from helpers import EXIT_BAD_DATA, EXIT_USAGE, MKHCT, run


def importance(tmp_path, text):
    path = tmp_path / "importance.json"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "options, match",
    [
        (["--retention", ".5", "--cosine", ".9"], "--retention and --cosine exclude each other"),
        (["--bpw", "3", "--size", "1G"], "--bpw and --size exclude each other"),
        (["--lossless", "--snr", "30"], "exclude each other"),
        (["--retention", "0"], "--retention: '0' is no retention"),
        (["--retention", "1.01"], "--retention: '1.01' is no retention"),
        (["--cosine", "1"], "--cosine: '1' is no cosine"),
        (["--snr", "-3"], "--snr: '-3' is no number of decibels"),
        (["--snr", "nan"], "--snr: 'nan' is no"),
        (["--bpw", ".5"], "--bpw: '.5' is no number of bits"),
        (["--size", "many"], "--size: 'many' is no size"),
        (["--policy", "best"], "--policy: 'best' is not known"),
        (["--policy", "hybrid", "--bpw", "3"], "--policy hybrid: sets the error of each tensor"),
        (["--target-quality", ".9"], "--target-quality: give --policy adaptive with it"),
        (["--policy", "adaptive", "--target-quality", "1"], "'1' is no quality"),
        (["--effort", "10"], "--effort: '10' is no level"),
        (["--transform", "wavelet"], "--transform: 'wavelet' is not known"),
        (["--encoder", "zip"], "--encoder: 'zip' is not known"),
        (["--encoder", "topk", "--bpw", "4"], "--bpw and --size: the size of topk, mixed and int4"),
        (["--encoder", "int4", "--layers", "2"], "--layers: topk, mixed and int4 code one; leave --encoder out"),
        (["--layers", "5"], "--layers: '5' is no number of layers"),
        (["--quality-sample", "2"], "--quality-sample: '2' is no fraction"),
        (["--keep", "nothing.*"], "--keep nothing.*: matches no tensor of the model"),
        (["--tensor", "*.q_proj=.5"], r"--tensor \*.q_proj: matches no tensor of the model"),
        (["--tensor", "*.weight"], "is no PATTERN=TARGET"),
        (["--tensor", "*.weight=size:3"], "'size:3' is no target"),
        (["--importance", "/nonexistent.json"], "/nonexistent.json"),
    ],
)
def test_bad_options_write_nothing(llama, tmp_path, options, match):
    out = tmp_path / "out"
    done = run(MKHCT, *options, llama, out, expect=None)
    assert done.returncode in (EXIT_USAGE, 3 if "/nonexistent.json" in options else EXIT_USAGE)
    assert done.stdout == "" and re.fullmatch(r"mkhct: [^\n]+\n", done.stderr), done.stderr
    assert re.search(match, done.stderr), done.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    "text, match",
    [
        ('{"version": 1,\n "tensors": {"lm_head.weight":\n {"importance": 2}}}', r"line 3: "),
        ('{"version": 1,\n "tensors": [}', r"line 2: "),
        ('{"version": 1, "tensors": {"lm_head.weight": {"importance": 1,\n"sensitivity": "so"}}}',
         r"line 2: "),
        ('{"version": 7, "tensors": {}}', r"line 1: "),
        ('{"version": 1, "tensors": {"other": {"importance": 1}}}', "names no tensor of the model"),
    ],
)  # fmt: skip
def test_bad_importance_files(llama, tmp_path, text, match):
    out = tmp_path / "out"
    path = importance(tmp_path, text)
    done = run(MKHCT, "--importance", path, llama, out, expect=EXIT_USAGE)
    assert re.fullmatch(r"mkhct: [^\n]+\n", done.stderr) and re.search(match, done.stderr), done.stderr
    assert not out.exists()


def test_notes_tell_what_has_no_effect(llama, tmp_path):
    done = run(MKHCT, "--tensor", "*layernorm*=.5", llama, tmp_path / "out")
    assert re.search(r"^mkhct: note: --tensor \*layernorm\*: matches only tensors that are lossless",
                     done.stderr, re.M)  # fmt: skip
    quiet = run(MKHCT, "-q", "--tensor", "*layernorm*=.5", llama, tmp_path / "quiet")
    assert quiet.stderr == ""


def test_damaged_source_is_refused_before_any_measurement(llama, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.safetensors").write_bytes((llama / "model.safetensors").read_bytes())
    (source / "b.safetensors").write_bytes(b"\xff" * 100)
    for options in ([], ["--bpw", "3"], ["--dry-run"]):
        done = run(MKHCT, *options, source, tmp_path / "out", expect=EXIT_BAD_DATA)
        assert len(done.stderr.splitlines()) == 1 and "b.safetensors" in done.stderr
        assert not os.path.exists(tmp_path / "out")
