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
import math
import pathlib
import struct
import sys
from dataclasses import dataclass

import numpy as np
import xxhash
import zstandard

KIB, MIB = 1 << 10, 1 << 20


class SpecError(Exception):
    """A file breaks the specification; name is that of FORMAT.md section 8."""

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


def dtype_element(dtype):
    """The same, but the two halves of a complex number are elements of their own."""
    return 4 if dtype == "C64" else dtype_unit(dtype)


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
RAW, ZSTD, SPLIT, TCQ, COEF, LOWRANK = range(6)
CODEC_LAYERS = {RAW: 1, ZSTD: 1, SPLIT: 1, TCQ: 4, COEF: 1, LOWRANK: 1}  # at most

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

    def decode_chunk(self, number, layers=None):
        """The bytes of one chunk, numbered in the order of the data, digest checked.

        layers: after how many of its layers to stop; all of them unless it is given.
        """
        i, k = self.chunks[number]
        t = self.tensors[i]
        what = f"{t.name}, chunk {k}"
        first = t.first_extent + k * t.layers
        extents = self.extents[first:first + (layers or t.layers)]
        need(t.flags == 0, "UNSUPPORTED", f"{what}: tensor flags")
        payloads = []
        for e in extents:
            need(e.flags == 0, "UNSUPPORTED", f"{what}: extent flags")
            payloads.append(self.data[e.offset:e.offset + e.length])
            need(xxh3(payloads[-1]) == e.checksum, "CHECKSUM", what)
        codec = extents[0].codec
        need(codec in CODEC_LAYERS, "UNSUPPORTED", f"{what}: codec {codec}")
        need(all(e.codec == codec for e in extents), "UNSUPPORTED", f"{what}: several codecs")
        need(t.layers <= CODEC_LAYERS[codec], "UNSUPPORTED", f"{what}: {t.layers} layers")
        length = self._chunk_length(t, k)
        first_element = k * t.chunk_bytes // dtype_element(t.dtype)
        if codec == RAW:
            need(len(payloads[0]) == length, "CORRUPT", f"{what}: length")
            decoded = payloads[0]
        elif codec == ZSTD:
            decoded = decode_zstd(payloads[0], length, what)
        elif codec == SPLIT:
            decoded = decode_split(payloads[0], length, LAYOUTS.get(t.dtype),
                                   self.tables(i, SPLIT), first_element, what)
        elif codec == TCQ:
            decoded = decode_tcq(payloads, length, FLOATS.get(t.dtype), self.tables(i, TCQ),
                                 first_element, what)
        else:
            decode = decode_coef if codec == COEF else decode_lowrank
            decoded = decode(payloads[0], length, FLOATS.get(t.dtype), self.tables(i, codec),
                             first_element, what)
        need(xxh3(decoded) == extents[-1].digest, "DIGEST", what)
        return decoded

    def tables(self, i, codec):
        """The tables of tensor i, which must be those of this codec."""
        t = self.tensors[i]
        need(t.codec == codec, "CORRUPT", f"{t.name}: no tables of codec {codec}")
        if i not in self._tables:
            need(t.dtype in (LAYOUTS if codec == SPLIT else FLOATS), "CORRUPT",
                 f"{t.name}: codec {codec} does not code {t.dtype}")
            data = self.params[t.tables_offset:t.tables_offset + t.tables_length]
            self._tables[i] = (Tables(data, LAYOUTS[t.dtype]) if codec == SPLIT
                               else TcqTables(data, t.layers) if codec == TCQ
                               else CoefTables(data) if codec == COEF else LowrankTables(data))
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


def take_class_map(parts, groups, run_log2, classes):
    """The class of each group of a segment."""
    runs, width = ceil_div(groups, 1 << run_log2), (classes - 1).bit_length()
    data = parts.take(ceil_div(runs * width, 8))
    run_class = bits_of(data, width)[:runs] if width else np.zeros(runs, np.int64)
    need((run_class < classes).all(), "CORRUPT", f"{parts.what}: class")
    return np.repeat(run_class, 1 << run_log2)[:groups]


def in_order(values):
    """From positions to elements: position 2i is element i, 2i + 1 is element 32 + i."""
    return values.reshape(-1, 32, 2).transpose(0, 2, 1).reshape(-1)


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
        states = np.frombuffer(parts.take(128), "<u2").reshape(2, 32)
        group_class = take_class_map(parts, groups, tables.run_log2, tables.classes)
        streams += [(states[0], group_class, parts.take(a_bytes)),
                    (states[1], group_class, parts.take(b_bytes))]
        exceptions.append((m, parts.take(exception_bytes)))
        f = bits_of(parts.take(8 * layout.P * groups), layout.P)
        fields.append(in_order(f)[:m])
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
    group_class = np.zeros((len(streams), steps), np.int64)
    for i, (_, c, _) in enumerate(streams):
        group_class[i, :len(c)] = c
    lanes = Lanes([s for s, _, _ in streams], [b for _, _, b in streams], what)
    symbols = np.zeros((len(streams), steps, 32), np.int64)
    for step in range(steps):
        rows = np.nonzero(groups > step)[0]  # a last, shorter segment ends before the others
        k = group_class[rows, step][:, None]
        slot = lanes.x[rows] % 256
        symbols[rows, step] = tables.symbol[k, slot]
        lanes.move(rows, tables.freq[k, slot], slot - tables.cum[k, slot])
    lanes.finish()
    return [s[:g] for s, g in zip(symbols, groups)]


class Lanes:
    """The rANS states of all substreams, a row of 32 for each, and their runs of bytes."""

    def __init__(self, states, runs, what):
        self.x, self.what = np.stack(states).astype(np.int64), what
        need((self.x >= 256).all(), "CORRUPT", f"{what}: start state below 256")
        # The runs side by side; a substream that reads beyond its own is found in the end.
        lengths = [len(r) for r in runs]
        self.ends = np.cumsum(lengths)
        self.at = self.ends - lengths
        self.data = np.frombuffer(b"".join(runs) + bytes(32), np.uint8).astype(np.int64)

    def move(self, rows, freq, rank):
        """The step of some substreams behind symbols of these frequencies, at these ranks."""
        y = freq * (self.x[rows] >> 8) + rank
        # Lanes that need a byte take the next ones in the order of their numbers.
        hungry = y < 256
        where = self.at[rows][:, None] + np.cumsum(hungry, axis=1) - 1
        byte = self.data[np.clip(where, 0, len(self.data) - 1)]
        self.x[rows] = np.where(hungry, y << 8 | byte, y)
        self.at[rows] += hungry.sum(axis=1)

    def finish(self):
        need((self.x == 256).all(), "CORRUPT", f"{self.what}: a final state is not 256")
        need((self.at == self.ends).all(), "CORRUPT",
             f"{self.what}: a substream does not use its bytes")


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

    def gap(self, rice):
        q = self.zeros(24)
        return (q << rice) + self.number(rice) if q < 24 else self.number(17)

    def finish(self):
        rest = self.bits[self.at:]
        need(len(rest) < 8 and 1 not in rest, "CORRUPT",
             f"{self.what}: bits behind the exceptions")


def decode_exceptions(data, m, layout, tables, what):
    """Positions in the segment, and exponents before the shift."""
    need(len(data) >= 5, "CORRUPT", f"{what}: exceptions are cut")
    count, rice = struct.unpack_from("<IB", data)
    need(1 <= count <= m, "CORRUPT", f"{what}: {count} exceptions")
    need(rice <= 15, "CORRUPT", f"{what}: Rice parameter {rice}")
    bits = BitString(data[5:], what)
    positions, exponents, position = [], [], -1
    for _ in range(count):
        position += bits.gap(rice) + 1
        need(position < m, "CORRUPT", f"{what}: exception beyond the segment")
        index = bits.zeros(15)
        positions.append(position)
        exponents.append(tables.rare[index] if index < 15 else bits.number(layout.E))
    bits.finish()
    return np.array(positions), np.array(exponents)


# ---------------------------------------------------------------- 5. tcq


@dataclass(frozen=True)
class Float:
    """A floating-point dtype that tcq codes."""
    W: int  # bytes
    E: int  # exponent bits
    M: int  # mantissa bits
    bias: int
    largest: float  # finite value
    signed_zero: bool = True


FLOATS = {
    "BF16": Float(2, 8, 7, 127, (2 - 2.0**-7) * 2.0**127),
    "F16": Float(2, 5, 10, 15, 65504.0),
    "F32": Float(4, 8, 23, 127, (2 - 2.0**-23) * 2.0**127),
    "F64": Float(8, 11, 52, 1023, sys.float_info.max),
    "F8_E5M2": Float(1, 5, 2, 15, 57344.0),
    "F8_E4M3": Float(1, 4, 3, 7, 448.0),
    "F8_E5M2FNUZ": Float(1, 5, 2, 16, 57344.0, False),
    "F8_E4M3FNUZ": Float(1, 4, 3, 8, 240.0, False),
}


class TcqTables:
    """The tables of a tensor, checked."""

    def __init__(self, data, layers):
        parts = Parts(data, "tables")
        count, rows_log2, columns_log2, self.segment_log2, self.columns = struct.unpack(
            "<BBBBI", parts.take(8))
        need(1 <= count <= 4 and count == layers, "CORRUPT", f"{count} layers")
        need(rows_log2 <= 6 and columns_log2 <= 6, "CORRUPT",
             f"tiles of 2^{rows_log2} x 2^{columns_log2}")
        need(10 <= self.segment_log2 <= 17, "CORRUPT", f"segments of 2^{self.segment_log2}")
        need(self.columns >= 1, "CORRUPT", "no columns")
        self.tile = 1 << rows_log2, 1 << columns_log2
        need(self.tile == (1, 1) or self.columns <= 1 << 20, "CORRUPT", f"{self.columns} columns")
        need(self.columns % self.tile[1] == 0, "CORRUPT",
             f"tiles of {self.tile[1]} columns do not divide {self.columns}")
        self.layers = [TcqLayer(parts, self.columns) for _ in range(count)]
        need(parts.at == len(data), "CORRUPT", "length of the tables")


class TcqLayer:
    """The tables of a layer, spread out for look-up by (row class, column class, parity, slot)."""

    def __init__(self, parts, columns):
        states_log2, Q, self.classes, self.run_log2, self.raw_bits, step = struct.unpack(
            "<BBBBB3xf", parts.take(12))
        need(3 <= states_log2 <= 5, "CORRUPT", f"2^{states_log2} trellis states")
        need(Q in (1, 2, 4), "CORRUPT", f"{Q} column classes")
        need(1 <= self.classes <= 16, "CORRUPT", f"{self.classes} row classes")
        need(self.run_log2 <= 10, "CORRUPT", f"runs of 2^{self.run_log2} groups")
        need(self.raw_bits <= 7, "CORRUPT", f"{self.raw_bits} raw bits")
        need(2.0**-100 <= step <= 2.0**100, "CORRUPT", f"step {step}")  # and so not NaN
        need(Q == 1 or columns <= 1 << 20, "CORRUPT", f"{columns} columns")
        self.step = np.float32(step)
        self.next = trellis(states_log2)
        self.offset = np.zeros(64, np.int64)
        if self.raw_bits == 0:
            self.offset[:] = np.frombuffer(parts.take(64), np.int8)
        freq = np.frombuffer(parts.take(64 * Q * self.classes), np.uint8).astype(np.int64)
        freq = freq.reshape(self.classes, Q, 2, 32)
        need((freq.sum(axis=3) == 256).all(), "CORRUPT", "frequencies do not sum to 256")
        slots = np.array([slots_of(f) for f in freq.reshape(-1, 32).tolist()])
        self.symbol = slots[:, 0].reshape(self.classes, Q, 2, 256)
        self.rank = slots[:, 1].reshape(self.classes, Q, 2, 256)
        self.freq = np.take_along_axis(freq, self.symbol, axis=3)
        width = Q.bit_length() - 1
        packed = parts.take(ceil_div(columns * width, 8))
        self.column_class = bits_of(packed, width)[:columns] if width else None


def slots_of(freq):
    """The symbols of the 256 slots of an alias table, and their ranks."""
    left, h, a = list(freq), [8] * 32, [None] * 32
    small = [s for s in range(32) if freq[s] < 8]
    large = [s for s in range(32) if freq[s] > 8]
    while small:
        i = small.pop(0)
        h[i] = left[i]
        j = a[i] = large[0]
        left[j] -= 8 - h[i]
        if left[j] <= 8:
            large.pop(0)
            if left[j] < 8:
                small.append(j)
    symbol, rank = [], []
    n = list(h)
    for i in range(32):
        symbol += [i] * h[i] + [a[i]] * (8 - h[i])
        rank += range(h[i])
        if h[i] < 8:
            rank += range(n[a[i]], n[a[i]] + 8 - h[i])
            n[a[i]] += 8 - h[i]
    return symbol, rank


def trellis(states_log2):
    """next[t][z]."""
    g, f = {3: (0o13, 0o04), 4: (0o23, 0o04), 5: (0o45, 0o10)}[states_log2]
    return np.array([[(t >> 1) ^ (g >> 1 if t % 2 else 0) ^ (f >> 1 if z else 0)
                      for z in (0, 1)] for t in range(1 << states_log2)]) % (1 << states_log2)


def decode_tcq(payloads, length, dtype, tables, first_element, what):
    """The bytes of a chunk, from its first layers.

    first_element is the number of the chunk's first element in the tensor.
    """
    n = length // dtype.W
    C, (R, S) = tables.columns, tables.tile
    need_whole_tiles(n, C, R, S, first_element, what)
    value = None
    for payload, layer in zip(payloads, tables.layers):
        v = decode_tcq_layer(payload, n, layer, tables, first_element, what)
        value = v if value is None else value + v
    with np.errstate(all="ignore"):  # a hostile file may lead to infinities
        return rounded(transformed_back(value, C, R, S), dtype)


def need_whole_tiles(n, C, R, S, first_element, what):
    if R > 1:
        need(n % (R * C) == 0 and first_element % C == 0, "CORRUPT",
             f"{what}: tiles of {R} rows do not fit")
    need(n % S == 0 and first_element % S == 0, "CORRUPT",
         f"{what}: tiles of {S} columns do not fit")


def decode_tcq_layer(payload, n, layer, tables, first_element, what):
    """The values of one layer: n float32."""
    segment, b = 1 << tables.segment_log2, layer.raw_bits
    segments = ceil_div(n, segment)
    parts = Parts(payload, what)
    sizes = [struct.unpack("<3I", parts.take(12)) for _ in range(segments)]
    streams, exceptions = [], []
    for i, (a_bytes, b_bytes, exception_bytes) in enumerate(sizes):
        m = min(segment, n - i * segment)
        groups = ceil_div(m, 64)
        states = np.frombuffer(parts.take(128), "<u2").reshape(2, 32)
        row_class = take_class_map(parts, groups, layer.run_log2, layer.classes)
        runs = parts.take(a_bytes), parts.take(b_bytes)
        exceptions.append((m, parts.take(exception_bytes)))
        raw = np.zeros(64 * groups, np.int64)
        if b:
            # b words of 64 bits for each group; bit j of word i belongs to position j.
            words = bits_of(parts.take(8 * b * groups), 1).reshape(groups, b, 64)
            raw = in_order((words << np.arange(b)[:, None]).sum(axis=1))
        column_class = np.zeros(64 * groups, np.int64)
        if layer.column_class is not None:
            elements = first_element + i * segment + np.arange(64 * groups)
            column_class = layer.column_class[elements % tables.columns]
        for ab in (0, 1):
            streams.append((states[ab], row_class, column_class.reshape(groups, 2, 32)[:, ab],
                            raw.reshape(groups, 2, 32)[:, ab], runs[ab]))
    need(parts.at == len(payload), "CORRUPT", f"{what}: payload is not filled")

    points = decode_trellis(streams, layer, what)
    value = np.empty(n, np.float32)
    for i, (m, data) in enumerate(exceptions):
        ab = np.concatenate([points[2 * i], points[2 * i + 1]], axis=1)  # groups x 64
        v = ab.reshape(-1)[:m].astype(np.float32) * (layer.step * np.float32(2.0**-6))
        if data:
            positions, e = decode_tcq_exceptions(data, m, what)
            v[positions] += e.astype(np.float32) * layer.step
        value[i * segment:i * segment + m] = v
    return value


def decode_trellis(streams, layer, what):
    """streams: [(32 start states, row class of each group, column class of each element, its raw
    bits, bytes)].  Returns the points n of each as an array of groups x 32.
    """
    groups = np.array([len(row_class) for _, row_class, _, _, _ in streams])
    steps = groups.max()

    def side_by_side(arrays):
        out = np.zeros((len(arrays), steps, *arrays[0].shape[1:]), np.int64)
        for i, a in enumerate(arrays):
            out[i, :len(a)] = a
        return out

    row_class = side_by_side([s[1] for s in streams])
    column_class = side_by_side([s[2] for s in streams])
    raw = side_by_side([s[3] for s in streams])
    lanes = Lanes([s[0] for s in streams], [s[4] for s in streams], what)
    t = np.zeros((len(streams), 32), np.int64)
    points = np.zeros((len(streams), steps, 32), np.int64)
    b = layer.raw_bits
    for step in range(steps):
        rows = np.nonzero(groups > step)[0]
        p = t[rows] % 2
        slot = lanes.x[rows] % 256
        where = row_class[rows, step][:, None], column_class[rows, step], p, slot
        s = layer.symbol[where]
        lanes.move(rows, layer.freq[where], layer.rank[where])
        c = (s << b) + raw[rows, step]
        t[rows] = layer.next[t[rows], c % 2]
        # Offsets are 0 when there are raw bits.
        points[rows, step] = 64 * (2 * (c - (16 << b)) + p) + layer.offset[32 * p + s]
    lanes.finish()
    return [x[:g] for x, g in zip(points, groups)]


def decode_tcq_exceptions(data, m, what):
    """Positions in the segment, and the numbers e."""
    need(len(data) >= 6, "CORRUPT", f"{what}: exceptions are cut")
    count, rice, low = struct.unpack_from("<IBB", data)
    need(1 <= count <= m, "CORRUPT", f"{what}: {count} exceptions")
    need(rice <= 15 and low <= 15, "CORRUPT", f"{what}: parameters of the exceptions")
    bits = BitString(data[6:], what)
    positions, numbers, position = [], [], -1
    for _ in range(count):
        position += bits.gap(rice) + 1
        need(position < m, "CORRUPT", f"{what}: exception beyond the segment")
        negative = bits.number(1)
        i = bits.zeros(9)
        need(i < 9, "CORRUPT", f"{what}: exception too big")
        magnitude = ((1 << i) - 1 + bits.number(i) << low) + bits.number(low)
        positions.append(position)
        numbers.append(-magnitude if negative else magnitude)
    bits.finish()
    return np.array(positions), np.array(numbers)


def transformed_back(value, C, R, S):
    """The transform of a chunk of a matrix with C columns, in tiles of R x S."""
    half = np.float32(math.sqrt(0.5))
    if R > 1:
        tiles = value.reshape(-1, R, C).swapaxes(0, 1).copy()  # row in the tile first
        tiles[0] *= half
        value = transform(tiles).swapaxes(0, 1).reshape(-1)
    if S > 1:
        tiles = value.reshape(-1, S).T.copy()  # column in the tile first
        tiles[0] *= half
        value = transform(tiles).T.reshape(-1)
    return value


def transform(X):
    """T_N along the first axis of an array of float32."""
    N = len(X)
    if N == 1:
        return X
    H = X[1::2].copy()
    H[1:] += X[1:-1:2]
    g, h = transform(X[0::2]), transform(H)
    c = [1 / (2 * math.cos(math.pi * (2 * i + 1) / (2 * N))) for i in range(N // 2)]
    t = h * np.array(c, np.float32).reshape(-1, *[1] * (X.ndim - 1))
    return np.concatenate([g + t, (g - t)[::-1]])


def rounded(value, dtype):
    """float32 values as the bytes of a dtype."""
    # float64 holds every float32, and every quotient here exactly.
    x = np.where(np.isnan(value), 0, value.astype(np.float64))
    x = np.clip(x, -dtype.largest, dtype.largest)
    least = 1 - dtype.bias
    exponent = np.where(x == 0, least, np.maximum(np.frexp(x)[1] - 1, least)).astype(np.int64)
    # |x| as a number of units of the last place, which are 2^(exponent - M): rint is to even.
    units = np.rint(np.ldexp(np.abs(x), dtype.M - exponent)).astype(np.int64)
    # A carry out of the mantissa goes where it belongs, and so does a subnormal number.
    bits = (exponent - least << dtype.M) + units
    sign = np.signbit(x) & ((bits != 0) | dtype.signed_zero)
    bits = bits.astype(np.uint64) | sign.astype(np.uint64) << np.uint64(dtype.E + dtype.M)
    return bits.astype(f"<u{dtype.W}").tobytes()


# ---------------------------------------------------------------- 6. coef


class CoefTables:
    """The tables of a tensor, checked."""

    def __init__(self, data):
        need(len(data) == 8, "CORRUPT", "length of the tables")
        rows_log2, columns_log2, self.exponent, self.columns = struct.unpack("<BBbxI", data)
        need(rows_log2 <= 6 and columns_log2 <= 6, "CORRUPT",
             f"tiles of 2^{rows_log2} x 2^{columns_log2}")
        need(-100 <= self.exponent <= 60, "CORRUPT", f"exponent {self.exponent}")
        need(self.columns >= 1, "CORRUPT", "no columns")
        self.tile = 1 << rows_log2, 1 << columns_log2
        need(self.tile == (1, 1) or self.columns <= 1 << 20, "CORRUPT", f"{self.columns} columns")
        need(self.columns % self.tile[1] == 0, "CORRUPT",
             f"tiles of {self.tile[1]} columns do not divide {self.columns}")


def decode_coef(payload, length, dtype, tables, first_element, what):
    """The bytes of a chunk."""
    n = length // dtype.W
    C, (R, S) = tables.columns, tables.tile
    need_whole_tiles(n, C, R, S, first_element, what)
    parts = Parts(payload, what)
    form, half_form, mask_bytes, half_bytes = struct.unpack("<BBxxII", parts.take(12))
    need(form <= 2 and half_form <= 3, "CORRUPT", f"{what}: form of a mask")
    kept = take_mask(parts.take(mask_bytes), form, n, what)
    k = int(kept.sum())
    halves = take_mask(parts.take(half_bytes), half_form, k, what) & (half_form != 0)
    q = k - int(halves.sum())
    scale = take_halves(parts, ceil_div(q, 32))
    number = bits_of(parts.take(ceil_div(q, 2)), 4)[:q]
    half = take_halves(parts, k - q)
    need(parts.at == len(payload), "CORRUPT", f"{what}: length of the payload")
    power = np.float32(2.0**tables.exponent)
    dense = np.zeros(k, np.float32)
    signed = np.where(number < 8, number, number - 16).astype(np.float32)
    dense[~halves] = signed * np.repeat(scale * power, 32)[:q]
    dense[halves] = half * power
    value = np.zeros(n, np.float32)
    value[kept] = dense
    return rounded(transformed_back(value, C, R, S), dtype)


def take_mask(data, form, n, what):
    """n booleans; without a mask all of them are true."""
    size = ceil_div(n, 8)
    if form in (0, 3):
        need(not data, "CORRUPT", f"{what}: a mask where there is none")
        return np.ones(n, bool)
    if form == 2:
        data = unzstd(data, size, what)
    need(len(data) == size, "CORRUPT", f"{what}: length of a mask")
    return bits_of(data, 1)[:n].astype(bool)


def take_halves(parts, count):
    """FP16 numbers as float32."""
    numbers = np.frombuffer(parts.take(2 * count), "<f2").astype(np.float32)
    need(np.isfinite(numbers).all(), "CORRUPT", f"{parts.what}: a number that is not finite")
    return numbers


# ---------------------------------------------------------------- 7. lowrank


class LowrankTables:
    """The tables of a tensor, checked, and V."""

    def __init__(self, data):
        parts = Parts(data, "tables")
        self.rank, self.columns, v_tables, u_tables, v_length = struct.unpack(
            "<5I", parts.take(20))
        need(1 <= self.rank <= 1024 and self.rank <= self.columns, "CORRUPT",
             f"rank {self.rank} of {self.columns} columns")
        size = self.rank * self.columns
        need(size <= 1 << 22, "CORRUPT", f"V of {size} numbers")
        scale = np.frombuffer(parts.take(4 * self.rank), "<f4")
        need(np.isfinite(scale).all(), "CORRUPT", "a scale that is not finite")
        v_tables, u_tables = parts.take(v_tables), parts.take(u_tables)
        payload = parts.take(v_length)
        need(parts.at == len(data), "CORRUPT", "length of the tables")
        self.u = TcqTables(u_tables, 1)
        v = decode_tcq([payload], 4 * size, FLOATS["F32"], TcqTables(v_tables, 1), 0, "V")
        with np.errstate(all="ignore"):
            self.v = np.frombuffer(v, "<f4").reshape(self.rank, -1) * scale[:, None]


def decode_lowrank(payload, length, dtype, tables, first_element, what):
    """The bytes of a chunk."""
    n, C, r = length // dtype.W, tables.columns, tables.rank
    need(n % C == 0 and first_element % C == 0, "CORRUPT", f"{what}: not whole rows")
    u = decode_tcq([payload], n // C * r * 4, FLOATS["F32"], tables.u, first_element // C * r, what)
    u = np.frombuffer(u, "<f4").reshape(-1, r)
    with np.errstate(all="ignore"):  # a hostile file may lead to infinities
        w = u[:, :1] * tables.v[0]
        for k in range(1, r):
            w = w + u[:, k:k + 1] * tables.v[k]
        return rounded(w.reshape(-1), dtype)


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
