"""Chunks of the codec tcq, for hctspec.py (5. of FORMAT.md)."""

import struct

import numpy as np
from hctspec_bytes import BitString, Parts, bits_of, ceil_div, need
from hctspec_lanes import Lanes, in_order, take_class_map
from hctspec_values import need_whole_tiles, rounded, transformed_back


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
