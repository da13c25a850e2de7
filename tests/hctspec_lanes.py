"""What split and tcq share, for hctspec.py: the classes of groups, the order of positions, and
the rANS states (4. and 5. of FORMAT.md)."""

import numpy as np
from hctspec_bytes import bits_of, ceil_div, need


def take_class_map(parts, groups, run_log2, classes):
    """The class of each group of a segment."""
    runs, width = ceil_div(groups, 1 << run_log2), (classes - 1).bit_length()
    data = parts.take(ceil_div(runs * width, 8))
    run_class = bits_of(data, width)[:runs] if width else np.zeros(runs, np.int64)
    need((run_class < classes).all(), "CORRUPT", f"{parts.what}: class")
    return np.repeat(run_class, 1 << run_log2)[:groups]


def in_order(values):
    """From positions to elements: position 2i is element i, 2i + 1 is element 32 + i."""
    return values.reshape(-1, 32, 2).transpose(0, 2, 1).reshape(-1)


class Lanes:
    """The rANS states of all substreams, a row of 32 for each, and their runs of bytes."""

    def __init__(self, states, runs, what):
        self.x, self.what = np.stack(states).astype(np.int64), what
        need((self.x >= 256).all(), "CORRUPT", f"{what}: start state below 256")
        # The runs side by side; a substream that reads beyond its own is found in the end.
        lengths = [len(r) for r in runs]
        self.ends = np.cumsum(lengths)
        self.at = self.ends - lengths
        self.data = np.frombuffer(b"".join(runs) + bytes(32), np.uint8).astype(np.int64)

    def move(self, rows, freq, rank):
        """The step of some substreams behind symbols of these frequencies, at these ranks."""
        y = freq * (self.x[rows] >> 8) + rank
        # Lanes that need a byte take the next ones in the order of their numbers.
        hungry = y < 256
        where = self.at[rows][:, None] + np.cumsum(hungry, axis=1) - 1
        byte = self.data[np.clip(where, 0, len(self.data) - 1)]
        self.x[rows] = np.where(hungry, y << 8 | byte, y)
        self.at[rows] += hungry.sum(axis=1)

    def finish(self):
        need((self.x == 256).all(), "CORRUPT", f"{self.what}: a final state is not 256")
        need((self.at == self.ends).all(), "CORRUPT",
             f"{self.what}: a substream does not use its bytes")
