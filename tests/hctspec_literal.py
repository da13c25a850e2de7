"""Chunks of the codecs coef and lowrank, for hctspec.py (6. and 7. of FORMAT.md)."""

import struct

import numpy as np
from hctspec_bytes import Parts, bits_of, ceil_div, need, unzstd
from hctspec_tcq import TcqTables, decode_tcq
from hctspec_values import FLOATS, need_whole_tiles, rounded, transformed_back

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
