"""Tensors in memory of libhct, which others take over by DLPack."""

import atexit
import ctypes
from ctypes import (
    c_char_p,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_uint8,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
)

from .backend import CPU, name_of
from .dtypes import dtype_of, numpy_dtype, unsupported

DEVICE_CPU, DEVICE_CUDA = 1, 2  # DLDeviceType
VERSION = (1, 0)  # of DLPack


class DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", c_void_p),
        ("device_type", c_int),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("code", c_uint8),
        ("bits", c_uint8),
        ("lanes", c_uint16),
        ("shape", c_void_p),
        ("strides", c_void_p),
        ("byte_offset", c_uint64),
    ]


class Managed(ctypes.Structure):
    """DLManagedTensor, which capsules hold for those who know no versions."""

    name = b"dltensor"
    _fields_ = [("tensor", DLTensor), ("context", c_void_p), ("deleter", c_void_p)]


class ManagedVersioned(ctypes.Structure):
    """DLManagedTensorVersioned."""

    name = b"dltensor_versioned"
    _fields_ = [
        ("major", c_uint32),
        ("minor", c_uint32),
        ("context", c_void_p),
        ("deleter", c_void_p),
        ("flags", c_uint64),
        ("tensor", DLTensor),
    ]


def function(library, name, result, *arguments):
    found = library[name]  # an object of our own: others may declare it in another way
    found.restype, found.argtypes = result, arguments
    return found


libc = ctypes.CDLL(None)
malloc = function(libc, "malloc", c_void_p, c_size_t)
free = function(libc, "free", None, c_void_p)
python = ctypes.pythonapi
new_capsule = function(
    python, "PyCapsule_New", ctypes.py_object, c_void_p, c_char_p, c_void_p
)  # fmt: skip
# By address: a capsule that is being destroyed must not become an object again.
capsule_is = function(python, "PyCapsule_IsValid", c_int, c_void_p, c_char_p)
set_destructor = function(python, "PyCapsule_SetDestructor", c_int, c_void_p, c_void_p)
capsule_pointer = function(python, "PyCapsule_GetPointer", c_void_p, c_void_p, c_char_p)

# By the address of a managed tensor that others hold: its memory and kind.
exported = {}
capsules = set()  # addresses of those that there are, taken over or not

Callback = ctypes.CFUNCTYPE(None, c_void_p)


@Callback
def release(address):
    """The deleter: any thread, and once."""
    exported.pop(address, None)
    free(address)


def name_in(capsule):
    """Of what a capsule holds; None when somebody took it over."""
    names = [kind.name for kind in (Managed, ManagedVersioned) if capsule_is(capsule, kind.name)]
    return names[0] if names else None


@Callback
def destroy(capsule):
    capsules.discard(capsule)
    name = name_in(capsule)
    if name:
        release(capsule_pointer(capsule, name))


def leave():
    """The interpreter ends, and others free what they have after that: without Python."""
    while capsules:
        set_destructor(capsules.pop(), None)
    for address, (_, kind) in list(exported.items()):
        kind.from_address(address).deleter = ctypes.cast(free, c_void_p).value


atexit.register(leave)


def export(kind, memory, shape, dtype):
    """A capsule that holds a managed tensor."""
    rank = len(shape)
    row = ctypes.sizeof(c_int64) * rank
    address = malloc(ctypes.sizeof(kind) + 2 * row)
    if not address:
        raise MemoryError
    ctypes.memset(address, 0, ctypes.sizeof(kind))
    sizes = address + ctypes.sizeof(kind)
    ctypes.memmove(sizes, (c_int64 * rank)(*shape), row)
    ctypes.memmove(sizes + row, (c_int64 * rank)(*strides_of(shape)), row)
    managed = kind.from_address(address)
    if kind is ManagedVersioned:
        managed.major, managed.minor = VERSION
    managed.deleter = ctypes.cast(release, c_void_p).value
    tensor = managed.tensor
    tensor.data, tensor.ndim = memory.address, rank
    tensor.shape, tensor.strides = sizes, sizes + row
    tensor.device_type, tensor.device_id = device_of(memory.backend.gpu)
    tensor.code, tensor.bits, tensor.lanes = dtype.dlpack, dtype.bits, 1
    exported[address] = memory, kind
    capsule = new_capsule(address, kind.name, ctypes.cast(destroy, c_void_p))
    capsules.add(id(capsule))
    return capsule


def strides_of(shape):
    """In elements, row-major."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.insert(0, step)
        step *= max(size, 1)
    return strides


def device_of(gpu):
    return (DEVICE_CPU, 0) if gpu == CPU else (DEVICE_CUDA, gpu)


class DeviceTensor:
    """A tensor in memory of the device that it was decoded to; what from_dlpack makes of it shares
    that memory, which is freed when nobody has it any more."""

    def __init__(self, memory, dtype, shape):
        self.dtype = dtype  # as safetensors spells it
        self.shape = tuple(shape)
        self._memory = memory
        # Capsules that nobody took over are destroyed with this object, and not at once: that is
        # in the middle of an exception, in which no callback may run.
        self._capsules = []

    def __del__(self):
        self._capsules.clear()

    def __repr__(self):
        return f"DeviceTensor({self.dtype}, shape={self.shape}, device={self.device!r})"

    @property
    def device(self):
        return name_of(self._memory.backend.gpu)

    @property
    def nbytes(self):
        return self._memory.size

    def data_ptr(self):
        """The address, in the device's memory; 0 for a tensor without bytes."""
        return self._memory.address or 0

    def tobytes(self):
        """What is in it, of any dtype."""
        out = bytearray(self.nbytes)
        if out:
            self._memory.copy_to(ctypes.addressof(c_uint8.from_buffer(out)))
        return bytes(out)

    def numpy(self):
        """A copy on the CPU."""
        from .frameworks import empty_array

        array = empty_array(self.shape, numpy_dtype(self.dtype))
        self._memory.copy_to(array.ctypes.data)
        return array

    def __dlpack_device__(self):
        return device_of(self._memory.backend.gpu)

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        """stream needs nothing: the tensor was decoded when its load returned."""
        if copy or (dl_device is not None and tuple(dl_device) != self.__dlpack_device__()):
            raise BufferError(f"it is given as it is, on {self.device}, and not copied")
        dtype = dtype_of(self.dtype)
        if dtype.dlpack < 0:
            raise BufferError(str(unsupported(self.dtype, "DLPack", "tobytes() has its bytes")))
        kind = ManagedVersioned if max_version and tuple(max_version) >= (1, 0) else Managed
        capsule = export(kind, self._memory, self.shape, dtype)
        self._capsules = [c for c in self._capsules if name_in(id(c))] + [capsule]
        return capsule
