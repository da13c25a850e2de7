"""Cases of the file around the chunks, and of the codecs raw and zstd: odd but valid files, damage
at either end of one, and damaged payloads of zstd."""

import functools
import struct

import hctmake
import hctspec
import numpy as np
from hctcases_made import (
    MIB,
    SKIPPABLE,
    damage,
    damaged,
    floats,
    tensor,
    valid,
)
from hctmake import Image, Made, RawCoder, SplitCoder, ZstdCoder, change, zstd_frame
from hctspec import LAYOUTS, SPLIT, xxh3

# ---------------------------------------------------------------- valid


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
def good_file():
    return mixed_image(gap=b"gap").build()


def patched(offset, data, good=None):
    out = bytearray(good or good_file())
    if offset < 0:
        offset += len(out)
    out[offset:offset + len(data)] = data
    return bytes(out)


damage("empty_file", "NOT_HCT", lambda: b"")
damage("file_of_127_bytes", "NOT_HCT", lambda: good_file()[:64] + good_file()[-63:])
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

damage("no_trailer", "UNFINISHED", lambda: good_file()[:-64])
damage("trailer_magic", "UNFINISHED", lambda: patched(-1, b"!"))
damage("trailer_checksum", "CHECKSUM", lambda: patched(-16, b"\0\1\2\3"))
damage("one_byte_more", "UNFINISHED", lambda: good_file()[:-64] + b"\0" + good_file()[-64:])
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
    head = good_file()[:64]
    index = hctspec.INDEX_MAGIC
    trailer = struct.pack("<QQQQHHIQ", 64, 8, xxh3(index), 136, 1, 0, 0, 0)
    return (head + index + trailer + struct.pack("<Q", xxh3(trailer)) + hctspec.TRAILER_MAGIC)


# ---------------------------------------------------------------- damaged: chunks of raw and zstd


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
