"""Tensors of the codecs coef and lowrank for hctmake.py: drawn, like those of hctmake_tcq.py.

    coder = CoefCoder("BF16", columns=96, tile=(2, 3), kept=0.7, halves=0.2)
    image = Image.of([literal_tensor("w", coder, elements=8 * 96, chunk_elements=8 * 96)])
"""

import struct
from dataclasses import dataclass

import hctspec
import numpy as np
from hctmake import Coder, Made, zstd_frame
from hctmake_tcq import Layer, TcqCoder
from hctspec import COEF, LOWRANK, ceil_div

NONE, STORED, ZSTD, ALL = range(4)  # forms of a mask


@dataclass
class CoefPayload:
    """A payload in its parts, so that tests can bend one of them."""
    form: int
    half_form: int
    mask: bytes
    half_mask: bytes
    scales: bytes
    numbers: bytes
    halves: bytes

    def pack(self):
        return (struct.pack("<BBxxII", self.form, self.half_form, len(self.mask),
                            len(self.half_mask))
                + self.mask + self.half_mask + self.scales + self.numbers + self.halves)


def stored_mask(mask, form):
    data = np.packbits(mask, bitorder="little").tobytes()
    return {STORED: data, ZSTD: zstd_frame(data)}.get(form, b"")


class CoefCoder(Coder):
    """Tables for one tensor, and chunks that are drawn.

    kept, halves: share of the coefficients that are kept, and of these in FP16; all are kept
    when form is NONE, none or all of these are FP16 when half_form is NONE or ALL.
    """

    codec = COEF

    def __init__(self, dtype, columns, tile=(0, 0), exponent=0, kept=0.7, halves=0.2,
                 form=STORED, half_form=STORED, seed=1):
        self.dtype, self.columns, self.tile, self.exponent = dtype, columns, tile, exponent
        self.kept, self.halves, self.form, self.half_form = kept, halves, form, half_form
        self.rng = np.random.default_rng(seed)

    @property
    def tables(self):
        return struct.pack("<BBbxI", *self.tile, self.exponent, self.columns)

    def draw(self, n, first_element):
        rng = self.rng
        mask = rng.random(n) < self.kept if self.form else np.ones(n, bool)
        k = int(mask.sum())
        half = rng.random(k) < self.halves
        half = {NONE: np.zeros(k, bool), ALL: np.ones(k, bool)}.get(self.half_form, half)
        q = k - int(half.sum())
        return CoefPayload(self.form, self.half_form, stored_mask(mask, self.form),
                           stored_mask(half, self.half_form),
                           rng.normal(size=ceil_div(q, 32)).astype("<f2").tobytes(),
                           rng.bytes(q // 2) + (b"\x0d" if q % 2 else b""),
                           rng.normal(size=k - q).astype("<f2").tobytes())

    def decoded(self, payload, n, first_element):
        dtype = hctspec.FLOATS[self.dtype]
        return hctspec.decode_coef(payload.pack(), n * dtype.W, dtype,
                                   hctspec.CoefTables(self.tables), first_element, "made")


class LowrankCoder(Coder):
    """Tables for one tensor with V, and chunks that are drawn.

    u, v: options of TcqCoder.  u_columns: of the tables of U, the rank unless it is given.
    """

    codec = LOWRANK

    def __init__(self, dtype, columns, rank, u=None, v=None, u_columns=None, seed=1):
        self.dtype, self.columns, self.rank = dtype, columns, rank
        self.rng = np.random.default_rng(seed)
        self.u = TcqCoder("F32", u_columns or rank, seed=seed, **(u or {"layers": [Layer(Q=2, K=2)]}))
        self.v = TcqCoder("F32", columns, seed=seed + 1, **(v or {"layers": [Layer(K=3)]}))
        self.v_payload = self.v.draw(rank * columns, 0)[0].pack()
        self.scales = self.rng.normal(size=rank).astype("<f4").tobytes()

    @property
    def tables(self):
        u, v = self.u.tables, self.v.tables
        return (struct.pack("<5I", self.rank, self.columns, len(v), len(u), len(self.v_payload))
                + self.scales + v + u + self.v_payload)

    def draw(self, n, first_element):
        return self.u.draw(n // self.columns * self.rank,
                           first_element // self.columns * self.rank)[0]

    def decoded(self, payload, n, first_element):
        dtype = hctspec.FLOATS[self.dtype]
        return hctspec.decode_lowrank(payload.pack(), n * dtype.W, dtype,
                                      hctspec.LowrankTables(self.tables), first_element, "made")


class Drawn(Coder):
    """One chunk that was drawn: what Image.of takes for a coder."""

    def __init__(self, coder, payload, decoded):
        self.codec, self.tables, self.payload, self.decoded = (coder.codec, coder.tables, payload,
                                                               decoded)

    def layers(self, data, first_element):
        return [(self.payload.pack(), self.decoded)]


def literal_tensor(name, coder, elements, chunk_elements, shape=None, refused=False):
    """A tensor that is drawn.  refused: hctspec.py refuses it."""
    width = hctspec.FLOATS[coder.dtype].W
    data, coders = b"", []
    for first in range(0, elements, chunk_elements):
        n = min(chunk_elements, elements - first)
        payload = coder.draw(n, first)
        try:
            decoded = coder.decoded(payload, n, first)
        except hctspec.SpecError:
            if not refused:
                raise
            decoded = bytes(n * width)
        data += decoded
        coders.append(Drawn(coder, payload, decoded))
    return Made(name, coder.dtype, shape or [elements], data, chunk_elements * width, coders,
                error=0.01)
