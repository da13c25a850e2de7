"""The cases of the codec tcq: registered in VALID and DAMAGED of hctcases.py, under names that
begin with tcq_ (tables_tcq_ for damaged tables)."""

import functools
import math
import struct

import hctspec
import numpy as np
from hctcases import VALID, damage, damaged, floats, in_segment, put, state, tensor, valid
from hctmake import Image, Made, RawCoder, SplitCoder, change, far_gap_code, gap_code, pack_code
from hctmake_tcq import (
    Drawn,
    Layer,
    TcqCoder,
    decoded_layers,
    encode_tcq_exceptions,
    exception_code,
    flat,
    lone,
    magnitude_code,
    peak,
    tcq_tensor,
)
from hctspec import FLOATS, SPLIT, TCQ

MAX_EXCEPTION = (1 << 24) - (1 << 15) - 1  # the greatest that can be written


def tcq_file(dtype="BF16", n=2500, chunk=1100, columns=100, raw_chunks=(), refused=False,
             **options):
    coder = TcqCoder(dtype, columns, **options)
    return Image.of([tcq_tensor("w", coder, n, chunk, raw_chunks=raw_chunks,
                                refused=refused)]).build()


def case(name, **options):
    VALID[f"tcq_{name}"] = lambda: tcq_file(**options)


# ---------------------------------------------------------------- valid

# Steps where a dtype ends: the least number and the greatest one lie within the points.
LEAST = {"BF16": -100, "F16": -26, "F32": -100, "F64": -100, "F8_E5M2": -18, "F8_E4M3": -11,
         "F8_E5M2FNUZ": -19, "F8_E4M3FNUZ": -12}
GREATEST = {"BF16": 100, "F16": 12, "F32": 100, "F64": 100, "F8_E5M2": 12, "F8_E4M3": 5,
            "F8_E5M2FNUZ": 12, "F8_E4M3FNUZ": 4}


def far(m, rng):
    """Exceptions that lead to the dtype's greatest numbers and beyond, at either sign."""
    where = rng.choice(m, m // 20, replace=False).tolist()
    sizes = np.exp2(rng.uniform(0, math.log2(MAX_EXCEPTION), len(where))).astype(int)
    return dict(zip(where, (sizes * rng.choice([-1, 1], len(where))).tolist()))


for _dtype in FLOATS:
    case(_dtype.lower(), dtype=_dtype, n=1248, layers=[Layer(Q=2, K=3, run=1, exceptions=0.01)])
    case(f"{_dtype.lower()}_least", dtype=_dtype, layers=[Layer(step=2.0**LEAST[_dtype])])
    case(f"{_dtype.lower()}_greatest", dtype=_dtype,
         layers=[Layer(step=2.0**GREATEST[_dtype], b=3, exceptions=far, low=15)])

for _q in (1, 2, 4):
    case(f"column_classes_{_q}", layers=[Layer(Q=_q)])
for _k in range(1, 17):
    case(f"row_classes_{_k}", layers=[Layer(K=_k, run=0)])
for _v in (3, 4, 5):
    case(f"states_{_v}", layers=[Layer(states_log2=_v)])
    case(f"states_{_v}_raw", layers=[Layer(states_log2=_v, b=1)])
for _b in range(8):
    case(f"raw_{_b}", layers=[Layer(b=_b, Q=2, K=2, run=1, exceptions=0.01)], dtype="F32")
for _run in range(11):
    case(f"run_{_run}", layers=[Layer(K=3, run=_run)], segment=11, chunk=2300)
for _segment in range(10, 17):
    case(f"segment_{_segment}", segment=_segment, chunk=2222, layers=[Layer(K=2, run=2, Q=2)])
for _segments in (4, 5, 8, 11):  # the last one shorter, of many a decoder may have in flight
    case(f"segments_{_segments}", n=1024 * _segments - 333, chunk=1024 * _segments,
         layers=[Layer(K=2, run=1, Q=4, exceptions=0.01), Layer(b=1, step=2.0**-12)])
case("segment_17", segment=17, n=(1 << 17) + 1100, chunk=(1 << 17) + 1090,
     layers=[Layer(K=2, run=10, Q=4, exceptions=0.001, rice=9)])

# Layers that have nothing in common but the matrix.
_LAYERS = [Layer(step=2.0**-6, exceptions=0.02), Layer(states_log2=4, Q=4, K=5, run=0, b=1,
           step=2.0**-11), Layer(states_log2=5, Q=2, K=2, run=2, step=2.0**-13, exceptions=0.1),
           Layer(b=7, K=16, run=1, step=2.0**-25)]
for _count in (1, 2, 3, 4):
    case(f"layers_{_count}", dtype="F32", layers=_LAYERS[:_count])
    case(f"layers_{_count}_tiles", dtype="F16", layers=_LAYERS[4 - _count:], columns=96,
         tile=(2, 3), n=96 * 24, chunk=96 * 12)

# (log2 of the tile, columns, rows of a chunk, rows)
for _tile, _columns, _rows, _all in (
        ((0, 3), 40, 7, 19), ((3, 0), 37, 8, 24), ((2, 2), 36, 12, 40), ((1, 1), 34, 34, 68),
        ((6, 6), 64, 64, 128), ((6, 6), 192, 64, 64), ((0, 1), 10, 33, 70), ((1, 0), 1, 1100, 2000),
        ((0, 6), 64, 17, 30), ((6, 0), 21, 64, 128), ((5, 1), 66, 32, 64), ((1, 5), 96, 14, 30),
        ((4, 4), 80, 16, 48), ((0, 4), 48, 20, 45), ((4, 0), 65, 16, 32), ((0, 5), 32, 40, 41),
        ((3, 3), 8, 8, 512)):
    _name = f"tile_{1 << _tile[0]}x{1 << _tile[1]}_of_{_columns}"
    case(_name, tile=_tile, columns=_columns, n=_columns * _all, chunk=_columns * _rows,
         dtype="F32", layers=[Layer(exceptions=0.01, Q=2), Layer(b=1, step=2.0**-13)])
# A chunk of tiles of one row need not end with a row, nor the tensor.
case("tile_1x8_across_chunks", tile=(0, 3), columns=40, n=1208, chunk=504)
case("tile_1x1_last_row_cut", columns=300, n=1000, chunk=333)

for _columns in (1, 2, 3, 31, 63, 64, 65, 128, 999, 1 << 14):
    case(f"columns_{_columns}", columns=_columns, layers=[Layer(Q=4)])
case("columns_limit", columns=1 << 20, layers=[Layer(Q=4), Layer(Q=2, b=1)])
case("columns_limit_tiles", columns=1 << 20, tile=(0, 2), chunk=1104, n=2500)
case("columns_huge", columns=(1 << 32) - 1, layers=[Layer(K=3)])
for _chunk in (1, 2, 31, 32, 33, 63, 64, 65, 1023, 1024, 1025, 4096):
    case(f"chunk_of_{_chunk}", chunk=_chunk, n=min(2300, 5 * _chunk), columns=77,
         layers=[Layer(Q=4, K=2, run=0, b=_chunk % 2, exceptions=0.05)])

case("step_least", dtype="F32", layers=[Layer(step=2.0**-100), Layer(step=2.0**-100)],
     tile=(1, 1), columns=50, n=2500, chunk=1000)
case("step_greatest", dtype="F64", layers=[Layer(step=2.0**100, b=7)])
case("step_odd", dtype="F32", layers=[Layer(step=0.0123456789, exceptions=far, low=15)])


@valid
def tcq_infinities():
    """Coefficients so great that the transform leads to infinities, and to what is no number."""
    greatest = functools.partial(_placed, values=[MAX_EXCEPTION, MAX_EXCEPTION, -MAX_EXCEPTION])
    tensors = []
    for dtype in FLOATS:
        coder = TcqCoder(dtype, 64, tile=(6, 6), segment=12, layers=[
            Layer(step=2.0**100, exceptions=lambda m, rng: greatest(range(0, m, 3)), low=15)])
        tensors.append(tcq_tensor(dtype, coder, 4096, 4096))
    return Image.of(tensors).build()


def _placed(positions, values):
    return dict(zip(positions, np.resize(values, len(positions)).tolist()))


# ---------------------------------------------------------------- valid: exceptions

for _rice in (0, 1, 8, 15):
    def _gaps(m, rng, rice=_rice):
        """Gaps around the ends of each form of their code, the last element among them."""
        gaps = [0, 1, (1 << rice) - 1, 1 << rice, (23 << rice) - 1, 23 << rice, (24 << rice) - 1,
                24 << rice, (24 << rice) + 1, 0, 200]
        where = np.cumsum([g + 1 for g in gaps if g < 4000]) - 1
        return _placed(sorted({*where[where < m].tolist(), m - 1}), [1, -2, 300])
    case(f"exceptions_rice_{_rice}", n=8300, chunk=8300, segment=15,
         layers=[Layer(exceptions=_gaps, rice=_rice)])

for _low in range(16):
    # 0 of either sign, each number of zeros, the ends of each, the greatest ones.
    _numbers = [((1 << i) - 1 + u << _low) + v for i in range(9)
                for u in {0, (1 << i) - 1} for v in {0, (1 << _low) - 1}]
    case(f"exceptions_low_{_low}", dtype="F32", layers=[Layer(
        low=_low, step=0.3, exceptions=lambda m, rng, numbers=tuple(_numbers): _placed(
            range(0, m, 7), [*numbers, *(-v for v in numbers)]))])


def _ends(m, rng):
    return {0: 1000, 63: -5, m - 2: 7, m - 1: -1000}


case("exceptions_first_and_last", n=3 * 1024 + 65, chunk=3 * 1024 + 65,
     layers=[Layer(exceptions=_ends)])
case("exceptions_only_last", n=3 * 1024 + 61, chunk=1024 + 61,
     layers=[Layer(exceptions=lambda m, rng: {m - 1: -3})])
case("exceptions_everywhere", dtype="F32", layers=[Layer(exceptions=1.0, rice=0, low=4)])
case("exceptions_in_tiles", tile=(2, 2), columns=64, n=64 * 32, chunk=64 * 16,
     layers=[Layer(exceptions=0.03), Layer(exceptions=0.03, step=2.0**-10)])


@valid
def tcq_exceptions_far():
    """The longest gap there is."""
    coder = TcqCoder("BF16", 100, segment=17, layers=[
        Layer(freq=[[[lone(16, 15), lone(16, 15)]]], exceptions=lambda m, rng: {m - 1: 9})])
    return Image.of([tcq_tensor("w", coder, 1 << 17, 1 << 17)]).build()


@valid
def tcq_exceptions_with_longer_codes():
    """A gap may be written in full, and 0 as a negative number."""
    image, made = _image_and_tensor(layers=[Layer(exceptions=lambda m, rng: {5: 0, 9: 0})])
    payload = made.coders[0].payloads[0]
    payload.segments[0].exceptions = struct.pack("<IBB", 2, 4, 3) + pack_code(
        far_gap_code(5) + "1" + magnitude_code(0, 3) + far_gap_code(3) + "0" + magnitude_code(0, 3))
    image.extents[0].payload = payload.pack()
    return image.build()


def _image_and_tensor(dtype="BF16", n=2100, **options):
    """One chunk, and the tensor that holds its parts."""
    made = tcq_tensor("w", TcqCoder(dtype, options.pop("columns", 100), **options), n, n)
    return Image.of([made]), made


# ---------------------------------------------------------------- valid: frequencies

for _name, _pair in {
    "flat": [flat(), flat()],
    "lone": [lone(16, 0), lone(31, 30)],
    "two": [[128] + [0] * 30 + [128], [0] * 7 + [1, 255] + [0] * 23],
    "peak": [peak(), peak(1.5, zeros=False)],
    # Each great one falls below 8 and is filled up by the next.
    "chain": [[1] + [9] * 7 + [8] * 24, [0] + [9] * 8 + [8] * 23],
    "rising": [sorted(peak(4)), sorted(peak(9))],
    "one_and_15": [[1, 15] * 16, [15, 1] * 16],
    "parities": [[16, 0] * 16, [0, 16] * 16],
}.items():
    assert all(sum(f) == 256 for f in _pair), _name
    case(f"freq_{_name}", layers=[Layer(freq=[[_pair]])])
    case(f"freq_{_name}_raw", layers=[Layer(freq=[[_pair]], b=2)])
for _seed in range(8):
    case(f"freq_drawn_{_seed}", layers=[Layer(Q=4, K=8, run=0, seed=_seed,
                                              states_log2=3 + _seed % 3)])


# ---------------------------------------------------------------- valid: the file


@valid
def tcq_mixed():
    """Chunks that are stored as they are between others, and tensors of other codecs."""
    bf16 = floats("BF16", 1300, seed=1)
    return Image.of([
        tcq_tensor("a", TcqCoder("F16", 60, layers=[Layer(Q=2)]), 3000, 700, raw_chunks=[1, 3]),
        tensor("w", "BF16", bf16, 520, [SplitCoder("BF16", bf16, segment=10), RawCoder()]),
        Made("nothing", "BF16", [0], b""),
        tcq_tensor("c", TcqCoder("F8_E4M3", 64, tile=(3, 3)), 64 * 24, 64 * 16, raw_chunks=[0]),
        tcq_tensor("d", TcqCoder("F32", 9, layers=_LAYERS), 2000, 1999, shape=[2, 500, 2]),
    ], metadata={"format": "pt"}, gap=b"gap").build()


@valid
def tcq_raw_chunks_between_tiles():
    """Chunks that no tile fits are no matter when they are stored as they are."""
    return tcq_file(columns=64, tile=(6, 6), n=64 * 65, chunk=64 * 64, raw_chunks=[1])


@valid
def tcq_shared_tables():
    coders = [TcqCoder("BF16", 70, layers=[Layer(Q=4, K=2)], seed=seed) for seed in (1, 2)]
    image = Image.of([tcq_tensor(f"t{i}", c, 1500, 1000) for i, c in enumerate(coders)])
    image.records[1].tables_offset = image.records[0].tables_offset
    image.params = image.params[:image.records[0].tables_length]
    return image.build()


@valid
def tcq_unused_bits():
    """What lies behind the last class of a map has no meaning."""
    image, made = _image_and_tensor(n=1024 + 64, columns=3, layers=[Layer(Q=2, K=3, run=1)])
    payload = made.coders[0].payloads[0]
    payload.segments[1].class_map = bytes([payload.segments[1].class_map[0] | 0xFC])
    image.extents[0].payload = payload.pack()
    image.params = image.params[:-1] + bytes([image.params[-1] | 0xF8])
    return image.build()


# ---------------------------------------------------------------- damaged: tables


def tables_edit(name, edit, errors="CORRUPT", **options):
    def make():
        settings = {"columns": 64, "n": 64 * 32, "layers": [Layer(Q=2, K=3), Layer(b=1)],
                    **options}
        image, _ = _image_and_tensor(**settings)
        params = bytearray(image.params)
        edit(params)
        image.params = bytes(params)
        image.records[0].tables_length = len(params)
        return image.build()

    damage(f"tables_tcq_{name}", errors, make)


# In the first layer, which has offsets, 2 classes of columns and 3 of rows; then the second one.
LAYER_AT, STEP_AT, OFFSETS_AT, FREQ_AT = 8, 16, 20, 84
SECOND_AT = FREQ_AT + 6 * 64 + 8
SECOND_FREQ_AT = SECOND_AT + 12

for _value in (0, 1, 3, 5, 255):
    tables_edit(f"layers_{_value}", change(0, "B", _value))
for _value in (7, 8, 255):
    tables_edit(f"tile_rows_{_value}", change(1, "B", _value))
    tables_edit(f"tile_columns_{_value}", change(2, "B", _value))
for _value in (0, 9, 18, 255):
    tables_edit(f"segment_{_value}", change(3, "B", _value))
for _value in (0, 63, 72, 1 << 31, (1 << 32) - 1):  # 72 need one byte more
    tables_edit(f"columns_{_value}", change(4, "I", _value))
for _i, _part, _values in ((0, "states", (0, 2, 6, 255)), (1, "column_classes", (0, 1, 3, 4, 8)),
                           (2, "row_classes", (0, 2, 4, 17, 255)), (3, "run", (11, 255)),
                           (4, "raw", (1, 8, 255))):
    for _value in _values:
        tables_edit(f"{_part}_{_value}", change(LAYER_AT + _i, "B", _value))
for _i, _value in ((0, 6), (1, 3), (2, 0), (3, 11), (4, 8)):
    tables_edit(f"second_{_i}_is_{_value}", change(SECOND_AT + _i, "B", _value))
for _name, _value in {
    "zero": 0.0, "minus_zero": -0.0, "negative": -0.5, "infinite": math.inf,
    "minus_infinite": -math.inf, "nan": math.nan, "tiny": 2.0**-149,
    "below": float(np.nextafter(np.float32(2.0**-100), np.float32(0))),
    "above": float(np.nextafter(np.float32(2.0**100), np.float32(np.inf))),
}.items():
    tables_edit(f"step_{_name}", change(STEP_AT, "f", _value))
tables_edit("step_minus_nan", change(STEP_AT, "I", 0xFFC00000))
tables_edit("step_of_second", change(SECOND_AT + 8, "f", math.nan))


def add_to(at, number):
    """An edit: another frequency in one of the tables, at its first symbol that allows it."""

    def edit(p):
        at_symbol = next(i for i in range(at, at + 32) if 0 <= p[i] + number <= 255)
        p[at_symbol] += number

    return edit


tables_edit("sum_257", add_to(FREQ_AT, 1))
tables_edit("sum_255", add_to(FREQ_AT + 32, -1))
tables_edit("sum_of_last", add_to(FREQ_AT + 6 * 64 - 32, 1))
tables_edit("sum_of_second", add_to(SECOND_FREQ_AT + 32, 1))
tables_edit("sum_0", lambda p: p.__setitem__(slice(FREQ_AT, FREQ_AT + 32), bytes(32)))
tables_edit("sum_512", lambda p: p.__setitem__(slice(FREQ_AT, FREQ_AT + 32), b"\x10" * 32))
tables_edit("all_255", lambda p: p.__setitem__(slice(FREQ_AT, FREQ_AT + 32), b"\xff" * 32))
# The right sum over both parities.
tables_edit("sums_of_parities", lambda p: (add_to(FREQ_AT, 1)(p), add_to(FREQ_AT + 32, -1)(p)))
tables_edit("cut", lambda p: p.__delitem__(slice(-1, None)))
tables_edit("longer", lambda p: p.extend(b"\0"))
tables_edit("7_bytes", lambda p: p.__delitem__(slice(7, None)))
tables_edit("8_bytes", lambda p: p.__delitem__(slice(8, None)))
tables_edit("none", lambda p: p.clear())
tables_edit("one_layer", lambda p: p.__delitem__(slice(SECOND_AT, None)))
tables_edit("cut_in_head", lambda p: p.__delitem__(slice(SECOND_AT + 5, None)))
tables_edit("cut_in_freq", lambda p: p.__delitem__(slice(SECOND_FREQ_AT + 7, None)))
tables_edit("one_layer_more", change(0, "B", 2), layers=[Layer()])

# Coded as it should be, but beyond what is allowed.
for _name, _options in {
    "17_row_classes": {"layers": [Layer(K=17, run=0)]},
    "run_11": {"layers": [Layer(run=11)]},
    "segment_9": {"segment": 9},
    "segment_18": {"segment": 18},
    "8_raw_bits": {"layers": [Layer(b=8)]},
    "more_columns": {"columns": (1 << 20) + 1, "layers": [Layer(Q=2)]},
    "more_columns_in_tiles": {"columns": (1 << 20) + 4, "tile": (0, 2), "chunk": 1104},
    "more_columns_in_second": {"columns": (1 << 20) + 1, "layers": [Layer(), Layer(Q=4)]},
    "tile_of_128": {"columns": 128, "tile": (0, 7), "n": 1280, "chunk": 1280},
    "tile_of_128_rows": {"columns": 10, "tile": (7, 0), "n": 1280, "chunk": 1280},
    "tile_that_does_not_divide": {"columns": 100, "tile": (0, 3), "n": 1200, "chunk": 1200},
}.items():
    damage(f"tables_tcq_really_{_name}", "CORRUPT",
           lambda options=_options: tcq_file(refused=True, **options))


# ---------------------------------------------------------------- damaged: tiles

# The tables allow them, but a chunk does not.
for _name, _options in {
    "rows": {"tile": (2, 0), "columns": 50, "n": 50 * 22, "chunk": 50 * 22},
    "rows_of_last_chunk": {"tile": (2, 0), "columns": 50, "n": 50 * 22, "chunk": 50 * 8},
    "rows_of_first_chunk": {"tile": (2, 0), "columns": 50, "n": 50 * 32, "chunk": 50 * 10},
    "part_of_a_row": {"tile": (1, 0), "columns": 50, "n": 50 * 20, "chunk": 25 * 20 + 25},
    "two_half_rows": {"tile": (1, 0), "columns": 50, "n": 50 * 20 + 50, "chunk": 25 * 21 * 2},
    "last_row_cut": {"tile": (1, 0), "columns": 50, "n": 50 * 20 + 10, "chunk": 50 * 20},
    "columns": {"tile": (0, 2), "columns": 100, "n": 1202, "chunk": 1202},
    "columns_of_last_chunk": {"tile": (0, 2), "columns": 100, "n": 1202, "chunk": 400},
    # Of whole tiles, but the chunk before it, which is stored as it is, ends within one.
    "start_within_a_row": {"tile": (1, 0), "columns": 50, "n": 2225, "chunk": 1125,
                           "raw_chunks": [0]},
    "start_within_a_tile": {"tile": (0, 2), "columns": 100, "n": 2202, "chunk": 1102,
                            "raw_chunks": [0]},
    "columns_of_first_chunk": {"tile": (0, 2), "columns": 100, "n": 1200, "chunk": 602},
}.items():
    damage(f"tcq_tile_does_not_fit_{_name}", "CORRUPT",
           lambda options=_options: tcq_file(refused=True, **options))


# ---------------------------------------------------------------- damaged: codecs and layers


def image_edit(name, errors, edit, **options):
    def make():
        image, _ = _image_and_tensor(**{"layers": [Layer(), Layer(step=2.0**-12)], **options})
        edit(image)
        return image.build()

    damage(f"tcq_{name}", errors, make)


def of_dtype(dtype):
    def edit(image):
        image.header = image.header.replace(b'"F32"', b'"%s"' % dtype)
    return edit


def extent(number, **values):
    def edit(image):
        for name, value in values.items():
            setattr(image.extents[number], name, value)
    return edit


def record(**values):
    def edit(image):
        for name, value in values.items():
            setattr(image.records[0], name, value)
    return edit


image_edit("of_integers", "CORRUPT", of_dtype(b"I32"), dtype="F32")
image_edit("of_f8_e8m0", "CORRUPT", lambda image: setattr(
    image, "header", image.header.replace(b'"F8_E5M2"', b'"F8_E8M0"')), dtype="F8_E5M2")


@damaged("CORRUPT")
def tcq_of_c64():
    image, _ = _image_and_tensor(dtype="F64", n=1000)
    image.header = image.header.replace(b'"F64"', b'"C64"')
    return image.build()


image_edit("digest", "DIGEST", extent(1, digest=1))
image_edit("digests_swapped", "DIGEST", lambda image: setattr(
    image.extents[1], "digest", image.extents[0].digest))
image_edit("digest_of_one_layer", "DIGEST", extent(0, digest=1), layers=[Layer()])
image_edit("layers_swapped", "CORRUPT DIGEST", lambda image: (
    extent(0, payload=image.extents[1].payload)(image),
    extent(1, payload=image.extents[0].payload)(image)))
image_edit("then_raw", "UNSUPPORTED", extent(1, codec=hctspec.RAW))
image_edit("then_split", "UNSUPPORTED", extent(1, codec=SPLIT))
image_edit("then_unknown", "UNSUPPORTED", extent(1, codec=99))
image_edit("behind_raw", "UNSUPPORTED", extent(0, codec=hctspec.RAW))
# In order by themselves, but not together.
image_edit("tables_of_two_layers_for_one", "CORRUPT", lambda image: (
    record(layers=1)(image), image.extents.pop()))
image_edit("tables_of_one_layer_for_two", "CORRUPT", lambda image: (
    image.extents.append(image.extents[0]), record(layers=2)(image)), layers=[Layer()])
image_edit("flag_of_second_extent", "UNSUPPORTED", extent(1, flags=1))
image_edit("tables_of_no_codec", "CORRUPT", record(codec=0))
image_edit("tables_of_split", "CORRUPT", record(codec=SPLIT))
image_edit("tables_of_unknown_codec", "CORRUPT", record(codec=77))
image_edit("tables_without_chunk", "CORRUPT", lambda image: (
    extent(0, codec=SPLIT)(image), extent(1, codec=SPLIT)(image), record(layers=1)(image),
    image.extents.pop()))


@damaged("UNSUPPORTED")
def tcq_raw_in_two_layers():
    image, _ = _image_and_tensor(layers=[Layer(), Layer()])
    for e in image.extents:
        e.codec, e.payload = hctspec.RAW, bytes(2 * 2100)
    return image.build()


@damaged("UNSUPPORTED")
def tcq_five_layers():
    image, _ = _image_and_tensor(layers=[Layer(step=2.0**-i) for i in range(5, 9)])
    image.extents.append(image.extents[-1])
    image.records[0].layers = 5
    return image.build()


@damaged("CORRUPT")
def tcq_split_chunk():
    """The tables are those of tcq, so a chunk of split has none."""
    image, _ = _image_and_tensor()
    data = floats("BF16", 2100)
    image.extents[0].codec = SPLIT
    image.extents[0].payload = SplitCoder("BF16", data).encode(data, 0)
    return image.build()


@damaged("CORRUPT")
def tcq_in_split_tensor():
    data = floats("BF16", 2100)
    image = Image.of([tensor("w", "BF16", data, 2100, SplitCoder("BF16", data))])
    other, _ = _image_and_tensor()
    image.extents[0].codec = TCQ
    image.extents[0].payload = other.extents[0].payload
    return image.build()


@damaged("CHECKSUM")
def tcq_checksum_of_second_layer():
    image, _ = _image_and_tensor(layers=[Layer(), Layer()])
    return image.build(extents=change(32 + 16, "Q", 1))


# ---------------------------------------------------------------- damaged: payloads


def payload_edit(name, edit, errors="CORRUPT", layer=0, n=2100, **options):
    """edit changes a TcqPayload (in its parts) or returns bytes instead."""

    def make():
        settings = {"layers": [Layer(Q=2, K=3, run=1, exceptions=0.01)], **options}
        image, made = _image_and_tensor(n=n, **settings)
        payload = made.coders[0].payloads[layer]
        changed = edit(payload)
        image.extents[layer].payload = changed if isinstance(changed, bytes) else payload.pack()
        return image.build()

    damage(f"tcq_{name}", errors, make)


RAW = {"layers": [Layer(K=3, run=1, b=3)]}

payload_edit("one_byte", lambda p: b"\0")
payload_edit("11_bytes", lambda p: p.pack()[:11])
payload_edit("only_lengths", lambda p: p.pack()[:36])
payload_edit("cut", lambda p: p.pack()[:-1])
payload_edit("cut_raw", lambda p: p.pack()[:-1], **RAW)
payload_edit("longer", lambda p: p.pack() + b"\0")
payload_edit("longer_raw", lambda p: p.pack() + b"\0", **RAW)
payload_edit("half", lambda p: p.pack()[:len(p.pack()) // 2])
payload_edit("segment_less", lambda p: p.segments.pop() and None)
payload_edit("segment_more", lambda p: p.segments.append(p.segments[-1]))
payload_edit("raw_missing", in_segment(1, raw=lambda r: b""), **RAW)
payload_edit("raw_for_one_group_more", in_segment(1, raw=lambda r: r + bytes(24)), **RAW)
for _i, _part in enumerate(("a", "b", "exceptions")):
    for _name, _value in (("huge", 0xFFFFFFFF), ("2_gib", 1 << 31), ("zero", 0)):
        payload_edit(f"{_part}_length_{_name}", lambda p, i=_i, value=_value: put(
            12 + 4 * i, struct.pack("<I", value))(p.pack()))


@functools.partial(payload_edit, "lengths_wrap")
def _lengths_wrap(payload):
    """The three lengths of a segment sum to the right number modulo 2^32."""
    data = payload.pack()
    a, b, e = struct.unpack_from("<3I", data)
    return put(0, struct.pack("<3I", a - 1, (b + (1 << 31)) % (1 << 32), (e + 1 + (1 << 31))))(data)


@functools.partial(payload_edit, "byte_moved_from_a_to_b")
def _byte_moved(payload):
    s = payload.segments[0]
    s.a, s.b = s.a[:-1], s.a[-1:] + s.b


payload_edit("a_one_byte_more", in_segment(0, a=lambda a: a + b"\0"))
payload_edit("b_one_byte_more", in_segment(2, b=lambda b: b + b"\0"))
payload_edit("a_one_byte_less", in_segment(1, a=lambda a: a[:-1]))
payload_edit("a_empty", in_segment(1, a=lambda a: b""))
payload_edit("b_empty", in_segment(1, b=lambda b: b""))
# A wrong byte leads to a wrong final state, or else to other values.
payload_edit("a_first_byte", in_segment(0, a=lambda a: bytes([a[0] ^ 0x55]) + a[1:]),
             errors="CORRUPT DIGEST")
payload_edit("raw_bit", in_segment(0, raw=lambda r: put(16, bytes([r[16] ^ 1]))(r)),
             errors="DIGEST", **RAW)
# The lowest raw bit leads the trellis elsewhere.
payload_edit("raw_lowest_bit", in_segment(0, raw=lambda r: bytes([r[0] ^ 1]) + r[1:]),
             errors="CORRUPT DIGEST", **RAW)
for _lane in (0, 31, 32, 63):
    payload_edit(f"state_{_lane}_is_255", in_segment(1, states=state(_lane, 255)))
payload_edit("state_0", in_segment(0, states=state(5, 0)))
payload_edit("states_all_0", in_segment(2, states=lambda s: [0] * 64))
payload_edit("states_all_65535", in_segment(2, states=lambda s: [65535] * 64))
payload_edit("final_state", in_segment(1, states=lambda s: state(3, s[3] ^ 0x100)(s)),
             errors="CORRUPT DIGEST")
payload_edit("second_layer_state", in_segment(1, states=state(7, 255)), layer=1,
             layers=[Layer(), Layer()])
payload_edit("second_layer_longer", lambda p: p.pack() + b"\0", layer=1,
             layers=[Layer(), Layer()])
payload_edit("class_3_of_3", in_segment(0, class_map=lambda m: b"\xff" * len(m)))
payload_edit("class_3_of_3_in_last_run", in_segment(
    0, class_map=lambda m: m[:-1] + bytes([m[-1] | 0xC0])))
payload_edit("class_15_of_9", in_segment(2, class_map=lambda m: b"\x0f"),
             layers=[Layer(K=9, run=3)])


@damaged("CORRUPT")
def tcq_state_below_256_that_would_do():
    """Decoding would come out right in the end, but a start state below 256 is not allowed."""
    image, made = _image_and_tensor(n=1000, layers=[Layer(freq=[[[lone(16, 15)] * 2]])])
    payload = made.coders[0].payloads[0]
    segment = payload.segments[0]
    freq = hctspec.TcqTables(image.params, 1).layers[0]
    slot = segment.states[0] % 256
    after = (int(freq.freq[0, 0, 0, slot]) * (segment.states[0] >> 8)
             + int(freq.rank[0, 0, 0, slot]))
    assert after >= 256  # lane 0 takes no byte, so it can be made to take one
    f, s = int(freq.freq[0, 0, 0, slot]), freq.symbol[0, 0, 0, slot]
    assert after >> 8 < f  # else the state would not be below 256
    segment.states[0] = next(i for i in range(256) if freq.symbol[0, 0, 0, i] == s
                             and freq.rank[0, 0, 0, i] == after >> 8)
    segment.a = bytes([after & 255]) + segment.a
    image.extents[0].payload = payload.pack()
    return image.build()


@damaged("CORRUPT")
def tcq_a_ends_in_b():
    """The last byte of A is missing, and the first one of B is the same."""
    for seed in range(10_000):
        image, made = _image_and_tensor(n=64, seed=seed)
        segment = made.coders[0].payloads[0].segments[0]
        if segment.a and segment.b and segment.a[-1] == segment.b[0]:
            break
    segment.a = segment.a[:-1]
    image.extents[0].payload = made.coders[0].payloads[0].pack()
    return image.build()


@damaged("CORRUPT")
def tcq_b_ends_in_exceptions():
    """The last byte of B is missing, and the first one of the exceptions is the same."""
    coder = TcqCoder("BF16", 100)
    payload = coder.draw(1000, 0)[0]
    segment = payload.segments[0]
    assert segment.b[-1] > 0
    segment.exceptions = encode_tcq_exceptions(dict.fromkeys(range(segment.b[-1]), 1), 0, 0)
    decoded, = decoded_layers(coder, [payload], 1000, 0)
    segment.b = segment.b[:-1]
    return Image.of([Made("w", "BF16", [1000], decoded, 2000, Drawn(coder, [payload], [decoded]),
                          error=0.01)]).build()


# ---------------------------------------------------------------- damaged: exceptions


def exceptions_as(text, count=1, rice=0, low=0, segment=0):
    """An edit: the exceptions of a segment (of 1024 elements) are these codes, as bits."""
    data = struct.pack("<IBB", count, rice, low) + pack_code(text)
    return in_segment(segment, exceptions=lambda old: data)


FIRST = "1" + "0" + "1"  # gap 0, positive, 0, when the parameters are 0

for _n in (1, 4, 5, 6):
    payload_edit(f"exceptions_{_n}_bytes", in_segment(0, exceptions=lambda e, n=_n: e[:n]))
payload_edit("exceptions_without_codes", exceptions_as(""))
payload_edit("exceptions_0", exceptions_as("", count=0))
payload_edit("exceptions_0_and_more", exceptions_as(FIRST, count=0))
payload_edit("exceptions_huge", exceptions_as(FIRST * 200, count=0xFFFFFFFF))
payload_edit("exceptions_more_than_elements", exceptions_as(FIRST * 1025, count=1025))
payload_edit("exceptions_one_less_than_said", exceptions_as(FIRST * 8, count=9))
payload_edit("exceptions_one_more_than_said", exceptions_as(FIRST * 8, count=7))
payload_edit("exceptions_rice_16", exceptions_as("1" + "0" * 16 + "0" + "1", rice=16))
payload_edit("exceptions_rice_255", exceptions_as("1" + "0" * 255 + "0" + "1", rice=255))
payload_edit("exceptions_low_16", exceptions_as("1" + "0" + "1" + "0" * 16, low=16))
payload_edit("exceptions_low_255", exceptions_as("1" + "0" + "1" + "0" * 255, low=255))
payload_edit("exceptions_9_zeros", exceptions_as("1" + "0" + "0" * 9 + "1" + "0" * 9))
payload_edit("exceptions_only_zeros", exceptions_as("1" + "0" + "0" * 30))
payload_edit("exceptions_cut_in_zeros", exceptions_as("0" * 16))
payload_edit("exceptions_cut_in_gap", exceptions_as("1" + "0" * 7, rice=15))
payload_edit("exceptions_cut_in_far_gap", exceptions_as("0" * 40))
payload_edit("exceptions_cut_before_sign", exceptions_as("1" + "0" * 7, rice=7))
payload_edit("exceptions_cut_in_magnitude", exceptions_as("1" + "0" + "0" * 6))
payload_edit("exceptions_cut_in_u", exceptions_as("1" + "0" + "0" * 4 + "1" + "1"))
payload_edit("exceptions_cut_in_v", exceptions_as("1" + "0" + "1" + "11111", low=12))
payload_edit("exceptions_bit_behind", exceptions_as(FIRST + "00001"))
payload_edit("exceptions_byte_behind", exceptions_as(FIRST + "0" * 13))
payload_edit("exceptions_beyond", exceptions_as(far_gap_code(1024) + "01"))
payload_edit("exceptions_far_beyond", exceptions_as(far_gap_code((1 << 17) - 1) + "01"))
payload_edit("exceptions_sum_beyond",
             exceptions_as((gap_code(23 * 32, 5) + "01") * 1000, count=1000, rice=5))
payload_edit("exceptions_beyond_by_rice", exceptions_as("0" * 23 + "1" * 16 + "01", rice=15))
# The last segment has 52 elements and 64 places: an exception may not lie behind element 51.
payload_edit("exceptions_in_padding", exceptions_as(far_gap_code(52) + "01", segment=2))
payload_edit("exceptions_moved", exceptions_as(exception_code(5, 10000, 0, 12), low=12),
             errors="DIGEST")
