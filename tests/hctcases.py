"""Odd but valid .hct files, and damaged ones, each wrong in one place.

VALID    {name: function that returns the bytes}
DAMAGED  {name: (function that returns the bytes, names of the errors allowed)}

Those of the codec tcq are in hctcases_tcq.py, those of coef and lowrank in
hctcases_literal.py, and end up here, too.

Damage is done before the checksums are made, so that the check behind them is what a
reader meets, unless the checksum itself is what is wrong.
"""

import functools
import struct

import hctmake
import hctspec
import numpy as np
from hctmake import Image, Made, RawCoder, SplitCoder, ZstdCoder, change, zstd_frame
from hctspec import LAYOUTS, SPLIT, xxh3

VALID = {}
DAMAGED = {}


def valid(function):
    VALID[function.__name__] = function
    return function


def damaged(errors):
    """Registers a function under its name with the error, or one of several, that it must give."""

    def register(function):
        DAMAGED[function.__name__] = function, errors.split()
        return function

    return register


# ---------------------------------------------------------------- data


def floats(dtype, n, seed=0, center=None, spread=1.5, scales=()):
    """n elements as weights look: signs and mantissas at random, exponents near a center.

    scales: added to the exponents, element by element, again and again.
    """
    rng = np.random.default_rng(seed)
    L = LAYOUTS[dtype]
    low = 8 * L.W - 1 - L.E  # bits of the mantissa, tail included
    top = (1 << L.E) - 1
    center = top * 0.45 if center is None else center
    exponent = np.round(center - rng.exponential(spread, n)).astype(np.int64)
    if len(scales):
        exponent += np.resize(scales, n)
    exponent = np.clip(exponent, 0, top).astype(np.uint64)
    mantissa = rng.integers(0, 1 << low, n, dtype=np.uint64)
    sign = rng.integers(0, 2, n, dtype=np.uint64)
    v = sign << np.uint64(low + L.E) | exponent << np.uint64(low) | mantissa
    return v.astype(f"<u{L.W}").tobytes()


def with_exponents(dtype, data, positions, exponents):
    """data with other exponents at some positions."""
    L = LAYOUTS[dtype]
    low = 8 * L.W - 1 - L.E
    v = np.frombuffer(data, f"<u{L.W}").astype(np.uint64)
    mask = np.uint64(((1 << L.E) - 1) << low)
    v[positions] = v[positions] & ~mask | np.array(exponents, np.uint64) << np.uint64(low)
    return v.astype(f"<u{L.W}").tobytes()


def tensor(name, dtype, data, chunk_elements, coders):
    elements = len(data) * 8 // hctspec.DTYPE_BITS[dtype]
    return Made(name, dtype, [elements], data,
                chunk_elements * hctspec.DTYPE_BITS[dtype] // 8, coders)


def split_file(dtype, n=3000, chunk=1400, data=None, **options):
    data = floats(dtype, n) if data is None else data
    return Image.of([tensor("w", dtype, data, chunk, SplitCoder(dtype, data, **options))]).build()


# ---------------------------------------------------------------- valid: split

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


# ---------------------------------------------------------------- valid: the file


@valid
def chunk_sizes():
    """Chunks of one element, of odd numbers of them, and longer than the tensor."""
    tensors = []
    for elements in (1, 3, 63, 64, 65, 1001, 4096):
        data = floats("BF16", min(200, 20 * elements), seed=elements)
        tensors.append(tensor(f"t{elements}", "BF16", data, elements,
                              [SplitCoder("BF16", data), RawCoder(), ZstdCoder(2)]))
    return Image.of(tensors).build()


@valid
def chunk_of_8_mib():
    data = bytes(9 << 20)
    return Image.of([tensor("w", "U8", data, 8 << 20, ZstdCoder(1))]).build()


@valid
def zstd_strides():
    tensors = [tensor(f"s{s}", "I64", np.arange(170, dtype="<i8").tobytes(), 77, ZstdCoder(s))
               for s in (1, 2, 4, 8)]
    tensors.append(tensor("f4", "F4", bytes(range(99)), 34, ZstdCoder(1)))
    return Image.of(tensors).build()


@valid
def zstd_incompressible():
    data = np.random.default_rng(5).bytes(4000)
    return Image.of([tensor("w", "U16", data, 1000, ZstdCoder(2, level=19))]).build()


def mixed_image(gap=b""):
    """Several tensors, all codecs, empty ones and scalars between the others."""
    bf16, f16 = floats("BF16", 1300, seed=1), floats("F16", 400, seed=2)
    return Image.of([
        Made("none", "F32", [0, 3], b""),
        tensor("w", "BF16", bf16, 520, [SplitCoder("BF16", bf16, classes=3, segment=10),
                                         RawCoder(), ZstdCoder(2)]),
        Made("scalar", "F32", [], b"\x00\x00\x80\x3f", 4),
        Made("nothing", "BF16", [0], b""),
        tensor("h/é", "F16", f16, 400, SplitCoder("F16", f16, segment=10)),
        tensor("mask", "BOOL", bytes([0, 1] * 50), 33, ZstdCoder(1)),
        Made("odd", "U8", [3], b"abc", 2),
        Made("end", "F64", [7, 0], b""),
    ], metadata={"format": "pt", "": "é"}, pad=5, gap=gap)


@valid
def mixed():
    return mixed_image().build()


@valid
def no_tensors():
    return Image.of([], metadata={"a": "b"}).build()


@valid
def only_empty_tensors():
    return Image.of([Made("a", "F32", [0], b""), Made("b", "I8", [2, 0], b"")]).build()


@valid
def gaps_between_extents():
    return mixed_image(gap=b"what lies here has no meaning").build()


@valid
def stored_sections():
    image = mixed_image()
    image.encodings = dict.fromkeys(hctspec.SECTION_NAMES, 0)
    image.index_gap = b"gap"
    return image.build()


@valid
def unknown_optional_section():
    image = mixed_image()
    image.more_sections = [(1000, 0, 0, b"for a later version"), (1001, 99, 0, b"?")]
    return image.build()


@valid
def sections_64():
    image = mixed_image()
    image.more_sections = [(1000 + i, 0, 0, b"x") for i in range(58)]
    return image.build()


@valid
def newer_minor():
    """A later minor version: reserved fields and upper flags mean something there."""
    image = mixed_image()
    image.minor, image.flags = 7, 0xABCD0000
    for r in image.records:
        r.reserved = 0xDEADBEEF
    image.more_sections = [(77, 1, 0, b"new")]
    return image.build(superblock=change(40, "Q", 1), trailer=change(40, "Q", 2),
                       index=change(24, "Q", 3), source=change(56, "Q", 4))


@valid
def unknown_dtype():
    return Image.of([Made("w", "F3_E1M1", [10, 10], bytes(range(38)), 7, ZstdCoder(1))]).build()


@valid
def every_dtype():
    tensors = []
    for dtype, bits in hctspec.DTYPE_BITS.items():
        if dtype in LAYOUTS:
            data = floats(dtype, 240, seed=3)
            tensors.append(tensor(dtype, dtype, data, 96, SplitCoder(dtype, data, exponents=8)))
        else:
            data = np.random.default_rng(4).bytes(240 * bits // 8)
            tensors.append(tensor(dtype, dtype, data, 96, RawCoder()))
    return Image.of(tensors).build()


# ---------------------------------------------------------------- damaged: the ends


@functools.cache
def _good():
    return mixed_image(gap=b"gap").build()


def patched(offset, data, good=None):
    out = bytearray(good or _good())
    if offset < 0:
        offset += len(out)
    out[offset:offset + len(data)] = data
    return bytes(out)


def damage(name, errors, make):
    DAMAGED[name] = make, errors.split()


damage("empty_file", "NOT_HCT", lambda: b"")
damage("file_of_127_bytes", "NOT_HCT", lambda: _good()[:64] + _good()[-63:])
damage("magic", "NOT_HCT", lambda: patched(3, b"t"))
damage("safetensors_file", "NOT_HCT", lambda: hctmake.source_header([], pad=200))
damage("superblock_checksum", "CHECKSUM", lambda: patched(60, b"\0\1\2\3"))
damage("major_2", "VERSION", lambda: mixed_image().build(superblock=change(8, "H", 2)))
damage("major_0", "CORRUPT VERSION",
       lambda: mixed_image().build(superblock=change(8, "H", 0), trailer=change(32, "H", 0)))
damage("flag_0", "UNSUPPORTED", lambda: mixed_image().build(superblock=change(12, "I", 1)))
damage("flag_15", "UNSUPPORTED", lambda: mixed_image().build(superblock=change(12, "I", 1 << 15)))
for _name, _value in (("smaller", -1), ("bigger", 1), ("huge", 1 << 62)):
    damage(f"source_size_{_name}", "CORRUPT SAFETENSORS",
           lambda value=_value: mixed_image().build(
               superblock=lambda b: struct.pack_into(
                   "<Q", b, 16, mixed_image().source_size + value)))
damage("header_length_7", "CORRUPT LIMIT",
       lambda: mixed_image().build(superblock=change(24, "Q", 7)))
damage("header_length_differs", "CORRUPT LIMIT",
       lambda: mixed_image().build(superblock=change(24, "Q", 80)))
damage("header_length_limit", "CORRUPT LIMIT",
       lambda: mixed_image().build(superblock=change(24, "Q", 100_000_009)))
damage("header_length_huge", "CORRUPT LIMIT",
       lambda: mixed_image().build(superblock=change(24, "Q", 1 << 63)))

damage("no_trailer", "UNFINISHED", lambda: _good()[:-64])
damage("trailer_magic", "UNFINISHED", lambda: patched(-1, b"!"))
damage("trailer_checksum", "CHECKSUM", lambda: patched(-16, b"\0\1\2\3"))
damage("one_byte_more", "UNFINISHED", lambda: _good()[:-64] + b"\0" + _good()[-64:])
damage("file_length", "UNFINISHED", lambda: mixed_image().build(trailer=change(24, "Q", 999)))
damage("trailer_version", "CORRUPT", lambda: mixed_image().build(trailer=change(34, "H", 3)))
for _name, _value in (("zero", 0), ("in_superblock", 32), ("past_end", 1 << 40),
                      ("wraps", (1 << 64) - 32)):
    damage(f"index_offset_{_name}", "CORRUPT",
           lambda value=_value: mixed_image().build(trailer=change(0, "Q", value)))
for _name, _value in (("zero", 0), ("31", 31), ("huge", (1 << 64) - 1)):
    damage(f"index_length_{_name}", "CORRUPT",
           lambda value=_value: mixed_image().build(trailer=change(8, "Q", value)))


@damaged("CORRUPT")
def index_range_wraps():
    """Offset and length overflow to the right sum."""
    return mixed_image().build(trailer=lambda t: struct.pack_into(
        "<QQ", t, 0, (1 << 64) - 64, (struct.unpack_from("<QQ", t)[0]
                                      + struct.unpack_from("<QQ", t)[1] + 64)))


@damaged("CORRUPT")
def index_in_superblock():
    """The header of the index in the reserved bytes of the superblock, all sums right."""
    good = Image.of([]).build()
    index = hctspec.File(good).index
    superblock = good[:32] + index[:24]
    head = index[:24] + struct.pack("<Q", xxh3(superblock)) + index[32:32 + 6 * 40]
    trailer = struct.pack("<QQQQHHIQ", 32, len(index), xxh3(head), 32 + len(index) + 64, 1, 0, 0, 0)
    return (good[:32] + head + index[len(head):] + trailer + struct.pack("<Q", xxh3(trailer))
            + hctspec.TRAILER_MAGIC)


@damaged("CORRUPT")
def index_of_8_bytes():
    head = _good()[:64]
    index = hctspec.INDEX_MAGIC
    trailer = struct.pack("<QQQQHHIQ", 64, 8, xxh3(index), 136, 1, 0, 0, 0)
    return (head + index + trailer + struct.pack("<Q", xxh3(trailer)) + hctspec.TRAILER_MAGIC)


# ---------------------------------------------------------------- damaged: the index


def index_edit(name, errors, **edit):
    damage(name, errors, lambda: mixed_image().build(**edit))


index_edit("index_magic", "CORRUPT", index=change(0, "B", 0))
index_edit("index_length_differs", "CORRUPT", index=change(16, "Q", 5))
# The checksum of the head covers what the number of sections says: with a wrong number
# nothing can be known about it.
index_edit("sections_none", "CORRUPT CHECKSUM", index=change(8, "I", 0))
index_edit("sections_5", "CORRUPT CHECKSUM", index=change(8, "I", 5))
index_edit("sections_huge", "LIMIT", index=change(8, "I", 0xFFFFFFFF))
index_edit("sections_past_index", "CORRUPT CHECKSUM", index=change(8, "I", 60))
damage("index_head_checksum", "CHECKSUM",
       lambda: mixed_image().build(trailer=change(16, "Q", 1)))


@damaged("LIMIT")
def sections_65():
    image = mixed_image()
    image.more_sections = [(1000 + i, 0, 0, b"x") for i in range(59)]
    return image.build()


for _id in hctspec.SECTION_NAMES:
    def _doubled(id=_id):
        image = mixed_image()
        image.more_sections = [(id, 0, 0, b"a second one")]
        return image.build()
    damage(f"section_{_id}_occurs_again", "CORRUPT", _doubled)


@damaged("UNSUPPORTED")
def unknown_required_section():
    image = mixed_image()
    image.more_sections = [(1000, 0, 1, b"x")]
    return image.build()


for _id, _section in hctspec.SECTION_NAMES.items():
    _entry = 40 * (_id - 1)
    _section = _section.lower()
    index_edit(f"{_section}_missing", "CORRUPT", table=change(_entry, "I", 500))
    index_edit(f"{_section}_twice", "CORRUPT", table=change(40 * (_id % 6), "I", _id))
    index_edit(f"{_section}_encoding", "CORRUPT UNSUPPORTED", table=change(_entry + 4, "H", 2))
    index_edit(f"{_section}_offset_past_end", "CORRUPT", table=change(_entry + 8, "Q", 1 << 40))
    index_edit(f"{_section}_offset_wraps", "CORRUPT",
               table=change(_entry + 8, "Q", (1 << 64) - 8))
    index_edit(f"{_section}_offset_in_head", "CORRUPT", table=change(_entry + 8, "Q", 40))
    index_edit(f"{_section}_length_huge", "CORRUPT", table=change(_entry + 16, "Q", 1 << 63))
    index_edit(f"{_section}_checksum", "CHECKSUM", table=change(_entry + 32, "Q", 1))
    # A promise of 2^62 bytes: more than any limit, and wrong where the length is known.
    index_edit(f"{_section}_decoded_huge",
               "LIMIT" if _section in ("header", "params", "provenance") else "CORRUPT LIMIT",
               table=change(_entry + 24, "Q", 1 << 62))
    index_edit(f"{_section}_decoded_one", "CORRUPT", table=change(_entry + 24, "Q", 1))

    def _unpacked_lie(id=_id):
        image = mixed_image()
        image.encodings = {id: 0}
        return image.build(table=change(40 * (id - 1) + 24, "Q", 77))
    damage(f"{_section}_stored_decoded_differs", "CORRUPT", _unpacked_lie)


@damaged("CORRUPT UNSUPPORTED")
def extents_zstd():
    image = mixed_image()
    image.encodings = {hctspec.EXTENTS: 1}
    return image.build()


def section_as(id, stored, decoded):
    """A file whose section id is these stored bytes, zstd by name, with their right checksum."""
    image = mixed_image()
    image.encodings = {id: 0}
    contents = {hctspec.HEADER: "header", hctspec.TENSORS: "tensors", hctspec.SOURCE: "source",
                hctspec.PARAMS: "params", hctspec.PROVENANCE: "provenance"}

    def replace(data):
        data[:] = stored

    def entry(table):
        struct.pack_into("<H", table, 40 * (id - 1) + 4, 1)
        struct.pack_into("<Q", table, 40 * (id - 1) + 24, decoded)

    return image.build(table=entry, **{contents[id]: replace})


MIB = 1 << 20
TENSOR_BYTES = 8 * 48  # of mixed_image
SKIPPABLE = b"\x50\x2a\x4d\x18\4\0\0\0abcd"
BOMB = functools.cache(lambda size: zstd_frame(bytes(size)))

damage("bomb_params", "LIMIT", lambda: section_as(hctspec.PARAMS, BOMB(257 * MIB), 257 * MIB))
damage("bomb_provenance", "LIMIT", lambda: section_as(hctspec.PROVENANCE, BOMB(17 * MIB), 17 * MIB))
damage("bomb_header", "LIMIT", lambda: section_as(hctspec.HEADER, BOMB(100 * MIB), 100 * MIB))
damage("bomb_tensors", "CORRUPT LIMIT",
       lambda: section_as(hctspec.TENSORS, BOMB(64 * MIB), 64 * MIB))
damage("bomb_source", "CORRUPT LIMIT",
       lambda: section_as(hctspec.SOURCE, BOMB(64 * MIB), 64 * MIB))
damage("bomb_hidden", "CORRUPT", lambda: section_as(hctspec.TENSORS, BOMB(64 * MIB), TENSOR_BYTES))
damage("bomb_claims_little", "CORRUPT",
       lambda: section_as(hctspec.TENSORS, hctmake.zstd_frame_claiming(bytes(64 * MIB),
                                                                       TENSOR_BYTES), TENSOR_BYTES))
damage("frame_claims_more", "CORRUPT",
       lambda: section_as(hctspec.SOURCE, hctmake.zstd_frame_claiming(bytes(63), 64), 64))
damage("frame_cut", "CORRUPT", lambda: section_as(hctspec.SOURCE, zstd_frame(bytes(64))[:-1], 64))
damage("frame_followed", "CORRUPT",
       lambda: section_as(hctspec.SOURCE, zstd_frame(bytes(64)) + b"\0", 64))
damage("frames_two", "CORRUPT",
       lambda: section_as(hctspec.SOURCE, zstd_frame(bytes(32)) * 2, 64))
damage("frame_and_empty_frame", "CORRUPT",
       lambda: section_as(hctspec.SOURCE, zstd_frame(bytes(64)) + zstd_frame(b""), 64))
damage("frame_and_skippable", "CORRUPT",
       lambda: section_as(hctspec.SOURCE, zstd_frame(bytes(64)) + SKIPPABLE, 64))
damage("frame_longer_than_limit", "LIMIT",
       lambda: section_as(hctspec.SOURCE, zstd_frame(bytes(64)) + bytes(2 * 64 + 4096), 64))
damage("frame_none", "CORRUPT", lambda: section_as(hctspec.SOURCE, b"", 64))
damage("frame_skippable", "CORRUPT",
       lambda: section_as(hctspec.PROVENANCE, SKIPPABLE, 4))
damage("frame_skippable_empty", "CORRUPT", lambda: section_as(hctspec.PROVENANCE, SKIPPABLE, 0))
damage("frame_without_size", "CORRUPT", lambda: section_as(
    hctspec.SOURCE, hctmake.zstandard.ZstdCompressor(write_content_size=False).compress(
        mixed_image().source), 64))


# ---------------------------------------------------------------- damaged: HEADER


def header_as(text, data_bytes=0, length=None):
    """A file without tensors whose HEADER holds this text."""
    image = Image.of([])
    text = text if isinstance(text, bytes) else text.encode()
    image.header = struct.pack("<Q", len(text) if length is None else length) + text
    image.source_size = len(image.header) + data_bytes
    image.source = struct.pack("<QqII32s8x", image.source_size, 0, 0, 0, bytes(32))
    return image.build()


for _name, _text in {
    "empty": "",
    "not_json": "{nonsense",
    "array": "[]",
    "not_utf8": b'{"\xff\xfe": 1}',
    "cut": '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,',
    "no_dtype": '{"a":{"shape":[0],"data_offsets":[0,0]}}',
    "no_shape": '{"a":{"dtype":"U8","data_offsets":[0,0]}}',
    "no_offsets": '{"a":{"dtype":"U8","shape":[0]}}',
    "shape_negative": '{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,0]}}',
    "shape_fraction": '{"a":{"dtype":"U8","shape":[0.5],"data_offsets":[0,0]}}',
    "shape_text": '{"a":{"dtype":"U8","shape":["0"],"data_offsets":[0,0]}}',
    "shape_overflows": '{"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}}',
    "shape_disagrees": '{"a":{"dtype":"U16","shape":[1],"data_offsets":[0,0]}}',
    "offsets_backwards": '{"a":{"dtype":"U8","shape":[0],"data_offsets":[1,0]}}',
    "offsets_three": '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0,0]}}',
    "hole": '{"a":{"dtype":"U8","shape":[0],"data_offsets":[8,8]}}',
    "metadata_number": '{"__metadata__":{"a":1}}',
    "name_twice": '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},'
                  '"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
    "nested": '{"a":' + "[" * 100_000 + "]" * 100_000 + "}",
}.items():
    damage(f"json_{_name}", "SAFETENSORS", lambda text=_text: header_as(text))
damage("header_n_differs", "SAFETENSORS CORRUPT", lambda: header_as("{}", length=3))
damage("header_n_huge", "SAFETENSORS CORRUPT", lambda: header_as("{}", length=(1 << 64) - 8))
damage("header_and_more_data", "SAFETENSORS", lambda: header_as("{}", data_bytes=5))


# ---------------------------------------------------------------- damaged: TENSORS, EXTENTS, SOURCE

W = 1  # number of the tensor "w" in mixed_image, which has extents 0, 1, 2
W_EXTENTS = (0, 1, 2)


def tensor_edit(name, errors, offset, code, value):
    index_edit(name, errors, tensors=change(48 * W + offset, code, value))


tensor_edit("layers_0", "CORRUPT", 2, "B", 0)
tensor_edit("layers_2", "CORRUPT", 2, "B", 2)
tensor_edit("layers_9", "LIMIT", 2, "B", 9)
tensor_edit("layers_255", "LIMIT", 2, "B", 255)
tensor_edit("tensor_flag", "UNSUPPORTED", 3, "B", 1)
tensor_edit("chunk_size_0", "CORRUPT", 4, "I", 0)
tensor_edit("chunk_size_1", "CORRUPT", 4, "I", 1)
tensor_edit("chunk_size_not_of_elements", "CORRUPT", 4, "I", 1041)
tensor_edit("chunk_size_limit", "LIMIT", 4, "I", (8 << 20) + 2)
tensor_edit("chunk_size_huge", "LIMIT", 4, "I", 0xFFFFFFFE)
for _name, _value in (("0", 0), ("2", 2), ("4", 4), ("huge", 1 << 63), ("max", (1 << 64) - 1)):
    tensor_edit(f"chunk_count_{_name}", "CORRUPT", 8, "Q", _value)
for _name, _value in (("1", 1), ("huge", (1 << 64) - 1)):
    tensor_edit(f"first_extent_{_name}", "CORRUPT", 16, "Q", _value)
for _name, _value in (("past_end", 1 << 30), ("wraps", (1 << 64) - 4)):
    tensor_edit(f"tables_offset_{_name}", "CORRUPT", 24, "Q", _value)
tensor_edit("tables_length_huge", "CORRUPT", 32, "I", 0xFFFFFFFF)
tensor_edit("tables_length_short", "CORRUPT", 32, "I", 100)
tensor_edit("tables_length_0", "CORRUPT", 32, "I", 0)
tensor_edit("tables_of_no_codec", "CORRUPT", 0, "H", 0)
tensor_edit("tables_of_unknown_codec", "CORRUPT UNSUPPORTED", 0, "H", 999)
index_edit("empty_tensor_chunks", "CORRUPT", tensors=change(8, "Q", 1))
index_edit("empty_tensor_chunk_size", "CORRUPT", tensors=change(4, "I", 4))
index_edit("empty_tensor_layers_0", "CORRUPT", tensors=change(2, "B", 0))
index_edit("tensors_one_less", "CORRUPT", tensors=lambda t: t.__delitem__(slice(-48, None)))
index_edit("tensors_one_more", "CORRUPT", tensors=lambda t: t.extend(bytes(48)))
index_edit("tensors_cut", "CORRUPT", tensors=lambda t: t.__delitem__(slice(-1, None)))
index_edit("tensors_none", "CORRUPT", tensors=lambda t: t.clear())
index_edit("extents_one_less", "CORRUPT", extents=lambda t: t.__delitem__(slice(-32, None)))
index_edit("extents_one_more", "CORRUPT", extents=lambda t: t.extend(t[-32:]))
index_edit("extents_cut", "CORRUPT", extents=lambda t: t.__delitem__(slice(-1, None)))
index_edit("extents_none", "CORRUPT", extents=lambda t: t.clear())


def extent_edit(name, errors, offset, code, value):
    index_edit(name, errors, extents=change(32 + offset, code, value))


for _name, _value in (("0", 0), ("in_superblock", 63), ("backwards", 64), ("past_end", 1 << 40),
                      ("in_index", len(_good()) - 70), ("wraps", (1 << 64) - 1)):
    extent_edit(f"extent_offset_{_name}", "CORRUPT", 0, "Q", _value)
extent_edit("extent_length_0", "CORRUPT", 8, "I", 0)
extent_edit("extent_overlaps", "CORRUPT", 8, "I", 1050)
extent_edit("extent_length_huge", "LIMIT CORRUPT", 8, "I", 0xFFFFFFFF)
extent_edit("extent_flag", "UNSUPPORTED", 14, "H", 0x8000)
extent_edit("extent_codec", "UNSUPPORTED", 12, "H", 77)
extent_edit("extent_checksum", "CHECKSUM", 16, "Q", 1)
extent_edit("extent_digest", "DIGEST", 24, "Q", 1)


@damaged("LIMIT")
def extent_longer_than_limit():
    """A zstd frame of a small chunk, blown up with blocks of nothing, is still not accepted."""
    image = Image.of([Made("w", "U8", [10], bytes(10), 10, RawCoder())])
    image.extents[0].payload = bytes(2 * 10 + 4096 + 1)
    return image.build()


index_edit("source_size_differs", "CORRUPT", source=change(0, "Q", 1))
index_edit("source_nanoseconds", "CORRUPT", source=change(16, "I", 1_000_000_000))
index_edit("source_cut", "CORRUPT", source=lambda s: s.__delitem__(slice(-1, None)))


# ---------------------------------------------------------------- damaged: tables of split


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


def in_segment(number, **changes):
    """An edit of one segment: each change is a function from the old part to the new."""

    def edit(payload):
        segment = payload.segments[number]
        for part, function in changes.items():
            setattr(segment, part, function(getattr(segment, part)))

    return edit


def put(offset, data):
    return lambda old: old[:offset] + data + old[offset + len(data):]


def state(lane, value):
    return lambda old: old[:lane] + [value] + old[lane + 1:]


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


def chunk_edit(name, payload, errors="CORRUPT", codec=hctspec.ZSTD, n=100):
    """One chunk of n U16 with this payload."""

    def make():
        data = np.arange(n, dtype="<u2").tobytes()
        image = Image.of([tensor("w", "U16", data, n, RawCoder())])
        image.extents[0].codec = codec
        image.extents[0].payload = payload(data)
        return image.build()

    damage(name, errors, make)


chunk_edit("raw_short", lambda d: d[:-1], codec=hctspec.RAW)
chunk_edit("raw_long", lambda d: d + b"\0", codec=hctspec.RAW)
chunk_edit("raw_other", lambda d: bytes(len(d)), codec=hctspec.RAW, errors="DIGEST")
chunk_edit("split_without_tables", lambda d: d, codec=SPLIT)
for _stride in (0, 3, 16, 255):
    chunk_edit(f"zstd_stride_{_stride}", lambda d, s=_stride: bytes([s]) + zstd_frame(d))
chunk_edit("zstd_stride_not_of_length", lambda d: b"\4" + zstd_frame(d), n=101)
chunk_edit("zstd_only_stride", lambda d: b"\1")
chunk_edit("zstd_short", lambda d: b"\1" + zstd_frame(d[:-1]))
chunk_edit("zstd_long", lambda d: b"\1" + zstd_frame(d + b"\0"))
chunk_edit("zstd_cut", lambda d: b"\1" + zstd_frame(d)[:-1])
chunk_edit("zstd_followed", lambda d: b"\1" + zstd_frame(d) + b"\0")
chunk_edit("zstd_and_skippable", lambda d: b"\1" + zstd_frame(d) + SKIPPABLE)
chunk_edit("zstd_and_empty_frame", lambda d: b"\1" + zstd_frame(d) + zstd_frame(b""))
chunk_edit("zstd_two_frames", lambda d: b"\1" + zstd_frame(d[:50]) + zstd_frame(d[50:]))
chunk_edit("zstd_without_size", lambda d: b"\1" + hctmake.zstandard.ZstdCompressor(
    write_content_size=False).compress(d))
chunk_edit("zstd_bomb", lambda d: b"\1" + zstd_frame(bytes(64 * MIB))[:4000])
chunk_edit("zstd_lies", lambda d: b"\1" + hctmake.zstd_frame_claiming(bytes(2 * MIB), len(d)))
chunk_edit("zstd_huge_claim", lambda d: b"\1" + hctmake.zstd_frame_claiming(d, 1 << 62))
chunk_edit("zstd_other", lambda d: b"\1" + zstd_frame(bytes(len(d))), errors="DIGEST")


@damaged("CORRUPT UNSUPPORTED")
def raw_in_two_layers():
    data = bytes(range(100))
    image = Image.of([Made("w", "U8", [100], data, 100)])
    image.records[0].layers = 2
    image.extents *= 2
    return image.build()


import hctcases_tcq  # noqa: E402, F401  registers the cases of tcq
import hctcases_literal  # noqa: E402, F401, I001  registers those of coef and lowrank
