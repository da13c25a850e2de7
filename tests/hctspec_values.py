"""From coefficients to the bytes of a dtype, for hctspec.py: the tiles and their transform, and
rounding (5. of FORMAT.md; coef and lowrank do the same)."""

import math
import sys
from dataclasses import dataclass

import numpy as np
from hctspec_bytes import need


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


def need_whole_tiles(n, C, R, S, first_element, what):
    if R > 1:
        need(n % (R * C) == 0 and first_element % C == 0, "CORRUPT",
             f"{what}: tiles of {R} rows do not fit")
    need(n % S == 0 and first_element % S == 0, "CORRUPT",
         f"{what}: tiles of {S} columns do not fit")


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
