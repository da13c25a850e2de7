#!/usr/bin/env python3
"""Seeds of the fuzz targets: the files of hctcases.py and golden/, in the form of each target.

usage: seeds.py OUT     writes OUT/fuzz_NAME/* for each target
"""

import pathlib
import struct
import sys

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

import hctcases  # noqa: E402
import hctspec  # noqa: E402
from hctmake import Image  # noqa: E402

# Bigger ones only slow the fuzzer down.
MAX_SEED = 1 << 15

# In the order of enum hct_dtype; 0 is unknown.
DTYPES = [
    "?", "BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0",
    "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "C64", "F64",
    "I64", "U64",
]  # fmt: skip

# In the order of fuzz_split.c.
SPLIT_DTYPES = ["BF16", "F16", "F32", "C64", "F64", "F8_E5M2", "F8_E4M3", "F8_E5M2FNUZ",
                "F8_E4M3FNUZ"]
# In the order of fuzz_floats.h.
LOSSY_DTYPES = ["BF16", "F16", "F32", "F64", "F8_E5M2", "F8_E4M3", "F8_E5M2FNUZ", "F8_E4M3FNUZ"]


def split_seed(t, k, length, tables, payload):
    width = hctspec.LAYOUTS[t.dtype].W
    elements, first = length // width, k * t.chunk_bytes // width
    return (bytes([SPLIT_DTYPES.index(t.dtype), 7])
            + (elements - 1).to_bytes(3, "little") + first.to_bytes(3, "little")
            + struct.pack("<H", len(tables)) + tables + payload)


def tcq_seed(t, k, length, tables, payloads):
    width = hctspec.FLOATS[t.dtype].W
    elements, first = length // width, k * t.chunk_bytes // width
    return (bytes([LOSSY_DTYPES.index(t.dtype), 15, len(payloads) - 1])
            + (elements - 1).to_bytes(3, "little") + first.to_bytes(3, "little")
            + struct.pack("<H", len(tables)) + tables
            + b"".join(struct.pack("<H", len(p)) for p in payloads[:-1]) + b"".join(payloads))


def literal_seed(t, k, length, codec, tables, payload):
    width = hctspec.FLOATS[t.dtype].W
    elements, first = length // width, k * t.chunk_bytes // width
    return (bytes([codec == hctspec.LOWRANK, LOSSY_DTYPES.index(t.dtype)])
            + (elements - 1).to_bytes(3, "little") + first.to_bytes(3, "little")
            + struct.pack("<H", len(tables)) + tables + payload)


def chunk_seeds(f):
    for i, k in f.chunks[:6]:
        t = f.tensors[i]
        first = t.first_extent + k * t.layers
        extents = f.extents[first:first + t.layers]
        payloads = [f.data[e.offset:e.offset + e.length] for e in extents]
        codecs = {e.codec for e in extents}
        tables = f.params[t.tables_offset:t.tables_offset + t.tables_length]
        length = min(t.chunk_bytes, t.end - t.begin - k * t.chunk_bytes)
        if codecs == {hctspec.ZSTD} and length <= 1 << 16:
            yield "fuzz_zstd", struct.pack("<H", length - 1) + payloads[0]
        if codecs == {hctspec.SPLIT} and t.dtype in SPLIT_DTYPES and len(tables) < 0xFFFF:
            yield "fuzz_split", split_seed(t, k, length, tables, payloads[0])
        if (codecs == {hctspec.TCQ} and t.dtype in LOSSY_DTYPES and len(tables) < 0xFFFF
                and t.layers <= 4 and all(len(p) <= 0xFFFF for p in payloads)):
            yield "fuzz_tcq", tcq_seed(t, k, length, tables, payloads)
        if (codecs <= {hctspec.COEF, hctspec.LOWRANK} and len(codecs) == t.layers == 1
                and t.dtype in LOSSY_DTYPES and len(tables) < 0xFFFF):
            yield "fuzz_literal", literal_seed(t, k, length, *codecs, tables, payloads[0])


def seeds_of(data):
    """(target, seed) for everything that is in an .hct file."""
    try:
        f = hctspec.File(data)
    except hctspec.SpecError:
        yield "fuzz_reader", data
        return
    yield "fuzz_safetensors", struct.pack("<Q", f.source_size) + f.header
    yield from chunk_seeds(f)
    image = Image.from_bytes(data)
    # Sections as they are, so that a mutation changes a field and not a zstd frame.
    image.encodings = dict.fromkeys(hctspec.SECTION_NAMES, 0)
    yield "fuzz_reader", image.build()
    try:
        whole = f.read_all()
    except hctspec.SpecError:
        return
    for t in f.tensors[:6]:
        if t.end > t.begin and t.dtype in DTYPES:
            values = whole[len(f.header) + t.begin:len(f.header) + t.end]
            yield "fuzz_roundtrip", bytes([DTYPES.index(t.dtype), 24]) + values


def main(out):
    files = {name: make() for name, make in hctcases.VALID.items()}
    files.update((name, make()) for name, (make, _) in hctcases.DAMAGED.items())
    files.update((f"golden-{p.stem}", p.read_bytes()) for p in (TESTS / "golden").glob("*.hct"))
    for target in (TESTS / "fuzz").glob("fuzz_*.c"):
        (out / target.stem).mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        for number, (target, seed) in enumerate(seeds_of(data)):
            if len(seed) <= MAX_SEED:
                (out / target / f"{name}-{number}").write_bytes(seed)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]))
