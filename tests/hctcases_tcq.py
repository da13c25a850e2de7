"""Odd but valid files of the codec tcq: registered under names that begin with tcq_."""

import functools
import math
import struct

import numpy as np
from hctcases_made import VALID, floats, tensor, valid
from hctmake import Image, Made, RawCoder, SplitCoder, far_gap_code, pack_code
from hctmake_tcq import Layer, TcqCoder, flat, lone, magnitude_code, peak, tcq_tensor
from hctspec import FLOATS

MAX_EXCEPTION = (1 << 24) - (1 << 15) - 1  # the greatest that can be written


def tcq_file(dtype="BF16", n=2500, chunk=1100, columns=100, raw_chunks=(), refused=False,
             **options):
    coder = TcqCoder(dtype, columns, **options)
    return Image.of([tcq_tensor("w", coder, n, chunk, raw_chunks=raw_chunks,
                                refused=refused)]).build()


def image_and_tensor(dtype="BF16", n=2100, **options):
    """One chunk, and the tensor that holds its parts."""
    made = tcq_tensor("w", TcqCoder(dtype, options.pop("columns", 100), **options), n, n)
    return Image.of([made]), made


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
    image, made = image_and_tensor(layers=[Layer(exceptions=lambda m, rng: {5: 0, 9: 0})])
    payload = made.coders[0].payloads[0]
    payload.segments[0].exceptions = struct.pack("<IBB", 2, 4, 3) + pack_code(
        far_gap_code(5) + "1" + magnitude_code(0, 3) + far_gap_code(3) + "0" + magnitude_code(0, 3))
    image.extents[0].payload = payload.pack()
    return image.build()


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
    image, made = image_and_tensor(n=1024 + 64, columns=3, layers=[Layer(Q=2, K=3, run=1)])
    payload = made.coders[0].payloads[0]
    payload.segments[1].class_map = bytes([payload.segments[1].class_map[0] | 0xFC])
    image.extents[0].payload = payload.pack()
    image.params = image.params[:-1] + bytes([image.params[-1] | 0xF8])
    return image.build()
