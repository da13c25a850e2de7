"""Memory to decode into, as each framework has it."""

import importlib.util
import math
import sys

from .backend import CPU, Memory, backend_of, gpu_of, name_of
from .dlpack import DeviceTensor
from .dtypes import dtype_of, numpy_dtype, unsupported

ALIGNMENT = 64


def empty_array(shape, dtype):
    """A numpy array where libhct decodes to."""
    import numpy as np

    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % ALIGNMENT
    return memory[begin : begin + size].view(dtype).reshape(shape)


class Numpy:
    """What each of these has: empty(), with the address and the bytes of a new tensor, stream(),
    own(), and gpu."""

    def __init__(self, gpu):
        if gpu != CPU:
            raise ValueError(f'numpy has no arrays on {name_of(gpu)}: ask for "pt" or "dlpack"')
        self.gpu = gpu

    def empty(self, dtype, shape, _):
        array = empty_array(shape, numpy_dtype(dtype))
        return array, array.ctypes.data, array.nbytes

    def stream(self):
        return None

    def own(self, part, whole):
        """A part with memory of its own, so that it does not keep what it was cut from."""
        return part.copy() if part.nbytes < whole.nbytes else part


class Torch:
    def __init__(self, gpu):
        import torch

        self.torch, self.gpu = torch, gpu
        self.device = torch.device(name_of(gpu))

    def type_of(self, dtype):
        word = dtype_of(dtype).torch
        if not word or not hasattr(self.torch, word):
            hint = 'framework="dlpack" gives an object with tobytes()'
            raise unsupported(dtype, f"torch {self.torch.__version__}", hint)
        return getattr(self.torch, word)

    def empty(self, dtype, shape, _):
        if dtype == "F4":  # two in an element
            if not shape or shape[-1] % 2:
                raise unsupported(dtype, "torch", f"rows of {shape} are not of whole bytes")
            shape = (*shape[:-1], shape[-1] // 2)
        tensor = self.torch.empty(shape, dtype=self.type_of(dtype), device=self.device)
        return tensor, tensor.data_ptr(), tensor.nbytes

    def stream(self):
        if self.gpu == CPU:
            return None
        return self.torch.cuda.current_stream(self.device).cuda_stream

    def own(self, part, whole):
        if part.nbytes >= whole.nbytes:
            return part
        return part.clone(memory_format=self.torch.contiguous_format)


class Dlpack:
    def __init__(self, gpu):
        self.gpu = gpu

    def empty(self, dtype, shape, size):
        memory = Memory(backend_of(self.gpu), size)
        return DeviceTensor(memory, dtype, shape), memory.address, size

    def stream(self):
        return None


FRAMEWORKS = {
    "pt": Torch,
    "torch": Torch,
    "pytorch": Torch,
    "np": Numpy,
    "numpy": Numpy,
    "dlpack": Dlpack,
}


def has_torch(gpu):
    """Whether torch is installed, and has the device."""
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return gpu == CPU or torch.cuda.is_available()


def current_gpu():
    """What torch calls "cuda", where it is in use."""
    torch = sys.modules.get("torch")
    return torch.cuda.current_device() if torch and torch.cuda.is_available() else 0


def framework_of(word, device):
    """One of these, for a device as a user names it."""
    gpu = gpu_of(device, current_gpu)
    if word is None:
        word = "pt" if has_torch(gpu) else "np" if gpu == CPU else "dlpack"
    if word not in FRAMEWORKS:
        raise ValueError(f'a framework is "pt", "np" or "dlpack", not {word!r}')
    return FRAMEWORKS[word](gpu)
