"""Cases of a damaged index: its sections, what they hold, and zstd frames that lie."""

import struct

import hctmake
import hctspec
from hctcases_file import good_file, mixed_image
from hctcases_made import BOMB, MIB, SKIPPABLE, damage, damaged
from hctmake import Image, Made, RawCoder, change, zstd_frame

# ---------------------------------------------------------------- the index


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


TENSOR_BYTES = 8 * 48  # of mixed_image

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


# ---------------------------------------------------------------- HEADER


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


# ---------------------------------------------------------------- TENSORS, EXTENTS, SOURCE

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
                      ("in_index", len(good_file()) - 70), ("wraps", (1 << 64) - 1)):
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
