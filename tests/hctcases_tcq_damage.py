"""Damaged files of the codec tcq: registered under names that begin with tcq_ (tables_tcq_ for
damaged tables)."""

import functools
import math
import struct

import hctspec
import numpy as np
from hctcases_made import damage, damaged, floats, in_segment, put, state, tensor
from hctcases_tcq import image_and_tensor, tcq_file
from hctmake import Image, Made, SplitCoder, change, far_gap_code, gap_code, pack_code
from hctmake_tcq import (
    Drawn,
    Layer,
    TcqCoder,
    decoded_layers,
    encode_tcq_exceptions,
    exception_code,
    lone,
)
from hctspec import SPLIT, TCQ

# ---------------------------------------------------------------- tables


def tables_edit(name, edit, errors="CORRUPT", **options):
    def make():
        settings = {"columns": 64, "n": 64 * 32, "layers": [Layer(Q=2, K=3), Layer(b=1)],
                    **options}
        image, _ = image_and_tensor(**settings)
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


# ---------------------------------------------------------------- tiles

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


# ---------------------------------------------------------------- codecs and layers


def image_edit(name, errors, edit, **options):
    def make():
        image, _ = image_and_tensor(**{"layers": [Layer(), Layer(step=2.0**-12)], **options})
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
    image, _ = image_and_tensor(dtype="F64", n=1000)
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
    image, _ = image_and_tensor(layers=[Layer(), Layer()])
    for e in image.extents:
        e.codec, e.payload = hctspec.RAW, bytes(2 * 2100)
    return image.build()


@damaged("UNSUPPORTED")
def tcq_five_layers():
    image, _ = image_and_tensor(layers=[Layer(step=2.0**-i) for i in range(5, 9)])
    image.extents.append(image.extents[-1])
    image.records[0].layers = 5
    return image.build()


@damaged("CORRUPT")
def tcq_split_chunk():
    """The tables are those of tcq, so a chunk of split has none."""
    image, _ = image_and_tensor()
    data = floats("BF16", 2100)
    image.extents[0].codec = SPLIT
    image.extents[0].payload = SplitCoder("BF16", data).encode(data, 0)
    return image.build()


@damaged("CORRUPT")
def tcq_in_split_tensor():
    data = floats("BF16", 2100)
    image = Image.of([tensor("w", "BF16", data, 2100, SplitCoder("BF16", data))])
    other, _ = image_and_tensor()
    image.extents[0].codec = TCQ
    image.extents[0].payload = other.extents[0].payload
    return image.build()


@damaged("CHECKSUM")
def tcq_checksum_of_second_layer():
    image, _ = image_and_tensor(layers=[Layer(), Layer()])
    return image.build(extents=change(32 + 16, "Q", 1))


# ---------------------------------------------------------------- payloads


def payload_edit(name, edit, errors="CORRUPT", layer=0, n=2100, **options):
    """edit changes a TcqPayload (in its parts) or returns bytes instead."""

    def make():
        settings = {"layers": [Layer(Q=2, K=3, run=1, exceptions=0.01)], **options}
        image, made = image_and_tensor(n=n, **settings)
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
    image, made = image_and_tensor(n=1000, layers=[Layer(freq=[[[lone(16, 15)] * 2]])])
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
        image, made = image_and_tensor(n=64, seed=seed)
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


# ---------------------------------------------------------------- exceptions


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
