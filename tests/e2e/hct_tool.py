"""hct as its tests run it, and damage to the bundles that it reads."""

import json
import shutil
import struct
from pathlib import Path

import pytest
from helpers import HCT, run

COMMANDS = ("ls", "info", "check", "extract", "compare")


def hct(*arguments, **options):
    return run(HCT, *arguments, **options)


def hct_json(*arguments, **options):
    done = hct(*arguments, "--json", **options)
    return json.loads(done.stdout)


def close(value, expected):
    return value == pytest.approx(expected, rel=1e-12, abs=1e-300)


def copy_bundle(bundle, folder):
    return Path(shutil.copytree(bundle, Path(folder) / "copy.hct"))


def extents(path):
    """[(offset, length)] of the chunks of an .hct file, from its EXTENTS section."""
    data = Path(path).read_bytes()
    index, _ = struct.unpack_from("<QQ", data, len(data) - 64)
    (sections,) = struct.unpack_from("<I", data, index + 8)
    for i in range(sections):
        number, coding, _, offset, stored = struct.unpack_from("<IHHQQ", data, index + 32 + 40 * i)
        if number == 3:
            assert coding == 0
            table = data[index + offset : index + offset + stored]
            return [struct.unpack_from("<QI", table, at) for at in range(0, stored, 32)]
    raise AssertionError("no EXTENTS section")


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))
