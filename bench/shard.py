"""A sparse safetensors shard, as large as they come: its first tensor is 3.4/8 of it.

    python shard.py FILE.safetensors GIB

BF16 matrices: an embedding, then layers of 128 MiB or less.  Weights lie in islands of 1 MiB, one
for every 64 MiB at most; the rest are zeros that take no space on the disk, so that 8 GiB take 130
MB, or a sixty-fourth of any size.
"""

import array
import json
import os
import random
import sys

ISLAND = 1 << 20
STEP = 64 << 20
COLUMNS = 8192
ROWS = 8192  # of a layer


def matrices(size):
    """(name, shape) of tensors that have this many bytes, rows of 16 KiB, in all."""
    rows = size // (2 * COLUMNS)
    first = round(rows * 3.4 / 8)
    yield "model.embed_tokens.weight", [first, COLUMNS]
    left, layer = rows - first, 0
    while left:
        yield f"model.layers.{layer}.mlp.up_proj.weight", [min(left, ROWS), COLUMNS]
        left -= min(left, ROWS)
        layer += 1


def weights():
    """The bytes of an island: Gaussian numbers, cut to BF16."""
    source = random.Random(4)
    single = array.array("f", (source.gauss(0, 0.02) for _ in range(ISLAND // 2)))
    if sys.byteorder == "big":
        single.byteswap()
    data = single.tobytes()
    half = bytearray(ISLAND)
    half[0::2], half[1::2] = data[2::4], data[3::4]
    return bytes(half)


def make(path, size):
    """Writes the shard; OSError where sparse files of that size cannot be."""
    header, at = {}, 0
    for name, shape in matrices(size):
        end = at + 2 * shape[0] * shape[1]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    island = weights()
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        begin = f.tell()
        f.truncate(begin + at)
        for offset in range(0, at, STEP):
            f.seek(begin + offset)
            f.write(island[: at - offset])
    if os.stat(path).st_blocks * 512 > at // 8:
        raise OSError(f"{path}: this file system has no sparse files")


if __name__ == "__main__":
    make(sys.argv[1], round(float(sys.argv[2]) * (1 << 30)))
