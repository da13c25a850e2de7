"""What the parts of hctspec.py share: errors, checksums, zstd frames, cutting bytes and bits."""

import numpy as np
import xxhash
import zstandard


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
