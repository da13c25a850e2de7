"""Tensors of compressed models, without a mount: on the CPU, or decoded straight to a GPU.

    from hctfs import load_file, safe_open

    tensors = load_file("llama.hct", device="cuda:0")

    with safe_open("model.safetensors.hct", framework="pt", device="cuda:0") as model:
        part = model.get_slice("lm_head.weight")[:16000]     # reads that part of the file

Both do what their namesakes of safetensors do.  A path is an .hct file, or a bundle that mkhct
made, of which every model file right in the folder counts.

A framework is "pt" (torch), "np" (numpy, on the CPU) or "dlpack" (DeviceTensor, which torch, cupy
and jax take over with from_dlpack).  Without one it is torch where that is installed and has the
device, otherwise numpy on the CPU and "dlpack" on a GPU.

libhct is what HCT_LIBRARY names, or that of the checkout this lies in, or the system's.  Any
number of threads may use everything here.  Errors are HctError with libhct's line, but
FileNotFoundError and MemoryError for what these are.
"""

from .dlpack import DeviceTensor
from .library import HctError
from .model import load_file, safe_open

__all__ = ["DeviceTensor", "HctError", "load_file", "safe_open"]
