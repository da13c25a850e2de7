#!/usr/bin/env python3
"""The Python half of quickstart.sh.

quickstart.py load SOURCE MOUNT    loads all tensors of both with safetensors, and compares
quickstart.py generate DIR         writes a small model with nothing but the standard library
"""

import array
import json
import random
import struct
import sys
import time
from pathlib import Path


def load(source, mount):
    from safetensors import safe_open

    for path in sorted(Path(source).glob("*.safetensors")):
        tensors = values = 0
        start = time.monotonic()
        with safe_open(Path(mount) / path.name, framework="numpy") as seen:
            loaded = {name: seen.get_tensor(name) for name in seen.keys()}
        seconds = time.monotonic() - start
        with safe_open(path, framework="numpy") as expected:
            if set(expected.keys()) != set(loaded):
                sys.exit(f"{path.name}: other tensors in the mount than in the source")
            for name, tensor in loaded.items():
                if tensor.tobytes() != expected.get_tensor(name).tobytes():
                    sys.exit(f"{path.name}: {name} differs from the source")
                tensors += 1
                values += tensor.size
        print(
            f"safetensors loaded {path.name} in {seconds:.2f} s: {tensors} tensors, "
            f"{values:,} values, all equal to the source"
        )


def generate(folder, layers=4, width=256):
    """F32 matrices with Gaussian values and a scale for each row, as trained weights have."""
    rng = random.Random(0)
    header, data = {}, array.array("f")
    for layer in range(layers):
        for name, rows in (("query", width), ("key", width), ("value", width), ("mlp", 2 * width)):
            begin = 4 * len(data)
            for _ in range(rows):
                scale = rng.lognormvariate(-3, 0.5)
                data.extend(rng.gauss(0, scale) for _ in range(width))
            header[f"layers.{layer}.{name}.weight"] = {
                "dtype": "F32",
                "shape": [rows, width],
                "data_offsets": [begin, 4 * len(data)],
            }
    if sys.byteorder == "big":
        data.byteswap()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    Path(folder).mkdir(parents=True)
    (Path(folder) / "config.json").write_text('{"model_type": "generated"}\n')
    with open(Path(folder) / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        data.tofile(file)


if __name__ == "__main__":
    command, *paths = sys.argv[1:] or [""]
    if command == "load" and len(paths) == 2:
        load(*paths)
    elif command == "generate" and len(paths) == 1:
        generate(*paths)
    else:
        sys.exit(__doc__)
