"""Backends of libhct, one for each device, and memory of these."""

import atexit
import logging
import os
import re
import threading
import weakref
from ctypes import byref

from .library import LOG, BackendOptions, call, create, libhct

CPU = -1  # where others have the number of a GPU

log = logging.getLogger("hctfs")


@LOG
def write_log(_, line):
    log.warning("%s", line.decode(errors="replace"))


class Backend:
    """Lives until nobody decodes with it or has memory of it any more."""

    def __init__(self, gpu):
        self.gpu = gpu
        options = BackendOptions(gpu=b"off" if gpu == CPU else b"%d" % gpu, log=write_log)
        self.handle = create("hct_backend_open", byref(options))
        # Not when the interpreter ends: others may still have the memory then.
        weakref.finalize(self, libhct().hct_backend_close, self.handle).atexit = False

    def load(self, reader, loads, layers, stream):
        """loads: an array of Load."""
        call("hct_load_device", self.handle, reader, loads, len(loads), layers, stream)


class Memory:
    """Bytes of a backend's device, freed with the object."""

    def __init__(self, backend, size):
        self.backend, self.size, self.address = backend, size, None
        if size:
            self.address = create("hct_backend_alloc", backend.handle, size)
            weakref.finalize(self, free, backend, self.address).atexit = False

    def copy_to(self, address):
        """To the host's memory."""
        if self.size:
            call("hct_backend_copy", self.backend.handle, address, self.address, self.size)


def free(backend, address):
    libhct().hct_backend_free(backend.handle, address)


backends = {}
lock = threading.Lock()


def backend_of(gpu):
    """The backend of a GPU, or of the CPU, opened when it is first asked for."""
    with lock:
        if gpu not in backends:
            backends[gpu] = Backend(gpu)
            # Behind weakref's own function, which is there by now: it is called before that.
            atexit.unregister(backends.clear)
            atexit.register(backends.clear)
        return backends[gpu]


def forget():
    """After a fork: the threads of the backends are the parent's, and so are the GPU's contexts."""
    global lock
    lock = threading.Lock()
    for backend in backends.values():
        forgotten.append(backend)
    backends.clear()


forgotten = []  # never closed
os.register_at_fork(after_in_child=forget)


def gpu_of(device, current):
    """The number of a device's GPU, or CPU: "cpu", "cuda", "cuda:1", 1, or what reads like these,
    as a torch.device does.  current(): what "cuda" is."""
    text = str(device)
    if text == "cpu":
        return CPU
    if text == "cuda":
        return current()
    found = re.fullmatch(r"(?:cuda:)?(\d{1,4})", text)
    if not found:
        raise ValueError(f"a device is cpu, cuda or cuda:N, not {device!r}")
    return int(found[1])


def name_of(gpu):
    return "cpu" if gpu == CPU else f"cuda:{gpu}"
