#!/usr/bin/env python3
"""A plain decoder of the .hct format, written from codec/FORMAT.md and nothing else.

It proves the specification: whatever libhct reads, this must read to the same
bytes, and whatever this refuses, libhct must refuse with the same error.  It is
meant to be read next to FORMAT.md, in the same order, by somebody who writes
another implementation; the numbers in the comments are its sections.

    python3 hctspec.py FILE.hct [-o OUT]

checks every checksum, digest and the SHA-256 of a file and writes the source file.
Needs numpy, xxhash and zstandard.
"""

import argparse
import hashlib
import json
import pathlib
import struct
import sys
from dataclasses import dataclass

import numpy as np
import xxhash
import zstandard

KIB, MIB = 1 << 10, 1 << 20


class SpecError(Exception):
    """A file breaks the specification; name is that of FORMAT.md section 5."""

    def __init__(self, name, message):
        super().__init__(f"{name}: {message}")
        self.name = name


def need(condition, name, message):
    if not condition:
        raise SpecError(name, message)


def xxh3(data):
    return xxhash.xxh3_64_intdigest(data)


def ceil_div(a, b):
    return -(-a // b)


def unzstd(data, size, what):
    """The content of exactly one zstd frame that says it holds size bytes."""
    need(data[:4] == b"\x28\xb5\x2f\xfd", "CORRUPT", f"{what}: not a zstd frame")
    try:
        declared = zstandard.get_frame_parameters(data).content_size
        # Checked before anything is allocated: a few bytes can declare terabytes.
        need(declared == size, "CORRUPT", f"{what}: zstd frame of {declared} bytes, not {size}")
        content = zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as e:
        raise SpecError("CORRUPT", f"{what}: {e}") from None
    need(len(content) == size, "CORRUPT", f"{what}: zstd frame lies about its size")
    return content


# ---------------------------------------------------------------- safetensors

# Bits of an element, by the name in the header.
DTYPE_BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8,
    "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}


def dtype_unit(dtype):
    """Bytes of an element; 1 for dtypes of less than a byte or unknown ones."""
    return max(1, DTYPE_BITS.get(dtype, 8) // 8)


def parse_safetensors(header, file_size):
    """[(name, dtype, shape, begin, end)] in the order of the data."""

    def check(condition, message):
        need(condition, "SAFETENSORS", message)

    def unique(pairs):
        check(len({k for k, _ in pairs}) == len(pairs), "a key occurs twice")
        return dict(pairs)

    def counts(value):
        return isinstance(value, list) and all(
            type(v) is int and 0 <= v < 1 << 64 for v in value)

    check(len(header) >= 8 and 8 + int.from_bytes(header[:8], "little") == len(header),
          "header length is wrong")
    check(header[8:9] == b"{", "the header does not begin with {")
    try:
        # Spaces may fill up the end.
        document = json.loads(header[8:].decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as e:
        raise SpecError("SAFETENSORS", f"not JSON: {e}") from None

    metadata = document.pop("__metadata__", {})
    check(isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values()),
          "__metadata__ is not a map of strings")
    tensors = []
    for name, info in document.items():
        check(isinstance(info, dict) and {"dtype", "shape", "data_offsets"} <= info.keys(),
              f"{name}: dtype, shape or data_offsets is missing")
        dtype, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
        check(isinstance(dtype, str), f"{name}: dtype")
        check(counts(shape), f"{name}: shape")
        check(counts(offsets) and len(offsets) == 2 and offsets[0] <= offsets[1],
              f"{name}: data_offsets")
        if dtype in DTYPE_BITS:
            elements = 1
            for d in shape:
                elements *= d
            check(elements * DTYPE_BITS[dtype] == 8 * (offsets[1] - offsets[0]),
                  f"{name}: shape and data_offsets disagree")
        tensors.append((name, dtype, shape, *offsets))
    tensors.sort(key=lambda t: (t[3], t[4]))  # stable: then in the order of the text
    position = 0
    for name, _, _, begin, end in tensors:
        check(begin == position, f"{name}: hole or overlap in the data")
        position = end
    check(len(header) + position == file_size, "the data do not fill the file")
    return tensors


# ---------------------------------------------------------------- 1. the file

MAGIC = bytes.fromhex("894843540D0A1A0A")
TRAILER_MAGIC = b"HCTEND\r\n"
INDEX_MAGIC = b"HCTINDEX"
HEADER, TENSORS, EXTENTS, PARAMS, SOURCE, PROVENANCE = range(1, 7)
SECTION_NAMES = {HEADER: "HEADER", TENSORS: "TENSORS", EXTENTS: "EXTENTS", PARAMS: "PARAMS",
                 SOURCE: "SOURCE", PROVENANCE: "PROVENANCE"}
RAW, ZSTD, SPLIT = range(3)
CODEC_NAMES = {RAW: "raw", ZSTD: "zstd", SPLIT: "split"}

MAX_HEADER, MAX_PARAMS, MAX_PROVENANCE = 100_000_008, 256 * MIB, 16 * MIB
MAX_SECTIONS, MAX_CHUNK, MAX_LAYERS = 64, 8 * MIB, 8


@dataclass
class Section:
    id: int
    encoding: int
    flags: int
    offset: int  # from the start of the index
    length: int
    decoded: int
    checksum: int


@dataclass
class Tensor:
    name: str
    dtype: str
    shape: list
    begin: int  # in the data region
    end: int
    codec: int
    layers: int
    flags: int
    chunk_bytes: int
    chunk_count: int
    first_extent: int
    tables_offset: int
    tables_length: int
    relative_squared_error: float


@dataclass
class Extent:
    offset: int
    length: int
    codec: int
    flags: int
    checksum: int
    digest: int


@dataclass
class Source:
    size: int
    mtime_sec: int
    mtime_nsec: int
    sha256: bytes


class File:
    """An .hct file in memory, its structures checked.

    header: bytes; tensors: [Tensor]; extents: [Extent]; params: bytes (the tables);
    source: Source; provenance: str; chunks: [(tensor number, chunk number in it)];
    version: (major, minor); sections: [Section].
    """

    def __init__(self, data):
        self.data = bytes(data)
        self._superblock()
        self._trailer()
        self._index()
        self._read_sections()
        self._read_tensors()
        self._read_extents()
        self.chunks = [(i, k) for i, t in enumerate(self.tensors) for k in range(t.chunk_count)]
        self._tables = {}

    # Within a structure: its magic, its checksum, and then what it says.

    def _superblock(self):
        data = self.data
        need(len(data) >= 128 and data[:8] == MAGIC, "NOT_HCT", "no superblock")
        major, minor, self.flags, self.source_size, self.header_length = struct.unpack_from(
            "<HHIQQ", data, 8)
        self.version = (major, minor)
        need(xxh3(data[:56]) == int.from_bytes(data[56:64], "little"), "CHECKSUM", "superblock")
        need(major <= 1, "VERSION", f"major version {major}")
        need(self.flags & 0xFFFF == 0, "UNSUPPORTED", f"superblock flags {self.flags:#x}")
        need(major == 1, "CORRUPT", "major version 0")

    def _trailer(self):
        t = self.data[-64:]
        (self.index_offset, self.index_length, self.head_checksum, length, major, minor
         ) = struct.unpack_from("<QQQQHH", t)
        need(t[56:] == TRAILER_MAGIC, "UNFINISHED", "no trailer")
        need(xxh3(t[:48]) == int.from_bytes(t[48:56], "little"), "CHECKSUM", "trailer")
        need(length == len(self.data), "UNFINISHED", f"{len(self.data)} bytes instead of {length}")
        need((major, minor) == self.version, "CORRUPT", "versions of superblock and trailer")
        need(self.index_offset >= 64 and self.index_length >= 32 and
             self.index_offset + self.index_length == len(self.data) - 64,
             "CORRUPT", "the index does not end at the trailer")

    def _index(self):
        index = self.index = self.data[self.index_offset:self.index_offset + self.index_length]
        count, _, length, _ = struct.unpack_from("<IIQQ", index, 8)
        head_end = 32 + 40 * count
        need(count <= MAX_SECTIONS, "LIMIT", f"{count} sections")
        need(head_end <= len(index), "CORRUPT", "section table exceeds the index")
        need(xxh3(index[:head_end]) == self.head_checksum, "CHECKSUM", "index head")
        need(index[:8] == INDEX_MAGIC, "CORRUPT", "index magic")
        need(length == self.index_length, "CORRUPT", "index length differs from the trailer's")
        self.sections = [Section(*struct.unpack_from("<IHHQQQQ", index, 32 + 40 * i))
                         for i in range(count)]
        limits = {HEADER: MAX_HEADER, PARAMS: MAX_PARAMS, PROVENANCE: MAX_PROVENANCE}
        seen = set()
        for s in self.sections:
            need(s.id in SECTION_NAMES or not s.flags & 1, "UNSUPPORTED",
                 f"unknown section {s.id}")
            need(s.offset >= head_end and s.offset + s.length <= len(index), "CORRUPT",
                 f"section {s.id} lies outside of the index")
            if s.id not in SECTION_NAMES:
                continue
            name = SECTION_NAMES[s.id]
            need(s.id not in seen, "CORRUPT", f"{name} occurs twice")
            need(s.encoding <= 1, "UNSUPPORTED", f"encoding of {name}")
            need(s.encoding == 0 or s.id != EXTENTS, "CORRUPT", f"encoding of {name}")
            need(s.encoding == 1 or s.length == s.decoded, "CORRUPT", f"lengths of {name}")
            need(s.decoded <= limits.get(s.id, s.decoded), "LIMIT", f"{name}: {s.decoded} bytes")
            need(s.encoding == 0 or s.length <= 2 * s.decoded + 4096, "LIMIT",
                 f"{name}: {s.length} stored bytes")
            seen.add(s.id)
        need(seen >= SECTION_NAMES.keys(), "CORRUPT", "a section is missing")

    def _read_sections(self):
        by_id = {s.id: s for s in self.sections}

        def content(id, size=None):
            """The decoded section; size is what it must have, where that is known."""
            section, name = by_id[id], SECTION_NAMES[id]
            need(size is None or section.decoded == size, "CORRUPT",
                 f"{name} has {section.decoded} bytes, not {size}")
            data = self.index[section.offset:section.offset + section.length]
            need(xxh3(data) == section.checksum, "CHECKSUM", name)
            # The length is known to be right, so a frame that promises more is never unpacked.
            return unzstd(data, section.decoded, name) if section.encoding == 1 else data

        self.header = content(HEADER, self.header_length)
        self._described = parse_safetensors(self.header, self.source_size)
        self._tensor_records = content(TENSORS, 48 * len(self._described))
        self._extent_records = content(EXTENTS)
        self.params = content(PARAMS)
        source = content(SOURCE, 64)
        self.source = Source(*struct.unpack_from("<QqI", source), source[24:56])
        need(self.source.size == self.source_size, "CORRUPT", "SOURCE and superblock disagree")
        need(self.source.mtime_nsec < 1_000_000_000, "CORRUPT", "nanoseconds")
        self.provenance = content(PROVENANCE).decode("utf-8", "replace")

    def _read_tensors(self):
        self.tensors = []
        next_extent = 0
        for i, described in enumerate(self._described):
            (codec, layers, flags, chunk, chunks, first, tables_offset, tables_length, _, error
             ) = struct.unpack_from("<HBBIQQQIId", self._tensor_records, 48 * i)
            t = Tensor(*described, codec, layers, flags, chunk, chunks, first, tables_offset,
                       tables_length, error)
            size = t.end - t.begin
            need(layers >= 1, "CORRUPT", f"{t.name}: no layers")
            need(layers <= MAX_LAYERS, "LIMIT", f"{t.name}: {layers} layers")
            need(chunk <= MAX_CHUNK, "LIMIT", f"{t.name}: chunks of {chunk} bytes")
            need((chunk == 0) == (size == 0) and chunk % dtype_unit(t.dtype) == 0, "CORRUPT",
                 f"{t.name}: chunks of {chunk} bytes")
            need(chunks == (ceil_div(size, chunk) if size else 0), "CORRUPT",
                 f"{t.name}: {chunks} chunks")
            need(first == next_extent, "CORRUPT", f"{t.name}: first extent")
            need(tables_offset + tables_length <= len(self.params), "CORRUPT",
                 f"{t.name}: tables lie outside of PARAMS")
            next_extent += chunks * layers
            self.tensors.append(t)
        need(len(self._extent_records) == 32 * next_extent, "CORRUPT", "number of extents")

    def _read_extents(self):
        self.extents = [Extent(*struct.unpack_from("<QIHHQQ", self._extent_records, p))
                        for p in range(0, len(self._extent_records), 32)]
        position = 64
        for t in self.tensors:
            for k in range(t.chunk_count):
                longest = 2 * self._chunk_length(t, k) + 4096
                for layer in range(t.layers):
                    e = self.extents[t.first_extent + k * t.layers + layer]
                    need(e.length >= 1, "CORRUPT", f"{t.name}: empty extent")
                    need(e.offset >= position and e.offset + e.length <= self.index_offset,
                         "CORRUPT", f"{t.name}: extent overlaps or lies outside of the file")
                    need(e.length <= longest, "LIMIT", f"{t.name}: extent of {e.length} bytes")
                    position = e.offset + e.length

    @staticmethod
    def _chunk_length(t, k):
        return min(t.chunk_bytes, t.end - t.begin - k * t.chunk_bytes)

    # ------------------------------------------------------------ decoding

    def decode_chunk(self, number):
        """The bytes of one chunk, numbered in the order of the data, digest checked."""
        i, k = self.chunks[number]
        t = self.tensors[i]
        what = f"{t.name}, chunk {k}"
        e = self.extents[t.first_extent + k * t.layers]
        need(t.flags == 0 and e.flags == 0, "UNSUPPORTED", f"{what}: flags")
        payload = self.data[e.offset:e.offset + e.length]
        need(xxh3(payload) == e.checksum, "CHECKSUM", what)
        need(e.codec in CODEC_NAMES, "UNSUPPORTED", f"{what}: codec {e.codec}")
        need(t.layers == 1, "CORRUPT", f"{what}: this codec has one layer")
        length = self._chunk_length(t, k)
        if e.codec == RAW:
            need(len(payload) == length, "CORRUPT", f"{what}: length")
            decoded = payload
        elif e.codec == ZSTD:
            decoded = decode_zstd(payload, length, what)
        else:
            tables = self.tables(i)
            layout = LAYOUTS[t.dtype]
            decoded = decode_split(payload, length, layout, tables, k * t.chunk_bytes // layout.W,
                                   what)
        need(xxh3(decoded) == e.digest, "DIGEST", what)
        return decoded

    def tables(self, i):
        """The tables of tensor i, which must have some."""
        t = self.tensors[i]
        if i not in self._tables:
            need(t.codec == SPLIT and t.dtype in LAYOUTS, "CORRUPT", f"{t.name}: no tables")
            data = self.params[t.tables_offset:t.tables_offset + t.tables_length]
            self._tables[i] = Tables(data, LAYOUTS[t.dtype])
        return self._tables[i]

    def read_all(self):
        """The source file; for lossless files its SHA-256 is checked, too."""
        whole = self.header + b"".join(map(self.decode_chunk, range(len(self.chunks))))
        if all(t.relative_squared_error == 0 for t in self.tensors):
            need(hashlib.sha256(whole).digest() == self.source.sha256, "DIGEST", "SHA-256")
        return whole


def open(path):
    return File(pathlib.Path(path).read_bytes())


# ---------------------------------------------------------------- 3. codecs


def decode_zstd(payload, length, what):
    stride = payload[0]
    need(stride in (1, 2, 4, 8) and length % stride == 0, "CORRUPT", f"{what}: stride {stride}")
    content = unzstd(payload[1:], length, what)
    planes = np.frombuffer(content, np.uint8).reshape(stride, length // stride)
    return planes.T.tobytes()


# ---------------------------------------------------------------- 4. split


@dataclass(frozen=True)
class Layout:
    """How split cuts an element: a row of the first table of section 4."""
    W: int  # bytes
    T: int  # tail bytes
    E: int  # exponent bits
    M: int  # mantissa bits in the head
    J: int  # of which are joint bits

    @property
    def P(self):
        return 1 + self.M - self.J


LAYOUTS = {
    "BF16": Layout(2, 0, 8, 7, 1),
    "F16": Layout(2, 1, 5, 2, 1),
    "F32": Layout(4, 2, 8, 7, 1),
    "C64": Layout(4, 2, 8, 7, 1),
    "F64": Layout(8, 6, 11, 4, 1),
    "F8_E5M2": Layout(1, 0, 5, 2, 1),
    "F8_E5M2FNUZ": Layout(1, 0, 5, 2, 1),
    "F8_E4M3": Layout(1, 0, 4, 3, 2),
    "F8_E4M3FNUZ": Layout(1, 0, 4, 3, 2),
}


class Tables:
    """The tables of a tensor, checked and spread out for look-up by (class, slot)."""

    def __init__(self, data, layout):
        need(len(data) >= 8, "CORRUPT", "tables are cut")
        self.classes, self.run_log2, self.segment_log2, _, period = struct.unpack_from(
            "<BBBBI", data)
        entries = 64 >> layout.J
        need(1 <= self.classes <= 16, "CORRUPT", f"{self.classes} classes")
        need(self.run_log2 <= 10, "CORRUPT", f"runs of 2^{self.run_log2} groups")
        need(10 <= self.segment_log2 <= 17, "CORRUPT", f"segments of 2^{self.segment_log2}")
        need(period <= 1 << 20, "CORRUPT", f"period {period}")
        need(len(data) == 8 + 2 * entries + 30 + 64 * self.classes + period, "CORRUPT",
             "length of the tables")
        at = 8
        self.exponents = np.frombuffer(data, "<u2", entries, at).astype(np.int64)
        at += 2 * entries
        self.rare = np.frombuffer(data, "<u2", 15, at).astype(np.int64)
        at += 30
        freq = np.frombuffer(data, np.uint8, 64 * self.classes, at).astype(np.int64)
        freq = freq.reshape(self.classes, 64)
        at += 64 * self.classes
        self.shifts = np.frombuffer(data, np.int8, period, at).astype(np.int64)
        need(max(self.exponents.max(), self.rare.max()) < 1 << layout.E, "CORRUPT",
             "an exponent is too big")
        need((freq.sum(axis=1) == 256).all(), "CORRUPT", "frequencies do not sum to 256")

        # Slots belong to symbols in the order of falling frequency.
        order = np.argsort(-freq, axis=1, kind="stable")
        self.symbol = np.stack([np.repeat(o, f[o]) for o, f in zip(order, freq)])
        self.freq = np.take_along_axis(freq, self.symbol, axis=1)
        falling = np.take_along_axis(freq, order, axis=1)
        cum = np.empty_like(freq)
        np.put_along_axis(cum, order, np.cumsum(falling, axis=1) - falling, axis=1)
        self.cum = np.take_along_axis(cum, self.symbol, axis=1)
        self.class_bits = (self.classes - 1).bit_length()


def bits_of(data, width):
    """The bit string data as unsigned numbers of width bits each; what is left is dropped."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little").astype(np.int64)
    count = len(bits) // width
    return bits[:count * width].reshape(count, width) @ (1 << np.arange(width))


class Parts:
    """Cuts a payload into its parts, one after the other."""

    def __init__(self, payload, what):
        self.payload, self.what, self.at = payload, what, 0

    def take(self, n):
        need(n <= len(self.payload) - self.at, "CORRUPT", f"{self.what}: payload is cut")
        self.at += n
        return self.payload[self.at - n:self.at]


def decode_split(payload, length, layout, tables, first_element, what):
    """The bytes of a chunk; first_element is the number of its first element in the tensor."""
    need(length % layout.W == 0, "CORRUPT", f"{what}: length is no multiple of the element's")
    n = length // layout.W
    segment = 1 << tables.segment_log2
    segments = ceil_div(n, segment)

    # Cut the payload.
    parts = Parts(payload, what)
    tail_encoding, tail_length = struct.unpack("<B3xI", parts.take(8))
    sizes = [struct.unpack("<3I", parts.take(12)) for _ in range(segments)]
    streams, exceptions, fields = [], [], []
    for i, (a_bytes, b_bytes, exception_bytes) in enumerate(sizes):
        m = min(segment, n - i * segment)
        groups = ceil_div(m, 64)
        runs = ceil_div(groups, 1 << tables.run_log2)
        states = np.frombuffer(parts.take(128), "<u2").reshape(2, 32)
        class_map = parts.take(ceil_div(runs * tables.class_bits, 8))
        if tables.class_bits:
            run_class = bits_of(class_map, tables.class_bits)[:runs]
            need((run_class < tables.classes).all(), "CORRUPT", f"{what}: class")
        else:
            run_class = np.zeros(runs, np.int64)
        group_class = np.repeat(run_class, 1 << tables.run_log2)[:groups]
        streams += [(states[0], group_class, parts.take(a_bytes)),
                    (states[1], group_class, parts.take(b_bytes))]
        exceptions.append((m, parts.take(exception_bytes)))
        f = bits_of(parts.take(8 * layout.P * groups), layout.P)
        # From positions to elements: position 2i is element i, 2i + 1 is element 32 + i.
        fields.append(f.reshape(groups, 32, 2).transpose(0, 2, 1).reshape(-1)[:m])
    tail = parts.take(tail_length)
    need(parts.at == len(payload), "CORRUPT", f"{what}: payload is not filled")

    # Symbols, and what they stand for.
    symbols = decode_substreams(streams, tables, what)
    per_segment = []
    for i, (m, _) in enumerate(exceptions):
        ab = np.concatenate([symbols[2 * i], symbols[2 * i + 1]], axis=1)  # groups x 64
        per_segment.append(ab.reshape(-1)[:m])
    symbol = np.concatenate(per_segment)
    field = np.concatenate(fields)
    exponent = tables.exponents[symbol >> layout.J]
    for i, (m, data) in enumerate(exceptions):
        if data:
            positions, values = decode_exceptions(data, m, layout, tables, what)
            exponent[i * segment + positions] = values
    if len(tables.shifts):
        exponent += tables.shifts[(first_element + np.arange(n)) % len(tables.shifts)]
    exponent %= 1 << layout.E

    # Put the elements together.
    J, P, E, M = layout.J, layout.P, layout.E, layout.M
    head = (field >> (P - 1)) << (E + M)
    head |= exponent << M
    head |= symbol % (1 << J) << (M - J)
    head |= field % (1 << (P - 1))
    out = np.empty((n, layout.W), np.uint8)
    need(tail_encoding in (0, 1), "CORRUPT", f"{what}: tail encoding {tail_encoding}")
    if tail_encoding == 1:
        tail = unzstd(tail, n * layout.T, what)
    need(len(tail) == n * layout.T, "CORRUPT", f"{what}: length of the tail")
    out[:, :layout.T] = np.frombuffer(tail, np.uint8).reshape(n, layout.T)
    for byte in range(layout.W - layout.T):
        out[:, layout.T + byte] = head >> (8 * byte) & 255
    return out.tobytes()


def decode_substreams(streams, tables, what):
    """streams: [(32 start states, class of each group, bytes)].

    Returns the symbols of each as an array of groups x 32.  All substreams move on
    together, group by group: one row of x for each, one column for each lane.
    """
    groups = np.array([len(c) for _, c, _ in streams])
    steps = groups.max()
    x = np.stack([s for s, _, _ in streams]).astype(np.int64)
    need((x >= 256).all(), "CORRUPT", f"{what}: start state below 256")
    group_class = np.zeros((len(streams), steps), np.int64)
    for i, (_, c, _) in enumerate(streams):
        group_class[i, :len(c)] = c
    # The runs of bytes side by side; a substream that reads beyond its own is found below.
    ends = np.cumsum([len(b) for _, _, b in streams])
    at = ends - [len(b) for _, _, b in streams]
    data = np.frombuffer(b"".join(b for _, _, b in streams) + bytes(32), np.uint8).astype(np.int64)

    symbols = np.zeros((len(streams), steps, 32), np.int64)
    for step in range(steps):
        rows = np.nonzero(groups > step)[0]  # a last, shorter segment ends before the others
        k = group_class[rows, step][:, None]
        slot = x[rows] % 256
        symbols[rows, step] = tables.symbol[k, slot]
        y = tables.freq[k, slot] * (x[rows] >> 8) + slot - tables.cum[k, slot]
        # Lanes that need a byte take the next ones in the order of their numbers.
        hungry = y < 256
        where = at[rows][:, None] + np.cumsum(hungry, axis=1) - 1
        byte = data[np.clip(where, 0, len(data) - 1)]
        x[rows] = np.where(hungry, y << 8 | byte, y)
        at[rows] += hungry.sum(axis=1)
    need((x == 256).all(), "CORRUPT", f"{what}: a final state is not 256")
    need((at == ends).all(), "CORRUPT", f"{what}: a substream does not use its bytes")
    return [s[:g] for s, g in zip(symbols, groups)]


class BitString:
    """Takes codes from a bit string, one after the other."""

    def __init__(self, data, what):
        self.bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little").tobytes()
        self.at, self.what = 0, what

    def number(self, width):
        bits = self.bits[self.at:self.at + width]
        need(len(bits) == width, "CORRUPT", f"{self.what}: exceptions are cut")
        self.at += width
        return sum(bit << i for i, bit in enumerate(bits))

    def zeros(self, most):
        """The number of zeros before a one, which is taken too; no one follows `most` zeros."""
        one = self.bits.find(1, self.at, self.at + most)
        if one < 0:
            need(self.number(most) == 0, "CORRUPT", self.what)
            return most
        count = one - self.at
        self.at = one + 1
        return count


def decode_exceptions(data, m, layout, tables, what):
    """Positions in the segment, and exponents before the shift."""
    need(len(data) >= 5, "CORRUPT", f"{what}: exceptions are cut")
    count, rice = struct.unpack_from("<IB", data)
    need(1 <= count <= m, "CORRUPT", f"{what}: {count} exceptions")
    need(rice <= 15, "CORRUPT", f"{what}: Rice parameter {rice}")
    bits = BitString(data[5:], what)
    positions, exponents, position = [], [], -1
    for _ in range(count):
        q = bits.zeros(24)
        gap = (q << rice) + bits.number(rice) if q < 24 else bits.number(17)
        position += gap + 1
        need(position < m, "CORRUPT", f"{what}: exception beyond the segment")
        index = bits.zeros(15)
        positions.append(position)
        exponents.append(tables.rare[index] if index < 15 else bits.number(layout.E))
    rest = bits.bits[bits.at:]
    need(len(rest) < 8 and 1 not in rest, "CORRUPT", f"{what}: bits behind the exceptions")
    return np.array(positions), np.array(exponents)


# ---------------------------------------------------------------- command line


def main():
    parser = argparse.ArgumentParser(description="decode and verify an .hct file")
    parser.add_argument("file")
    parser.add_argument("-o", "--output", help="write the source file here")
    args = parser.parse_args()
    try:
        f = open(args.file)
        whole = f.read_all()
    except SpecError as e:
        print(f"{args.file}: {e}", file=sys.stderr)
        return 1
    if args.output:
        pathlib.Path(args.output).write_bytes(whole)
    print(f"{args.file}: {len(f.tensors)} tensors, {len(f.chunks)} chunks, {len(f.data)} bytes, "
          f"decoded {len(whole)} bytes, all sums match")
    return 0


if __name__ == "__main__":
    sys.exit(main())
