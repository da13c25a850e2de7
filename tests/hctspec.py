#!/usr/bin/env python3
"""A plain decoder of the .hct format, written from codec/FORMAT.md and nothing else.

It proves the specification: whatever libhct reads, this must read to the same
bytes, and whatever this refuses, libhct must refuse with the same error.  It is
meant to be read next to FORMAT.md by somebody who writes another implementation;
the numbers in the comments are its sections.  The file is here, and codecs are in
hctspec_split.py, hctspec_tcq.py and hctspec_literal.py.

    python3 hctspec.py FILE.hct [-o OUT]

checks every checksum, digest and the SHA-256 of a file and writes the source file.
Needs numpy, xxhash and zstandard.
"""

import argparse
import hashlib
import pathlib
import struct
import sys
from dataclasses import dataclass

import numpy as np
from hctspec_bytes import SpecError, ceil_div, need, unzstd, xxh3
from hctspec_literal import CoefTables, LowrankTables, decode_coef, decode_lowrank
from hctspec_safetensors import (  # noqa: F401
    DTYPE_BITS,
    dtype_element,
    dtype_unit,
    parse_safetensors,
)
from hctspec_split import LAYOUTS, Tables, decode_split
from hctspec_tcq import TcqTables, decode_tcq, slots_of, trellis  # noqa: F401
from hctspec_values import FLOATS, rounded, transformed_back  # noqa: F401

KIB, MIB = 1 << 10, 1 << 20

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
