"""The cases of the codec split."""

import functools
import struct

import hctmake
import numpy as np
from hctcases_made import (
    BOMB,
    MIB,
    SKIPPABLE,
    VALID,
    damage,
    damaged,
    floats,
    in_segment,
    put,
    state,
    tensor,
    valid,
    with_exponents,
)
from hctmake import Image, SplitCoder, change, zstd_frame
from hctspec import LAYOUTS


def split_file(dtype, n=3000, chunk=1400, data=None, **options):
    data = floats(dtype, n) if data is None else data
    return Image.of([tensor("w", dtype, data, chunk, SplitCoder(dtype, data, **options))]).build()


# ---------------------------------------------------------------- valid

for _dtype in LAYOUTS:
    def _of_dtype(dtype=_dtype):
        return split_file(dtype, n=1248, chunk=1100, classes=3, run=1, segment=10,
                          shifts=[0, 1, -1, 2, 0], exponents=8)
    VALID[f"split_{_dtype.lower()}"] = _of_dtype

for _classes in (1, 2, 4, 5, 8, 9, 16):
    def _of_classes(classes=_classes):
        data = floats("BF16", 3000, scales=np.repeat(np.arange(20) // 3, 64))
        return split_file("BF16", data=data, chunk=1700, classes=classes, run=0, segment=10)
    VALID[f"classes_{_classes}"] = _of_classes

for _segment in range(10, 18):
    def _of_segment(segment=_segment):
        return split_file("BF16", n=(1 << segment) + 2600, chunk=(1 << segment) + 1300, classes=2,
                          run=1, segment=segment)
    VALID[f"segment_{_segment}"] = _of_segment


@valid
def run_10():
    """Two runs of 65,536 elements in one segment, and one that is cut."""
    data = floats("BF16", 70_000, scales=np.repeat([0, 8], 65536))
    return split_file("BF16", data=data, chunk=70_000, classes=2, run=10, segment=17)


@valid
def run_longer_than_segment():
    return split_file("BF16", n=5000, chunk=5000, classes=5, run=10, segment=10)


for _period in (1, 7, 1009, 4096, 1 << 20):
    def _of_period(period=_period):
        rng = np.random.default_rng(period)
        shifts = rng.integers(-6, 7, period)
        data = floats("F16" if period == 7 else "BF16", 5000, scales=shifts[:5000])
        return split_file("F16" if period == 7 else "BF16", data=data, chunk=1777, shifts=shifts,
                          segment=10)
    VALID[f"period_{_period}"] = _of_period


@valid
def shifts_wrap():
    """Shifts of -128 and 127 lead around the ends of the exponent's range."""
    return split_file("F64", n=3000, chunk=1000, shifts=[-128, 127, 0, 5, -1], exponents=32)


@valid
def shifts_c64():
    """The period counts the two halves of a complex number one by one."""
    data = floats("C64", 6000, scales=[0, 9, 1, 9, 0, 10])
    return split_file("C64", data=data, chunk=1000, shifts=[0, 9, 1, 9, 0, 10], segment=10)


for _rice in (0, 1, 8, 15):
    def _of_rice(rice=_rice):
        """Gaps around the ends of each form of their code, the last element among them."""
        near, far = 23 << rice, 24 << rice
        gaps = [0, 1, (1 << rice) - 1, 1 << rice, near - 1, near, far - 1, far, far + 1, 0, 200]
        positions = np.cumsum([g + 1 for g in gaps if g < 700]) - 1
        data = floats("BF16", 4700, spread=0.5)
        exponents = np.resize([200, 201, 202, 0, 255], len(positions))
        data = with_exponents("BF16", data, positions, exponents)
        data = with_exponents("BF16", data, [4699], [255])
        return split_file("BF16", data=data, chunk=4700, exponents=3, rare=2, segment=17, rice=rice)
    VALID[f"exceptions_rice_{_rice}"] = _of_rice


@valid
def exceptions_far():
    """The longest gaps that there are: nothing but the last element, and the first."""
    data = floats("BF16", 1 << 17, spread=0.5)
    data = with_exponents("BF16", data, [(1 << 17) - 1], [7])
    first = with_exponents("BF16", data[:4000], [0], [9])
    return split_file("BF16", data=data + first, chunk=1 << 17, exponents=12, rare=0, segment=17)


@valid
def exceptions_with_longer_codes():
    """A gap may be written in full, and an exponent that R has as a value."""
    data = with_exponents("BF16", floats("BF16", 1000, spread=0.5), [3, 10], [0, 1])
    coder = SplitCoder("BF16", data, exponents=3, rare=15, segment=10)
    image = Image.of([tensor("w", "BF16", data, 1000, coder)])
    payload = coder.payload(data, 0)
    base, _, _, _ = coder._cut(data, 0)
    where = [i for i, e in enumerate(base.tolist()) if e not in coder.used]
    text = "".join(hctmake.far_gap_code(b - a - 1) + hctmake.value_code(int(base[b]), 8)
                   for a, b in zip([-1, *where], where))
    payload.segments[0].exceptions = (struct.pack("<IB", len(where), 3)
                                      + hctmake.pack_code(text))
    image.extents[0].payload = payload.pack()
    return image.build()


@valid
def exceptions_of_every_index():
    data = floats("F64", 2000, spread=0.5)
    data = with_exponents("F64", data, range(0, 2000, 30), np.resize(range(100, 120), 67))
    return split_file("F64", data=data, chunk=1100, exponents=4, rare=15, segment=10)


@valid
def exceptions_first_and_last_of_segments():
    data = floats("BF16", 3 * 1024 + 65, spread=0.5)
    positions = [0, 1023, 1024, 2047, 2048, 3071, 3072, 3136]
    data = with_exponents("BF16", data, positions, range(1, 9))
    return split_file("BF16", data=data, chunk=3 * 1024 + 65, exponents=4, rare=3, segment=10)


@valid
def exceptions_everywhere():
    """Only one exponent has a symbol, so nearly every element is an exception."""
    data = floats("F32", 3000, spread=12)
    return split_file("F32", data=data, chunk=1500, exponents=1, rare=15, segment=10)


@valid
def exceptions_wide():
    """Eleven bits of exponent."""
    data = with_exponents("F64", floats("F64", 500, spread=0.5), range(0, 500, 41),
                          range(2047, 2047 - 13, -1))
    return split_file("F64", data=data, chunk=450, exponents=4, rare=0, segment=10)


@valid
def exceptions_with_shift():
    data = floats("F16", 1700, spread=6, scales=[0, 2, -3])
    return split_file("F16", data=data, chunk=1100, exponents=3, rare=2, shifts=[0, 2, -3],
                      segment=10)


@valid
def exponents_twice():
    """X may name an exponent twice; both symbols stand for it."""
    data = floats("BF16", 3000)
    coder = SplitCoder("BF16", data, exponents=4)
    coder.X[8:12] = coder.X[:4]
    coder.twins = {place: place + 8 for place in range(4)}
    freq = coder.freq[0]
    for s in range(8):
        assert freq[s] > 1
        freq[s + 16] = freq[s] // 2
        freq[s] -= freq[s + 16]
    return Image.of([tensor("w", "BF16", data, 1400, coder)]).build()


@valid
def tail_zstd():
    data = floats("F32", 1500)
    data = np.frombuffer(data, "<u4") & 0xFFFF0F0F  # a tail worth compressing
    return split_file("F32", data=data.astype("<u4").tobytes(), tail_zstd=True, segment=11)


@valid
def all_equal():
    return split_file("BF16", data=b"\x80\x3f" * 2500)


@valid
def all_zero():
    return split_file("F32", data=bytes(10_000), tail_zstd=True)


@valid
def one_element():
    return split_file("BF16", data=b"\xc1\x3f")


# ---------------------------------------------------------------- damaged: tables


def tables_edit(name, edit, dtype="BF16", errors="CORRUPT"):
    def make():
        data = floats(dtype, 1500)
        image = Image.of([tensor("w", dtype, data, 1500,
                                 SplitCoder(dtype, data, classes=3, segment=10, shifts=[0, 1]))])
        params = bytearray(image.params)
        edit(params)
        image.params = bytes(params)
        image.records[0].tables_length = len(params)
        return image.build()

    damage(f"tables_{name}", errors, make)


X_AT, R_AT, FREQ_AT = 8, 8 + 64, 8 + 64 + 30  # with one joint bit
tables_edit("classes_0", change(0, "B", 0))
tables_edit("classes_17", change(0, "B", 17))
tables_edit("classes_255", change(0, "B", 255))
tables_edit("classes_4", change(0, "B", 4))
# Without classes, and really without.
tables_edit("no_classes", lambda p: (change(0, "B", 0)(p), p.__delitem__(
    slice(FREQ_AT, FREQ_AT + 192))))
tables_edit("run_11", change(1, "B", 11))
tables_edit("run_255", change(1, "B", 255))
tables_edit("segment_9", change(2, "B", 9))
tables_edit("segment_18", change(2, "B", 18))
tables_edit("segment_255", change(2, "B", 255))
tables_edit("period_1", change(4, "I", 1))
tables_edit("period_limit", change(4, "I", (1 << 20) + 1))
tables_edit("period_huge", change(4, "I", 0xFFFFFFFF))
tables_edit("x_too_big", change(X_AT + 2 * 31, "H", 256))
tables_edit("x_huge", change(X_AT, "H", 0xFFFF))
tables_edit("rare_too_big", change(R_AT + 2 * 14, "H", 256))
tables_edit("f16_x_too_big", change(X_AT, "H", 32), dtype="F16")
tables_edit("f64_x_too_big", change(X_AT, "H", 2048), dtype="F64")
tables_edit("sum_257", lambda p: change(FREQ_AT, "B", p[FREQ_AT] + 1)(p))
tables_edit("sum_255", lambda p: change(FREQ_AT + 64, "B", p[FREQ_AT + 64] - 1)(p))
tables_edit("sum_of_last_class", lambda p: change(FREQ_AT + 191, "B", p[FREQ_AT + 191] + 1)(p))
tables_edit("all_255", lambda p: p.__setitem__(slice(FREQ_AT, FREQ_AT + 64), b"\xff" * 64))
tables_edit("all_zero", lambda p: p.__setitem__(slice(FREQ_AT, FREQ_AT + 64), bytes(64)))
tables_edit("cut", lambda p: p.__delitem__(slice(-1, None)))
tables_edit("longer", lambda p: p.extend(b"\0"))
tables_edit("7_bytes", lambda p: p.__delitem__(slice(7, None)))


# Coded as it should be, but beyond what is allowed.
for _name, _options in {"17_classes": {"classes": 17, "run": 0}, "run_11": {"run": 11},
                        "segment_9": {"segment": 9}, "segment_18": {"segment": 18},
                        "longer_period": {"shifts": [0] * ((1 << 20) + 1)}}.items():
    damage(f"tables_really_{_name}", "CORRUPT",
           lambda options=_options: split_file("BF16", chunk=3000, **options))


@damaged("CORRUPT UNSUPPORTED")
def split_of_integers():
    """An integer tensor has no exponents, whatever its tables say."""
    data = floats("F32", 1500)
    image = Image.of([tensor("w", "F32", data, 1500, SplitCoder("F32", data))])
    image.header = image.header.replace(b'"F32"', b'"I32"')
    return image.build()


# ---------------------------------------------------------------- damaged: payloads


def payload_edit(name, edit, errors="CORRUPT", dtype="BF16", n=2100, **options):
    """edit changes a Payload (in its parts) or returns bytes instead."""

    def make():
        data = floats(dtype, n)
        settings = {"classes": 3, "run": 1, "segment": 10, "exponents": 6, "rare": 2, **options}
        coder = SplitCoder(dtype, data, **settings)
        image = Image.of([tensor("w", dtype, data, n, coder)])
        payload = coder.payload(data, 0)
        changed = edit(payload)
        image.extents[0].payload = changed if isinstance(changed, bytes) else payload.pack()
        return image.build()

    damage(f"split_{name}", errors, make)


payload_edit("one_byte", lambda p: b"\0")
payload_edit("7_bytes", lambda p: p.pack()[:7])
payload_edit("only_lengths", lambda p: p.pack()[:8 + 36])
payload_edit("cut", lambda p: p.pack()[:-1])
payload_edit("longer", lambda p: p.pack() + b"\0")
payload_edit("tail_encoding_2", lambda p: setattr(p, "tail_encoding", 2))
payload_edit("tail_encoding_255", lambda p: setattr(p, "tail_encoding", 255))
payload_edit("tail_not_expected", lambda p: setattr(p, "tail", b"tail"))
payload_edit("tail_missing", lambda p: setattr(p, "tail", b""), dtype="F32")
payload_edit("tail_short", lambda p: setattr(p, "tail", p.tail[:-2]), dtype="F32")
payload_edit("tail_long", lambda p: setattr(p, "tail", p.tail + b"\0\0"), dtype="F32")
payload_edit("tail_length_huge", lambda p: put(4, b"\xff\xff\xff\xff")(p.pack()), dtype="F32")
payload_edit("tail_zstd_short", lambda p: setattr(p, "tail", zstd_frame(bytes(4198))),
             dtype="F32", tail_zstd=True)
payload_edit("tail_zstd_bomb", lambda p: setattr(p, "tail", BOMB(64 * MIB)),
             dtype="F32", tail_zstd=True)
payload_edit("tail_zstd_lies", lambda p: setattr(
    p, "tail", hctmake.zstd_frame_claiming(bytes(64 * MIB), 4200)), dtype="F32", tail_zstd=True)
payload_edit("tail_zstd_cut", lambda p: setattr(p, "tail", p.tail[:-1]), dtype="F32",
             tail_zstd=True)
payload_edit("tail_zstd_and_skippable", lambda p: setattr(p, "tail", p.tail + SKIPPABLE),
             dtype="F32", tail_zstd=True)
payload_edit("tail_zstd_followed", lambda p: setattr(p, "tail", p.tail + b"\0"), dtype="F32",
             tail_zstd=True)
for _i, _part in enumerate(("a", "b", "exceptions")):
    for _name, _value in (("huge", 0xFFFFFFFF), ("2_gib", 1 << 31), ("zero", 0)):
        payload_edit(f"{_part}_length_{_name}", lambda p, i=_i, value=_value: put(
            8 + 12 + 4 * i, struct.pack("<I", value))(p.pack()))


@functools.partial(payload_edit, "lengths_wrap")
def _lengths_wrap(payload):
    """The three lengths of a segment sum to the right number modulo 2^32."""
    data = payload.pack()
    a, b, e = struct.unpack_from("<3I", data, 8)
    return put(8, struct.pack("<3I", a - 1, (b + (1 << 31)) % (1 << 32), (e + 1 + (1 << 31))))(data)


@functools.partial(payload_edit, "byte_moved_from_a_to_b")
def _byte_moved(payload):
    s = payload.segments[0]
    s.a, s.b = s.a[:-1], s.a[-1:] + s.b


payload_edit("a_one_byte_more", in_segment(0, a=lambda a: a + b"\0"))
payload_edit("b_one_byte_more", in_segment(2, b=lambda b: b + b"\0"))
payload_edit("a_one_byte_less", in_segment(1, a=lambda a: a[:-1]))
payload_edit("a_empty", in_segment(1, a=lambda a: b""))
payload_edit("b_empty", in_segment(1, b=lambda b: b""))
# A wrong byte leads to a wrong final state, or else to other bytes.
payload_edit("a_first_byte", in_segment(0, a=lambda a: bytes([a[0] ^ 0x55]) + a[1:]),
             errors="CORRUPT DIGEST")
payload_edit("field_bit", in_segment(0, fields=lambda f: bytes([f[0] ^ 1]) + f[1:]),
             errors="DIGEST")
for _lane in (0, 31, 32, 63):
    payload_edit(f"state_{_lane}_is_255", in_segment(1, states=state(_lane, 255)))
payload_edit("state_0", in_segment(0, states=state(5, 0)))
payload_edit("states_all_0", in_segment(2, states=lambda s: [0] * 64))
payload_edit("states_all_65535", in_segment(2, states=lambda s: [65535] * 64))


@damaged("CORRUPT")
def split_state_below_256_that_would_do():
    """Decoding would come out right in the end, but a start state below 256 is not allowed."""
    data = floats("BF16", 1000)
    coder = SplitCoder("BF16", data, segment=10)
    image = Image.of([tensor("w", "BF16", data, 1000, coder)])
    payload = coder.payload(data, 0)
    segment, freq = payload.segments[0], coder.freq[0]
    cum = hctmake.cumulative(freq)
    x = segment.states[0]
    s = next(s for s in range(64) if cum[s] <= x % 256 < cum[s] + freq[s])
    after = freq[s] * (x >> 8) + x % 256 - cum[s]
    assert after >= 256  # lane 0 takes no byte, so it can be made to take one
    segment.states[0] = cum[s] + (after >> 8)
    segment.a = bytes([after & 255]) + segment.a
    image.extents[0].payload = payload.pack()
    return image.build()


payload_edit("final_state", in_segment(1, states=lambda s: state(3, s[3] ^ 0x100)(s)),
             errors="CORRUPT DIGEST")
payload_edit("class_3_of_3", in_segment(0, class_map=lambda m: b"\xff" * len(m)))
payload_edit("class_3_of_3_in_last_run",
             in_segment(0, class_map=lambda m: m[:-1] + bytes([m[-1] | 0xC0])))


def exceptions_as(text, count=1, rice=0):
    """An edit: the exceptions of segment 0 (1024 elements) are these codes, written as bits."""
    data = struct.pack("<IB", count, rice) + hctmake.pack_code(text)
    return in_segment(0, exceptions=lambda old: data)


FIRST = "1" + "1"  # an exception of gap 0 and entry 0 of R, when the Rice parameter is 0

for _n in (1, 3, 4):
    payload_edit(f"exceptions_{_n}_bytes", in_segment(0, exceptions=lambda e, n=_n: e[:n]))
payload_edit("exceptions_without_codes", exceptions_as(""))
payload_edit("exceptions_0", exceptions_as("", count=0))
payload_edit("exceptions_0_and_more", exceptions_as(FIRST, count=0))
payload_edit("exceptions_huge", exceptions_as(FIRST * 200, count=0xFFFFFFFF))
payload_edit("exceptions_more_than_elements", exceptions_as(FIRST * 1025, count=1025))
payload_edit("exceptions_one_less_than_said", exceptions_as(FIRST * 4, count=5))
payload_edit("exceptions_rice_16", exceptions_as("1" + "0" * 16 + "1", rice=16))
payload_edit("exceptions_rice_255", exceptions_as("1" + "0" * 255 + "1", rice=255))
payload_edit("exceptions_cut_in_zeros", exceptions_as("0" * 16))
payload_edit("exceptions_cut_in_gap", exceptions_as("1" + "0" * 7, rice=15))
payload_edit("exceptions_cut_in_far_gap", exceptions_as("0" * 40))
payload_edit("exceptions_cut_in_index", exceptions_as("1" + "0" * 7))
payload_edit("exceptions_cut_in_value", exceptions_as("1" + "0" * 23), dtype="F64")
payload_edit("exceptions_bit_behind", exceptions_as(FIRST + "000001"))
payload_edit("exceptions_byte_behind", exceptions_as(FIRST + "0" * 14))
payload_edit("exceptions_beyond", exceptions_as(hctmake.far_gap_code(1024) + "1"))
payload_edit("exceptions_far_beyond", exceptions_as(hctmake.far_gap_code((1 << 17) - 1) + "1"))
payload_edit("exceptions_sum_beyond",
             exceptions_as((hctmake.gap_code(23 * 32, 5) + "1") * 1000, count=1000, rice=5))
payload_edit("exceptions_beyond_by_rice", exceptions_as("0" * 23 + "1" * 16 + "1", rice=15))
# The last segment has 52 elements and 64 places: an exception may not lie behind element 51.
payload_edit("exceptions_in_padding", in_segment(2, exceptions=lambda e: struct.pack(
    "<IB", 1, 0) + hctmake.pack_code(hctmake.far_gap_code(52) + "1")))
payload_edit("exceptions_moved", exceptions_as(hctmake.gap_code(5, 0) + "1"), errors="DIGEST")
