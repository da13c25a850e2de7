"""libhct: where it is, and those of its functions that are used here."""

import ctypes
import functools
import os
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from pathlib import Path

# Of codec/error.h.
NOMEM, UNFINISHED, NOT_FOUND = 1, 5, 13

LOG = ctypes.CFUNCTYPE(None, c_void_p, c_char_p)


class HctError(Exception):
    """What libhct says in one line; code is its hct_error."""

    def __init__(self, line, code=None):
        super().__init__(line)
        self.code = code


class Diag(ctypes.Structure):
    _fields_ = [("text", ctypes.c_char * 1024)]


class Safetensors(ctypes.Structure):
    _fields_ = [
        ("header", POINTER(ctypes.c_uint8)),
        ("header_len", c_size_t),
        ("file_size", c_uint64),
        ("tensors", c_void_p),
        ("count", c_size_t),
        ("arena", c_void_p),
    ]


class BackendOptions(ctypes.Structure):
    _fields_ = [
        ("gpu", c_char_p),
        ("gpu_memory", c_uint64),
        ("threads", c_uint),
        ("simd", c_int),
        ("log", LOG),
        ("log_arg", c_void_p),
    ]


class Load(ctypes.Structure):
    _fields_ = [
        ("tensor", c_size_t),
        ("first_row", c_uint64),
        ("rows", c_uint64),
        ("dst", c_void_p),
    ]


# name: (result, arguments).
FUNCTIONS = {
    "hct_error_string": (c_char_p, [c_int]),
    "hct_reader_open": (c_int, [c_char_p, POINTER(c_void_p), POINTER(Diag)]),
    "hct_reader_close": (None, [c_void_p]),
    "hct_reader_safetensors": (POINTER(Safetensors), [c_void_p]),
    "hct_safetensors_find": (c_size_t, [POINTER(Safetensors), c_char_p]),
    "hct_backend_open": (c_int, [POINTER(BackendOptions), POINTER(c_void_p), POINTER(Diag)]),
    "hct_backend_close": (None, [c_void_p]),
    "hct_backend_alloc": (c_int, [c_void_p, c_size_t, POINTER(c_void_p), POINTER(Diag)]),
    "hct_backend_free": (None, [c_void_p, c_void_p]),
    "hct_backend_copy": (c_int, [c_void_p, c_void_p, c_void_p, c_size_t, POINTER(Diag)]),
    "hct_load_bytes": (c_uint64, [c_void_p, POINTER(Load)]),
    "hct_load_device": (
        c_int,
        [c_void_p, c_void_p, POINTER(Load), c_size_t, c_uint, c_void_p, POINTER(Diag)],
    ),
}  # fmt: skip


def candidates():
    """Where libhct may be, the best first; without a folder it is the system's."""
    chosen = os.environ.get("HCT_LIBRARY")
    if chosen:
        return [chosen]
    checkout = Path(__file__).resolve().parents[3]
    built = [str(checkout / "build" / "libhct.so")] if (checkout / "codec/hct.h").exists() else []
    return [*built, "libhct.so.0", "/usr/local/lib/libhct.so.0"]


def opened():
    reasons = []
    for path in candidates():
        try:
            return path, ctypes.CDLL(path)
        except OSError as error:
            reasons.append(str(error))
    raise HctError(
        f"libhct is not there ({'; '.join(reasons)}): run make in a checkout of hctfs, install it, "
        "or set HCT_LIBRARY to the path of libhct.so"
    )


@functools.cache
def libhct():
    path, library = opened()
    missing = [name for name in FUNCTIONS if not hasattr(library, name)]
    if missing:
        raise HctError(f"{path} is of another version of hctfs than this: it has no {missing[0]}")
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def call(name, *arguments):
    """Calls a function that takes a struct hct_diag last, and raises what it says."""
    diag = Diag()
    code = getattr(libhct(), name)(*arguments, byref(diag))
    if code:
        line = (diag.text or libhct().hct_error_string(code)).decode(errors="replace")
        if code == NOT_FOUND:
            raise FileNotFoundError(line)
        raise MemoryError(line) if code == NOMEM else HctError(line, code)


def create(name, *arguments):
    """The same for one that creates something, whose address it returns."""
    out = c_void_p()
    call(name, *arguments, byref(out))
    return out.value
