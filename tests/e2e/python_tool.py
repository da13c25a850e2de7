"""The Python module of contrib/python, and what it is held against."""

import json
import os
import sys
from pathlib import Path

import pytest

from helpers import BUILD, ROOT, is_sanitized

if is_sanitized():
    pytest.skip("a sanitized libhct.so does not go into Python", allow_module_level=True)

os.environ["HCT_LIBRARY"] = str(BUILD / "libhct.so")
sys.path.insert(0, str(ROOT / "contrib" / "python"))

import hctfs  # noqa: E402, F401


def plain(path):
    """{name: (dtype, shape, bytes)} of a safetensors file."""
    blob = Path(path).read_bytes()
    data = 8 + int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8:data])
    header.pop("__metadata__", None)
    return {
        name: (
            tensor["dtype"],
            tuple(tensor["shape"]),
            blob[data + tensor["data_offsets"][0] : data + tensor["data_offsets"][1]],
        )
        for name, tensor in header.items()
    }


def bytes_read():
    """That this process has asked the system for so far."""
    words = Path("/proc/self/io").read_text().split()
    return int(words[words.index("rchar:") + 1])
