"""What the lists of cases share: where they are registered, data that looks like weights, and the
edits that damage is made of."""

import functools

import hctspec
import numpy as np
from hctmake import Made, zstd_frame
from hctspec import LAYOUTS

VALID = {}
DAMAGED = {}


def valid(function):
    VALID[function.__name__] = function
    return function


def damaged(errors):
    """Registers a function under its name with the error, or one of several, that it must give."""

    def register(function):
        DAMAGED[function.__name__] = function, errors.split()
        return function

    return register


def damage(name, errors, make):
    DAMAGED[name] = make, errors.split()


# ---------------------------------------------------------------- data


def floats(dtype, n, seed=0, center=None, spread=1.5, scales=()):
    """n elements as weights look: signs and mantissas at random, exponents near a center.

    scales: added to the exponents, element by element, again and again.
    """
    rng = np.random.default_rng(seed)
    L = LAYOUTS[dtype]
    low = 8 * L.W - 1 - L.E  # bits of the mantissa, tail included
    top = (1 << L.E) - 1
    center = top * 0.45 if center is None else center
    exponent = np.round(center - rng.exponential(spread, n)).astype(np.int64)
    if len(scales):
        exponent += np.resize(scales, n)
    exponent = np.clip(exponent, 0, top).astype(np.uint64)
    mantissa = rng.integers(0, 1 << low, n, dtype=np.uint64)
    sign = rng.integers(0, 2, n, dtype=np.uint64)
    v = sign << np.uint64(low + L.E) | exponent << np.uint64(low) | mantissa
    return v.astype(f"<u{L.W}").tobytes()


def with_exponents(dtype, data, positions, exponents):
    """data with other exponents at some positions."""
    L = LAYOUTS[dtype]
    low = 8 * L.W - 1 - L.E
    v = np.frombuffer(data, f"<u{L.W}").astype(np.uint64)
    mask = np.uint64(((1 << L.E) - 1) << low)
    v[positions] = v[positions] & ~mask | np.array(exponents, np.uint64) << np.uint64(low)
    return v.astype(f"<u{L.W}").tobytes()


def tensor(name, dtype, data, chunk_elements, coders):
    elements = len(data) * 8 // hctspec.DTYPE_BITS[dtype]
    return Made(name, dtype, [elements], data,
                chunk_elements * hctspec.DTYPE_BITS[dtype] // 8, coders)


# ---------------------------------------------------------------- edits

MIB = 1 << 20
SKIPPABLE = b"\x50\x2a\x4d\x18\4\0\0\0abcd"
BOMB = functools.cache(lambda size: zstd_frame(bytes(size)))


def in_segment(number, **changes):
    """An edit of one segment: each change is a function from the old part to the new."""

    def edit(payload):
        segment = payload.segments[number]
        for part, function in changes.items():
            setattr(segment, part, function(getattr(segment, part)))

    return edit


def put(offset, data):
    return lambda old: old[:offset] + data + old[offset + len(data):]


def state(lane, value):
    return lambda old: old[:lane] + [value] + old[lane + 1:]
