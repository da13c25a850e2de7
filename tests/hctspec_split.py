"""Chunks of the codec split, for hctspec.py (4. of FORMAT.md)."""

import struct
from dataclasses import dataclass

import numpy as np
from hctspec_bytes import BitString, Parts, bits_of, ceil_div, need, unzstd
from hctspec_lanes import Lanes, in_order, take_class_map


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
