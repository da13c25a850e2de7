"""tests/crash/shim.c, which counts the calls of a program and makes them fail."""

import functools
import os
import subprocess

from helpers import BUILD, ROOT

CRASH = ROOT / "tests/crash"


@functools.cache
def library():
    """The library's path; it is compiled when it is not there, or is an old one."""
    path, source = BUILD / "tests/shim.so", CRASH / "shim.c"
    if not path.exists() or path.stat().st_mtime < source.stat().st_mtime:
        path.parent.mkdir(exist_ok=True)
        command = [os.environ.get("CC", "cc"), "-std=gnu11", "-D_GNU_SOURCE", "-O1", "-fPIC",
                   "-shared", "-o", path, source, "-ldl"]  # fmt: skip
        subprocess.run(command, check=True)
    return path


def preload(**env):
    """Environment of a program that loads it; AddressSanitizer wants to be first, or told not to
    look."""
    return {"LD_PRELOAD": str(library()), "ASAN_OPTIONS": "verify_asan_link_order=0", **env}
