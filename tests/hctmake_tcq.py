"""Tensors of the tcq codec for hctmake.py: symbols are drawn, and what they stand for is the data.

    coder = TcqCoder("BF16", columns=96, layers=[Layer(), Layer(step=2.0**-14)])
    image = Image.of([tcq_tensor("w", coder, elements=4 * 96, chunk_elements=4 * 96)])

Nothing here chooses symbols well: whatever the frequencies allow comes up, as often as they
say.  Decoding is done by hctspec.py; the encoder knows the points only to check it.
"""

import struct
from dataclasses import dataclass, replace

import hctspec
import numpy as np
from hctmake import Coder, Made, RawCoder, gap_code, number_code, pack_bits, pack_code
from hctspec import TCQ, ceil_div


def peak(width=3.0, zeros=True, centre=16):
    """Frequencies with a peak, which sum to 256; some are 0 when zeros may be."""
    weight = np.exp(-np.abs(np.arange(32) - centre) / width)
    freq = np.floor(weight / weight.sum() * 256).astype(int)
    if not zeros:
        freq = np.maximum(freq, 1)
    freq[centre] += 256 - freq.sum()
    return freq.tolist()


def flat():
    return [8] * 32


def lone(symbol, other):
    """Nearly always the one symbol."""
    freq = [0] * 32
    freq[symbol], freq[other] = 255, 1
    return freq


def drawn(rng):
    """Frequencies at random: some 0, some great."""
    weight = rng.exponential(1, 32) ** rng.integers(1, 4) * (rng.random(32) < 0.8)
    weight[rng.integers(32, size=2)] += 0.1
    freq = np.floor(weight / weight.sum() * 250).astype(int)
    while freq.sum() < 256:
        freq[rng.integers(32)] += 1
    return freq.tolist()


class Slots:
    """The symbol of each slot of a table, and the slots of each symbol in order of rank."""

    def __init__(self, freq):
        self.symbol, ranks = hctspec.slots_of(freq)
        self.slots = [[slot for _, slot in sorted(
            (rank, slot) for slot, (rank, symbol) in enumerate(zip(ranks, self.symbol))
            if symbol == s)] for s in range(32)]


@dataclass
class Layer:
    """The tables of a layer and the habits of its payloads.

    freq: [k][q][parity][symbol], drawn from the seed unless it is given.
    exceptions: how many of the elements of a segment are exceptions, or a function from
    (number of elements, random generator) to {position: e}.
    """
    states_log2: int = 3
    Q: int = 1
    K: int = 1
    run: int = 3
    b: int = 0
    step: float = 2.0**-8
    offsets: list = None
    freq: list = None
    column_class: list = None
    seed: int = 0
    exceptions: object = 0.0
    rice: int = 3
    low: int = 1  # parameter m of the values of exceptions

    def fill(self, columns):
        """Draws what was not given, for a matrix of so many columns."""
        rng = np.random.default_rng([self.seed, self.Q, self.K, self.b])
        if self.freq is None:
            self.freq = [[[drawn(rng), drawn(rng)] for _ in range(self.Q)]
                         for _ in range(self.K)]
        if self.offsets is None:
            self.offsets = rng.integers(-128, 128, 64).tolist()
        if self.column_class is None:
            some = rng.integers(0, self.Q, min(columns, 1000))
            self.column_class = np.resize(some, columns if self.Q > 1 else 0).tolist()
        self.slots = [[[Slots(f) for f in pair] for pair in q] for q in self.freq]
        self.next = hctspec.trellis(self.states_log2).tolist()

    @property
    def tables(self):
        out = struct.pack("<BBBBB3xf", self.states_log2, self.Q, self.K, self.run, self.b,
                          self.step)
        if self.b == 0:
            out += np.array(self.offsets, np.int8).tobytes()
        out += bytes(f for k in self.freq for q in k for p in q for f in p)
        width = self.Q.bit_length() - 1
        return out + (pack_bits(self.column_class, width) if width else b"")


@dataclass
class TcqSegment:
    states: list  # of 64: 32 of A, 32 of B
    class_map: bytes
    a: bytes
    b: bytes
    exceptions: bytes
    raw: bytes

    def pack(self):
        return (struct.pack("<64H", *self.states) + self.class_map + self.a + self.b
                + self.exceptions + self.raw)


@dataclass
class TcqPayload:
    """A payload in its parts, so that tests can bend one of them."""
    segments: list

    def pack(self):
        lengths = [struct.pack("<3I", len(s.a), len(s.b), len(s.exceptions))
                   for s in self.segments]
        return b"".join(lengths + [s.pack() for s in self.segments])


def magnitude_code(magnitude, low):
    """i zeros and a one, i bits, and the low bits."""
    high = (magnitude >> low) + 1
    i = high.bit_length() - 1
    return "0" * i + "1" + number_code(high - (1 << i), i) + number_code(
        magnitude & ((1 << low) - 1), low)


def exception_code(gap, e, rice, low):
    return gap_code(gap, rice) + "01"[e < 0] + magnitude_code(abs(e), low)


def encode_tcq_exceptions(exceptions, rice, low):
    """{position: e} as it is stored."""
    if not exceptions:
        return b""
    positions = sorted(exceptions)
    text = "".join(exception_code(b - a - 1, exceptions[b], rice, low)
                   for a, b in zip([-1, *positions], positions))
    return struct.pack("<IBB", len(positions), rice, low) + pack_code(text)


def encode_lanes(steps):
    """(32 start states, bytes) for a row of groups: decoding run backwards.

    steps: for each group 32 pairs: the slots of the symbol in the order of their ranks.
    """
    x, out = [256] * 32, bytearray()
    for group in reversed(steps):
        for lane in reversed(range(32)):
            slots = group[lane]
            if x[lane] >= 256 * len(slots):
                out.append(x[lane] & 255)
                x[lane] >>= 8
            high, rank = divmod(x[lane], len(slots))
            x[lane] = high << 8 | slots[rank]
    out.reverse()
    return x, bytes(out)


class TcqCoder(Coder):
    """Tables for one tensor, and chunks that are drawn from them.

    tile: log2 of its rows and columns.
    """

    codec = TCQ

    def __init__(self, dtype, columns, layers=None, tile=(0, 0), segment=10, seed=1):
        self.dtype, self.columns, self.tile, self.segment = dtype, columns, tile, segment
        self.coded = [replace(layer) for layer in layers or [Layer()]]
        self.rng = np.random.default_rng(seed)
        for layer in self.coded:
            layer.fill(columns)

    @property
    def tables(self):
        head = struct.pack("<BBBBI", len(self.coded), *self.tile, self.segment, self.columns)
        return head + b"".join(layer.tables for layer in self.coded)

    def draw(self, n, first_element):
        """A chunk of n elements: [TcqPayload of each layer]; self.points are its numbers n."""
        size = 1 << self.segment
        self.points = [[] for _ in self.coded]
        return [TcqPayload([self._segment(layer, points, min(size, n - at), first_element + at)
                            for at in range(0, n, size)])
                for layer, points in zip(self.coded, self.points)]

    def _segment(self, layer, points, m, first_element):
        rng, groups = self.rng, ceil_div(m, 64)
        run_class = rng.integers(0, layer.K, ceil_div(groups, 1 << layer.run)).tolist()
        raw = rng.integers(0, 1 << layer.b, (groups, 64))
        steps, states = ([], []), [0] * 64  # of the trellis
        for g in range(groups):
            group = []
            for i, draw in enumerate(rng.integers(0, 256, 64).tolist()):
                q = (layer.column_class[(first_element + 64 * g + i) % self.columns]
                     if layer.Q > 1 else 0)
                p = states[i] % 2
                table = layer.slots[run_class[g >> layer.run]][q][p]
                s = table.symbol[draw]
                group.append(table.slots[s])
                c = (s << layer.b) + int(raw[g, i])
                states[i] = layer.next[states[i]][c % 2]
                offset = 0 if layer.b else layer.offsets[32 * p + s]
                points.append(64 * (2 * (c - (16 << layer.b)) + p) + offset)
            steps[0].append(group[:32])
            steps[1].append(group[32:])
        del points[len(points) - (64 * groups - m):]
        states_a, a = encode_lanes(steps[0])
        states_b, b = encode_lanes(steps[1])
        width = (layer.K - 1).bit_length()
        return TcqSegment(
            states_a + states_b, pack_bits(run_class, width) if width else b"", a, b,
            encode_tcq_exceptions(self._exceptions(layer, m), layer.rice, layer.low),
            self._raw(layer, raw))

    def _exceptions(self, layer, m):
        if callable(layer.exceptions):
            return layer.exceptions(m, self.rng)
        count = int(m * layer.exceptions)
        where = self.rng.choice(m, count, replace=False).tolist()
        return dict(zip(where, self.rng.integers(-300, 301, count).tolist()))

    @staticmethod
    def _raw(layer, raw):
        """b words of 64 bits for each group, the bits of a word in order of position."""
        by_position = raw.reshape(-1, 2, 32).transpose(0, 2, 1).reshape(-1, 1, 64)
        bits = by_position >> np.arange(layer.b)[:, None] & 1
        return np.packbits(bits.astype(np.uint8).reshape(-1), bitorder="little").tobytes()


class Drawn(Coder):
    """One chunk that was drawn: what Image.of takes for a coder."""

    codec = TCQ

    def __init__(self, coder, payloads, decoded):
        self.tables, self.payloads, self.decoded = coder.tables, payloads, decoded

    def layers(self, data, first_element):
        return [(p.pack(), d) for p, d in zip(self.payloads, self.decoded)]


def decoded_layers(coder, payloads, n, first_element):
    """What decoding gives when it stops after each layer."""
    tables = hctspec.TcqTables(coder.tables, len(payloads))
    dtype = hctspec.FLOATS[coder.dtype]
    packed = [p.pack() for p in payloads]
    return [hctspec.decode_tcq(packed[:i + 1], n * dtype.W, dtype, tables, first_element, "made")
            for i in range(len(packed))]


def tcq_tensor(name, coder, elements, chunk_elements, shape=None, raw_chunks=(),
               refused=False):
    """A tensor that is drawn.  raw_chunks: numbers of those that are stored as they are.

    refused: the tables, or some chunks, are such that hctspec.py refuses them.
    """
    width = hctspec.FLOATS[coder.dtype].W
    data, coders = b"", []
    for k, first in enumerate(range(0, elements, chunk_elements)):
        n = min(chunk_elements, elements - first)
        if k in raw_chunks:
            data += coder.rng.bytes(n * width)
            coders.append(RawCoder())
            continue
        payloads = coder.draw(n, first)
        try:
            decoded = decoded_layers(coder, payloads, n, first)
        except hctspec.SpecError:
            if not refused:
                raise
            decoded = [bytes(n * width)] * len(payloads)
        data += decoded[-1]
        coders.append(Drawn(coder, payloads, decoded))
    return Made(name, coder.dtype, shape or [elements], data, chunk_elements * width, coders,
                error=0.01)
