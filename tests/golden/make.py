#!/usr/bin/env python3
"""Adds golden .hct files that are not there yet, and their lines in manifest.json.

Every later version must read these files, so none is ever made again: to cover something
new, add a name below.  manifest.json holds the SHA-256 of the source file, or the name of
the error (FORMAT.md, section 8) of a file that is damaged.  Those of mkhct are made by the
build that HCT_BUILD names.
"""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import hctcases  # noqa: E402
import hctspec  # noqa: E402
from hctmake import Made, source_header  # noqa: E402

# Written by hctmake.py from the specification.
VALID = [
    "split_bf16", "split_f16", "split_f32", "split_c64", "split_f64", "split_f8_e5m2",
    "split_f8_e4m3", "split_f8_e5m2fnuz", "split_f8_e4m3fnuz", "classes_16", "exceptions_rice_8",
    "exceptions_first_and_last_of_segments", "exceptions_wide", "exceptions_with_shift",
    "exceptions_with_longer_codes", "exponents_twice", "tail_zstd", "all_equal", "one_element",
    "zstd_strides", "mixed", "newer_minor", "no_tensors", "unknown_dtype",
    "tcq_bf16", "tcq_f16", "tcq_f32", "tcq_f64", "tcq_f8_e5m2", "tcq_f8_e4m3", "tcq_f8_e5m2fnuz",
    "tcq_f8_e4m3fnuz", "tcq_f16_least", "tcq_f8_e4m3_greatest", "tcq_row_classes_16",
    "tcq_column_classes_4", "tcq_states_4", "tcq_states_5", "tcq_raw_7", "tcq_run_0",
    "tcq_segment_12", "tcq_columns_3", "tcq_chunk_of_65", "tcq_layers_4", "tcq_layers_4_tiles",
    "tcq_tile_1x8_of_40", "tcq_tile_8x1_of_37", "tcq_tile_64x64_of_64",
    "tcq_exceptions_first_and_last", "tcq_exceptions_low_15", "tcq_exceptions_rice_8",
    "tcq_freq_chain", "tcq_freq_lone", "tcq_mixed", "tcq_unused_bits",
    "coef_bf16", "coef_f32", "coef_f64", "coef_f8_e4m3", "coef_masks_0_0", "coef_masks_0_3",
    "coef_masks_2_2", "coef_exponent_60", "coef_tile_1x8", "coef_tile_8x1", "coef_tile_64x64",
    "lowrank_bf16", "lowrank_f16", "lowrank_f32", "lowrank_1", "lowrank_full", "lowrank_raw_bits",
    "lowrank_tiles", "lowrank_u_columns_7", "literal_mixed",
]
DAMAGED = [
    "extent_checksum", "extent_digest", "extent_codec", "flag_15", "major_2", "no_trailer",
    "json_hole", "split_a_one_byte_more", "split_exceptions_beyond", "tables_sum_257",
    "zstd_lies", "tables_tcq_sum_257", "tables_tcq_step_nan", "tcq_a_one_byte_more",
    "tcq_state_below_256_that_would_do", "tcq_exceptions_9_zeros", "tcq_digest", "tcq_then_raw",
    "tcq_tile_does_not_fit_columns_of_last_chunk", "tables_coef_exponent_61",
    "coef_scale_infinite", "coef_one_more_kept", "coef_mask_two_frames",
    "tables_lowrank_columns_2", "tables_lowrank_v_one_byte_more", "lowrank_u_one_byte_more",
]


def weights(dtype, n, seed):
    rng = np.random.default_rng(seed)
    return hctcases.floats(dtype, n, seed, scales=rng.integers(0, 6, 100))


def mkhct_tensors():
    """Every dtype, small, and some that are long enough to be coded well."""
    rng = np.random.default_rng(1)
    tensors = [
        Made("bf16.weight", "BF16", [25, 100], weights("BF16", 2500, 1)),
        Made("f32.weight", "F32", [10, 100], weights("F32", 1000, 2)),
        Made("f16.weight", "F16", [10, 100], weights("F16", 1000, 3)),
        Made("ids", "I64", [400], np.arange(400, dtype="<i8").tobytes()),
        Made("scalar", "F32", [], b"\x00\x00\x80\x3f"),
        Made("empty", "BF16", [4, 0], b""),
    ]
    for dtype, bits in hctspec.DTYPE_BITS.items():
        tensors.append(Made(f"small/{dtype}", dtype, [8, 5], rng.bytes(40 * bits // 8)))
    return tensors


def by_mkhct():
    mkhct = pathlib.Path(os.environ.get("HCT_BUILD", HERE.parents[1] / "build")) / "mkhct"
    tensors = mkhct_tensors()
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / "model.safetensors"
        source.write_bytes(source_header(tensors, {"format": "pt"})
                           + b"".join(t.data for t in tensors))
        os.utime(source, (1_700_000_000, 1_700_000_000))
        bundle = pathlib.Path(folder) / "bundle"
        subprocess.run([mkhct, "--lossless", "-q", source, bundle], check=True)
        made = next(p for p in bundle.rglob("*.hct") if p.is_file()).read_bytes()
        assert hctspec.File(made).read_all() == source.read_bytes()
        return made


def main():
    manifest_path = HERE / "manifest.json"
    manifest = json.loads(manifest_path.read_text()) if manifest_path.exists() else {}
    wanted = {name: hctcases.VALID[name] for name in VALID}
    wanted.update({f"bad_{name}": hctcases.DAMAGED[name][0] for name in DAMAGED})
    wanted["mkhct_0.1.0"] = by_mkhct
    for name, make in wanted.items():
        file = f"{name}.safetensors.hct"
        if file in manifest:
            continue
        data = make()
        try:
            manifest[file] = {"sha256": hashlib.sha256(hctspec.File(data).read_all()).hexdigest()}
        except hctspec.SpecError as error:
            assert error.name in hctcases.DAMAGED[name.removeprefix("bad_")][1], error
            manifest[file] = {"error": error.name}
        (HERE / file).write_bytes(data)
        print(f"added {file}, {len(data)} bytes")
    text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    if not manifest_path.exists() or manifest_path.read_text() != text:
        manifest_path.write_text(text)


if __name__ == "__main__":
    main()
