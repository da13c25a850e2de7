"""Writes .hct files from codec/FORMAT.md, for tests: slow, plain, and free to be odd.

libhct must read what this makes as hctspec.py does: unusual but valid files that
mkhct would not write, and files that are wrong in one place behind right checksums.

    coder = SplitCoder("BF16", data, classes=4, period=96)
    image = Image.of([Made("w", "BF16", [64, 96], data, 4096, coder)])
    image.build()                                        # a valid file
    image.extents[0].payload = b"..."                    # another payload, right checksum
    image.build(superblock=lambda b: b.__setitem__(8, 2)) # before its checksum is made

Tensors of tcq come from hctmake_tcq.py.

build() takes one function for each structure, which may change its bytes in place:
superblock (the first 56 bytes), trailer (the first 48), index (its 32-byte header),
table (the section table), and one for each section by its name in lower case (decoded).
"""

import hashlib
import json
import math
import struct
from dataclasses import dataclass, field

import hctspec
import numpy as np
import zstandard
from hctspec import LAYOUTS, RAW, SECTION_NAMES, SPLIT, ZSTD, ceil_div, xxh3


def zstd_frame(data, level=3):
    return zstandard.ZstdCompressor(level=level).compress(data)


def zstd_frame_claiming(data, size):
    """A frame whose header claims size bytes, whatever data are."""
    # Content size of 8 bytes, one raw or RLE block as it comes, no checksum.
    blocks = zstd_frame(data)
    parameters = zstandard.get_frame_parameters(blocks)
    flags = blocks[4]
    single = flags >> 5 & 1
    size_bytes = {0: single, 1: 2, 2: 4, 3: 8}[flags >> 6]
    body = blocks[5 + (0 if single else 1) + size_bytes:]
    window_log = max(10, (parameters.window_size - 1).bit_length())
    return (b"\x28\xb5\x2f\xfd" + bytes([3 << 6 | flags & 4, (window_log - 10) << 3])
            + struct.pack("<Q", size) + body)


# ---------------------------------------------------------------- split


@dataclass
class Segment:
    states: list  # of 64: 32 of A, 32 of B
    class_map: bytes
    a: bytes
    b: bytes
    exceptions: bytes
    fields: bytes


@dataclass
class Payload:
    """A split payload in its parts, so that tests can bend one of them."""
    segments: list
    tail: bytes
    tail_encoding: int = 0
    reserved: bytes = bytes(3)

    def pack(self):
        out = struct.pack("<B3sI", self.tail_encoding, self.reserved, len(self.tail))
        for s in self.segments:
            out += struct.pack("<3I", len(s.a), len(s.b), len(s.exceptions))
        for s in self.segments:
            out += struct.pack("<64H", *s.states)
            out += s.class_map + s.a + s.b + s.exceptions + s.fields
        return out + self.tail


def cumulative(freq):
    """The first slot of each symbol; slots go to symbols in order of falling frequency."""
    cum, at = [0] * 64, 0
    for s in sorted(range(64), key=lambda s: (-freq[s], s)):
        cum[s] = at
        at += freq[s]
    return cum


def encode_substream(symbols, classes, freq):
    """(32 start states, bytes) for symbols of groups x 32: decoding run backwards."""
    cum = [cumulative(f) for f in freq]
    x, out = [256] * 32, bytearray()
    for group, k in zip(reversed(symbols), reversed(classes)):
        for lane in reversed(range(32)):
            s = group[lane]
            f = freq[k][s]
            if x[lane] >= 256 * f:
                out.append(x[lane] & 255)
                x[lane] >>= 8
            x[lane] = (x[lane] // f << 8) + cum[k][s] + x[lane] % f
    out.reverse()
    return x, bytes(out)


def number_code(value, width):
    """The bits of a number as text, the lowest first."""
    return f"{value:0{width}b}"[::-1] if width else ""


def pack_code(text):
    """Bits written as text, the first one lowest, filled up with zeros."""
    return int(text[::-1] or "0", 2).to_bytes(ceil_div(len(text), 8), "little")


def gap_code(gap, rice):
    q = gap >> rice
    return "0" * q + "1" + number_code(gap % (1 << rice), rice) if q < 24 else far_gap_code(gap)


def far_gap_code(gap):
    return "0" * 24 + number_code(gap, 17)


def index_code(index):
    return "0" * index + "1"


def value_code(value, exponent_bits):
    return "0" * 15 + number_code(value, exponent_bits)


def encode_exceptions(positions, exponents, rare, exponent_bits, rice=None):
    """The exceptions of a segment; positions rise."""
    if not len(positions):
        return b""
    gaps = [b - a - 1 for a, b in zip([-1, *positions], positions)]
    if rice is None:
        rice = min(15, (sum(gaps) // len(gaps)).bit_length())
    text = "".join(gap_code(g, rice) + (index_code(rare.index(e)) if e in rare
                                        else value_code(e, exponent_bits))
                   for g, e in zip(gaps, exponents))
    return struct.pack("<IB", len(positions), rice) + pack_code(text)


def pack_bits(values, width):
    """Numbers of width bits as one bit string, lowest bits first, filled up with zeros."""
    bits = np.asarray(values)[:, None] >> np.arange(width) & 1
    return np.packbits(bits.astype(np.uint8).reshape(-1), bitorder="little").tobytes()


def normalised(counts):
    """Frequencies that sum to 256, 1 to 255 for every symbol that occurs; two must."""
    f = np.where(counts > 0, np.maximum(1, np.floor(counts * 192 / counts.sum())), 0).astype(int)
    while f.sum() < 256:  # 192 and at most 64 ones do not exceed it
        f[f.argmax() if f.max() < 255 else np.where(counts > 0, f, 256).argmin()] += 1
    return f.tolist()


class Coder:
    """What codes the chunks of a tensor; SplitCoder, RawCoder and so on."""

    codec, tables = RAW, b""

    def encode(self, data, first_element):
        """The payload of a chunk."""
        raise NotImplementedError

    def layers(self, data, first_element):
        """[(payload, what decoding gives when it stops there)] of each layer."""
        return [(self.encode(data, first_element), data)]


class SplitCoder(Coder):
    """Tables for one tensor, made from its bytes, and the coding of its chunks.

    exponents: how many of the most frequent exponents get symbols; rare: how many of the
    next ones go to R.  shifts: a list; its length is the period.  rice: the parameter of all
    lists of exceptions, otherwise a good one for each.
    """

    codec = SPLIT

    def __init__(self, dtype, data, classes=1, run=3, segment=14, shifts=(), exponents=None,
                 rare=15, tail_zstd=False, rice=None):
        self.layout = LAYOUTS[dtype]
        self.classes, self.run, self.segment, self.rice = classes, run, segment, rice
        self.shifts, self.tail_zstd = np.array(shifts, np.int64), tail_zstd
        base, joint, _, _ = self._cut(data, 0)
        values, counts = np.unique(base, return_counts=True)
        ranked = [int(v) for v in values[np.argsort(-counts, kind="stable")]]
        entries = 64 >> self.layout.J
        used = ranked[:exponents or entries][:entries] or [0]
        self.rare = ranked[len(used):][:min(rare, 15)]
        self.used = used
        self.X = used + [0] * (entries - len(used))
        self.R = self.rare + [0] * (15 - len(self.rare))
        self.freq = self._frequencies(base, joint)
        self.twins = {}  # {place in X: another place with the same exponent}, for odd elements

    def _cut(self, data, first_element):
        """Exponents less their shifts, joint bits, fields and tails of the elements."""
        L = self.layout
        units = np.frombuffer(data, np.uint8).reshape(-1, L.W)
        head = np.zeros(len(units), np.int64)
        for byte in range(L.W - L.T):
            head |= units[:, L.T + byte].astype(np.int64) << (8 * byte)
        exponent = head >> L.M & ((1 << L.E) - 1)
        if len(self.shifts):
            exponent -= self.shifts[(first_element + np.arange(len(units))) % len(self.shifts)]
            exponent %= 1 << L.E
        joint = head >> (L.M - L.J) & ((1 << L.J) - 1)
        fields = head >> (L.E + L.M) << (L.P - 1) | head & ((1 << (L.P - 1)) - 1)
        return exponent, joint, fields, units[:, :L.T].tobytes()

    def _frequencies(self, base, joint):
        """64 frequencies for each class: runs are sorted into classes by their mean exponent."""
        J = self.layout.J
        length = 64 << self.run
        means = [base[i:i + length].mean() for i in range(0, len(base), length)] or [0]
        order = np.argsort(np.argsort(means)) * self.classes // len(means)
        number = {e: i for i, e in enumerate(self.used)}
        counts = np.zeros((self.classes, 64))
        for i, (e, j) in enumerate(zip(base.tolist(), joint.tolist())):
            if e in number:
                counts[order[i // length], number[e] << J | j] += 1
        # The symbols of the first exponent carry the joint bits of exceptions in every class.
        counts[:, :1 << J] += 0.01
        return [normalised(c) for c in counts]

    @property
    def tables(self):
        return (struct.pack("<BBBBI", self.classes, self.run, self.segment, 0, len(self.shifts))
                + struct.pack(f"<{len(self.X)}H15H", *self.X, *self.R)
                + bytes(f for c in self.freq for f in c)
                + self.shifts.astype(np.int8).tobytes())

    def payload(self, data, first_element):
        base, joint, fields, tail = self._cut(data, first_element)
        size = 1 << self.segment
        segments = [self._segment(base[i:i + size], joint[i:i + size], fields[i:i + size])
                    for i in range(0, len(base), size)]
        if self.tail_zstd:
            return Payload(segments, zstd_frame(tail), 1)
        return Payload(segments, tail)

    def encode(self, data, first_element):
        return self.payload(data, first_element).pack()

    def _segment(self, base, joint, fields):
        J, P, m = self.layout.J, self.layout.P, len(base)
        groups = ceil_div(m, 64)
        number = {e: i for i, e in enumerate(self.used)}
        places = [number.get(e) for e in base.tolist()]
        places[1::2] = [self.twins.get(place, place) for place in places[1::2]]
        wanted = [None if place is None else place << J | j
                  for place, j in zip(places, joint.tolist())]
        wanted += [-1] * (64 * groups - m)  # -1: anything

        run_classes = [self._best_class(wanted[i:i + (64 << self.run)])
                       for i in range(0, len(wanted), 64 << self.run)]
        classes = [run_classes[g >> self.run] for g in range(groups)]
        symbols, exceptions = [], []
        for i, s in enumerate(wanted):
            freq = self.freq[classes[i // 64]]
            if s == -1:
                s = freq.index(max(freq))
            elif s is None or freq[s] == 0:
                exceptions.append(i)
                s = next(c for c in range(64)
                         if freq[c] and c % (1 << J) == joint[i])
            symbols.append(s)
        symbols = np.array(symbols).reshape(groups, 2, 32)
        states_a, a = encode_substream(symbols[:, 0].tolist(), classes, self.freq)
        states_b, b = encode_substream(symbols[:, 1].tolist(), classes, self.freq)
        padded = np.concatenate([fields, np.zeros(64 * groups - m, np.int64)])
        by_position = padded.reshape(groups, 2, 32).transpose(0, 2, 1).reshape(-1)
        class_bits = (self.classes - 1).bit_length()
        return Segment(
            states_a + states_b,
            pack_bits(run_classes, class_bits) if class_bits else b"",
            a, b,
            encode_exceptions(exceptions, base[exceptions].tolist(), self.rare, self.layout.E,
                              self.rice),
            pack_bits(by_position, P))

    def _best_class(self, wanted):
        def bits(freq):
            return sum(8 - math.log2(freq[s]) if s is not None and freq[s] else 24
                       for s in wanted if s != -1)

        return min(range(self.classes), key=lambda k: bits(self.freq[k]))


class RawCoder(Coder):
    def encode(self, data, first_element):
        return data


class ZstdCoder(Coder):
    codec = ZSTD

    def __init__(self, stride=1, level=3):
        self.stride, self.level = stride, level

    def encode(self, data, first_element):
        planes = np.frombuffer(data, np.uint8).reshape(-1, self.stride).T.tobytes()
        return bytes([self.stride]) + zstd_frame(planes, self.level)


# ---------------------------------------------------------------- the file


@dataclass
class Made:
    """One tensor for Image.of.  coders: one for all chunks, or a list that is repeated."""
    name: str
    dtype: str
    shape: list
    data: bytes
    chunk_bytes: int = 1 << 16
    coders: object = field(default_factory=RawCoder)
    error: float = 0.0  # relative and squared; above 0 the source had other bytes


@dataclass
class Extent:
    payload: bytes
    codec: int
    digest: int
    flags: int = 0
    gap: bytes = b""  # what lies before it


@dataclass
class Record:
    """A record of TENSORS."""
    codec: int = 0
    layers: int = 1
    flags: int = 0
    chunk_bytes: int = 0
    chunk_count: int = 0
    first_extent: int = 0
    tables_offset: int = 0
    tables_length: int = 0
    reserved: int = 0
    relative_squared_error: float = 0.0

    def pack(self):
        return struct.pack("<HBBIQQQIId", self.codec, self.layers, self.flags, self.chunk_bytes,
                           self.chunk_count, self.first_extent, self.tables_offset,
                           self.tables_length, self.reserved, self.relative_squared_error)


SOURCE_MTIME = 1_700_000_000


def source_header(tensors, metadata=None, pad=0):
    """The first 8 + N bytes of a safetensors file."""
    document = {} if metadata is None else {"__metadata__": metadata}
    at = 0
    for t in tensors:
        document[t.name] = {"dtype": t.dtype, "shape": list(t.shape),
                            "data_offsets": [at, at + len(t.data)]}
        at += len(t.data)
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8 + pad)
    return struct.pack("<Q", len(text)) + text


@dataclass
class Image:
    """Everything that a file is made of; checksums, offsets and lengths come from build()."""
    header: bytes
    source_size: int
    records: list
    extents: list
    params: bytes
    source: bytes
    provenance: bytes
    minor: int = 0
    flags: int = 0
    encodings: dict = field(default_factory=dict)  # of sections, by id; zstd unless given
    more_sections: list = field(default_factory=list)  # (id, encoding, flags, bytes)
    index_gap: bytes = b""  # between sections

    @classmethod
    def of(cls, tensors, metadata=None, pad=0, gap=b""):
        header = source_header(tensors, metadata, pad)
        whole = header + b"".join(t.data for t in tensors)
        image = cls(header, len(whole), [], [], b"", b"",
                    json.dumps({"tool": "hctmake"}).encode())
        lossy = any(t.error for t in tensors)
        image.source = struct.pack("<QqII32s8x", len(whole), SOURCE_MTIME, 123_456_789, 0,
                                   hashlib.sha256(b"other" if lossy else whole).digest())
        for t in tensors:
            image._add(t, gap)
        return image

    def _add(self, t, gap):
        coders = t.coders if isinstance(t.coders, list) else [t.coders]
        with_tables = next((c for c in coders if c.tables), None)
        tables = with_tables.tables if with_tables else b""
        chunks = ceil_div(len(t.data), t.chunk_bytes)
        record = Record(
            codec=with_tables.codec if with_tables else 0,
            chunk_bytes=t.chunk_bytes if chunks else 0,
            chunk_count=chunks, first_extent=len(self.extents),
            tables_offset=len(self.params), tables_length=len(tables),
            relative_squared_error=t.error)
        self.records.append(record)
        self.params += tables
        element = hctspec.dtype_element(t.dtype)
        for k in range(chunks):
            coder = coders[k % len(coders)]
            chunk = t.data[k * t.chunk_bytes:(k + 1) * t.chunk_bytes]
            layers = coder.layers(chunk, k * t.chunk_bytes // element)
            record.layers = len(layers)
            for payload, decoded in layers:
                self.extents.append(Extent(payload, coder.codec, xxh3(decoded), gap=gap))

    @classmethod
    def from_bytes(cls, data):
        """The image of a valid file, whoever wrote it."""
        f = hctspec.File(data)
        extents, at = [], 64
        for e in f.extents:
            extents.append(Extent(f.data[e.offset:e.offset + e.length], e.codec, e.digest,
                                  e.flags, f.data[at:e.offset]))
            at = e.offset + e.length
        records = [Record(t.codec, t.layers, t.flags, t.chunk_bytes, t.chunk_count,
                          t.first_extent, t.tables_offset, t.tables_length, 0,
                          t.relative_squared_error) for t in f.tensors]
        source = struct.pack("<QqII32s8x", f.source.size, f.source.mtime_sec,
                             f.source.mtime_nsec, 0, f.source.sha256)
        return cls(f.header, f.source_size, records, extents, f.params, source,
                   f.provenance.encode(), minor=f.version[1], flags=f.flags)

    def build(self, **edit):
        """The file; see the top for what edit may hold."""
        edit = dict(edit)

        def edited(name, data):
            data = bytearray(data)
            function = edit.pop(name, None)
            if function:
                function(data)
            return bytes(data)

        head = edited("superblock", hctspec.MAGIC + struct.pack(
            "<HHIQQ24x", 1, self.minor, self.flags, self.source_size, len(self.header)))
        out = bytearray(head + struct.pack("<Q", xxh3(head)))
        extents = b""
        for e in self.extents:
            out += e.gap
            extents += struct.pack("<QIHHQQ", len(out), len(e.payload), e.codec, e.flags,
                                   xxh3(e.payload), e.digest)
            out += e.payload
        contents = {
            hctspec.HEADER: self.header,
            hctspec.TENSORS: b"".join(r.pack() for r in self.records),
            hctspec.EXTENTS: extents,
            hctspec.PARAMS: self.params,
            hctspec.SOURCE: self.source,
            hctspec.PROVENANCE: self.provenance,
        }
        sections = [(id, self.encodings.get(id, 0 if id == hctspec.EXTENTS else 1), 0,
                     edited(SECTION_NAMES[id].lower(), data)) for id, data in contents.items()]
        sections += self.more_sections
        self._index(out, sections, edited)
        assert not edit, f"no such structure: {edit.keys()}"
        return bytes(out)

    def _index(self, out, sections, edited):
        table, body = b"", b""
        start = 32 + 40 * len(sections)
        for id, encoding, flags, data in sections:
            stored = zstd_frame(data) if encoding == 1 else data
            body += self.index_gap
            table += struct.pack("<IHHQQQQ", id, encoding, flags, start + len(body), len(stored),
                                 len(data), xxh3(stored))
            body += stored
        header = edited("index", hctspec.INDEX_MAGIC + struct.pack(
            "<IIQQ", len(sections), 0, start + len(body), 0))
        head = header + edited("table", table)
        trailer = edited("trailer", struct.pack(
            "<QQQQHHIQ", len(out), len(head) + len(body), xxh3(head),
            len(out) + len(head) + len(body) + 64, 1, self.minor, 0, 0))
        out += head + body + trailer
        out += struct.pack("<Q", xxh3(trailer)) + hctspec.TRAILER_MAGIC


def change(offset, code, value):
    """An edit: packs value at offset of a structure."""
    return lambda data: struct.pack_into("<" + code, data, offset, value)
