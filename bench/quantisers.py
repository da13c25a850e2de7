"""The quantisers that people use today, on the matrices of a safetensors model: ggml's and NF4.

    python quantisers.py MODEL [--dtype f32|bf16|f16] [--json FILE] [--rounds N]

MODEL is a file or a directory of them.  Every 2-D tensor of floating point is a matrix; --dtype
rounds it first (to nearest even), and errors are against the rounded values.  Blocks run over a
matrix in row-major order, the last one filled with zeros: for rows that are a multiple of the
block this is what ggml does, and the other rows it would give to another type.  No importance
matrix.  Of each quantiser over all matrices together:

    bits                    bytes of the blocks, scales included, * 8 / weights
    relative_squared_error  sum (a - b)^2 / sum a^2, in double
    cosine                  sum a b / sqrt(sum a^2 sum b^2), in double
    encode_, decode_mweights  million weights a second on one core, from and to whole matrices of
                            F32 in memory, best of N (3 N to decode)

--json writes these as a list of rows, with name and note.  A quantiser that is not to be had has
nulls, and its note says why.
"""

import argparse
import ctypes
import glob
import importlib.util
import json
import logging
import math
import os
import struct
import sys
import time

os.environ["OMP_NUM_THREADS"] = "1"  # before anything with OpenMP is loaded

import numpy as np  # noqa: E402

# Numbers of enum ggml_type, which GGUF files store; checked against the library's names.
GGML_TYPES = {"Q8_0": 8, "Q6_K": 14, "Q5_K": 13, "Q4_K": 12, "Q4_0": 2, "IQ4_XS": 23, "Q3_K": 11,
              "Q2_K": 10}
READ = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class Unavailable(Exception):
    pass


# The matrices

def round_bf16(a):
    """F32 values at the nearest BF16, ties to even."""
    bits = a.view(np.uint32)
    kept = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(a), a, kept.view(np.float32))


def to_f32(raw, dtype):
    values = np.frombuffer(raw, READ[dtype])
    if dtype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def matrices(path):
    """The matrices of one safetensors file, each as one run of F32."""
    with open(path, "rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for name, tensor in sorted(header.items()):
            begin, end = tensor["data_offsets"]
            if len(tensor["shape"]) == 2 and tensor["dtype"] in READ and end > begin:
                file.seek(8 + length + begin)
                yield name, to_f32(file.read(end - begin), tensor["dtype"])


def load(model, dtype):
    shards = sorted(glob.glob(os.path.join(glob.escape(model), "*.safetensors")))
    paths = shards if os.path.isdir(model) else [model]
    found = []
    for path in paths:
        for name, a in matrices(path):
            if dtype == "bf16":
                a = round_bf16(a)
            elif dtype == "f16":
                a = a.astype(np.float16).astype(np.float32)
            if np.isfinite(a).all():
                found.append(np.ascontiguousarray(a))
            else:
                print(f"left out, not finite: {name}", file=sys.stderr)
    if not found:
        raise SystemExit(f"quantisers: {model}: no matrices of floating point")
    return found


# ggml, through its shared library

class TypeTraits(ctypes.Structure):
    """The start of struct ggml_type_traits in ggml.h."""

    _fields_ = [("type_name", ctypes.c_char_p), ("block_size", ctypes.c_int64),
                ("block_size_interleave", ctypes.c_int64), ("type_size", ctypes.c_size_t),
                ("is_quantized", ctypes.c_bool),
                ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p,
                                              ctypes.c_int64))]


def ggml_library():
    """libggml-base as ggml-python or llama-cpp-python bring it; neither is imported."""
    for package in ("ggml", "llama_cpp"):
        spec = importlib.util.find_spec(package)
        for folder in spec.submodule_search_locations if spec else []:
            for path in glob.glob(os.path.join(folder, "lib", "libggml-base.*")):
                return declare(ctypes.CDLL(path))
    raise Unavailable("ggml-python is not installed (it is built by pip with a C++ compiler)")


def declare(library):
    library.ggml_get_type_traits.restype = ctypes.POINTER(TypeTraits)
    library.ggml_get_type_traits.argtypes = [ctypes.c_int]
    library.ggml_quantize_init.argtypes = [ctypes.c_int]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [
        ctypes.c_int64] * 3 + [ctypes.c_void_p]
    return library


class Ggml:
    def __init__(self, name):
        self.library = ggml_library()
        self.type = GGML_TYPES[name]
        self.traits = self.library.ggml_get_type_traits(self.type).contents
        if self.traits.type_name.decode().upper() != name:
            raise Unavailable(f"type {self.type} of this ggml is {self.traits.type_name.decode()}")
        self.library.ggml_quantize_init(self.type)
        self.values = np.empty(0, np.float32)

    def prepare(self, a):
        return np.pad(a, (0, -a.size % self.traits.block_size))

    def encode(self, a):
        packed = np.empty(a.size // self.traits.block_size * self.traits.type_size, np.uint8)
        used = self.library.ggml_quantize_chunk(self.type, a.ctypes.data, packed.ctypes.data,
                                                0, 1, a.size, None)
        assert used == packed.size
        return packed

    def decode(self, packed):
        count = packed.size // self.traits.type_size * self.traits.block_size
        if self.values.size < count:
            self.values = np.empty(count, np.float32)
        self.traits.to_float(packed.ctypes.data, self.values.ctypes.data, count)
        return self.values[:count]

    def bytes(self, packed):
        return packed.size


class Nf4:
    """NF4 of QLoRA: blocks of 64 with an absmax scale each, which is a float or, with double
    quantisation, 8 bits within blocks of 256 that have a float each."""

    def __init__(self, double):
        # It warns of a package for fast products, which are not asked for here.
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        try:
            import torch
            from bitsandbytes import functional
        except Exception as error:  # a broken installation raises more than ImportError
            raise Unavailable(f"bitsandbytes cannot be loaded ({error})") from error
        torch.set_num_threads(1)
        self.torch, self.functional, self.double = torch, functional, double

    def prepare(self, a):
        return self.torch.from_numpy(a)

    def encode(self, a):
        return self.functional.quantize_4bit(a, blocksize=64, quant_type="nf4",
                                             compress_statistics=self.double)

    def decode(self, packed):
        return self.functional.dequantize_4bit(*packed).numpy().reshape(-1)

    def bytes(self, packed):
        parts = [packed[0], packed[1].absmax]
        if self.double:
            parts += [packed[1].state2.absmax, packed[1].offset]
        return sum(part.numel() * part.element_size() for part in parts)


# Measuring

def keep_memory():
    """Lets glibc hand out again what was freed: new pages would take as long as the decoding."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(-3, 1 << 25)  # M_MMAP_THRESHOLD, at its highest
    mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


def best_of(rounds, function, inputs, see=lambda i, output: None):
    """Seconds of the fastest round; see() gets each output of the first, off the clock."""
    best = math.inf
    for k in range(rounds):
        seconds = 0.0
        for i, x in enumerate(inputs):
            start = time.process_time()
            output = function(x)
            seconds += time.process_time() - start
            if k == 0:
                see(i, output)
        best = min(best, seconds)
    return best


def measure(quantiser, found, rounds):
    packed, sums = [], np.zeros(4)

    def add(i, output):
        a, b = found[i].astype(np.float64), output[:found[i].size].astype(np.float64)
        sums[:] += np.dot(a, a), np.dot(b, b), np.dot(a, b), np.dot(a - b, a - b)

    prepared = [quantiser.prepare(a) for a in found]
    encode = best_of(rounds, quantiser.encode, prepared, lambda i, output: packed.append(output))
    decode = best_of(3 * rounds, quantiser.decode, packed, add)
    weights = sum(a.size for a in found)
    aa, bb, ab, error = map(float, sums)
    return {"bits": 8 * sum(map(quantiser.bytes, packed)) / weights,
            "relative_squared_error": error / aa if aa else 0.0,
            "cosine": ab / math.sqrt(aa * bb) if aa * bb else 1.0,
            "encode_mweights": 1e-6 * weights / encode,
            "decode_mweights": 1e-6 * weights / decode,
            "note": ""}


def print_row(row):
    if row["bits"] is None:
        print(f"  {row['name']:<28} {row['note']}")
    else:
        print(f"  {row['name']:<28} {row['bits']:8.4f} {row['relative_squared_error']:11.3e}"
              f" {row['cosine']:9.6f} {row['encode_mweights']:10.1f}"
              f" {row['decode_mweights']:10.0f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a safetensors file, or a directory of them")
    parser.add_argument("--dtype", choices=("f32", "bf16", "f16"))
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    keep_memory()
    try:
        found = load(args.model, args.dtype)
    except (OSError, ValueError, KeyError, MemoryError, struct.error) as error:
        raise SystemExit(f"quantisers: {args.model}: not a safetensors model ({error!r})") from None
    print(f"{len(found)} matrices as {args.dtype or 'they are'},"
          f" {sum(a.size for a in found)} weights, one core")
    print(f"  {'':<28} {'bits':>8} {'error':>11} {'cosine':>9} {'enc Mw/s':>10} {'dec Mw/s':>10}")
    makers = [(name, lambda name=name: Ggml(name)) for name in GGML_TYPES]
    makers += [("NF4", lambda: Nf4(False)), ("NF4 double", lambda: Nf4(True))]
    rows = []
    for name, make in makers:
        try:
            row = measure(make(), found, max(args.rounds, 1))
        except Unavailable as reason:
            row = dict.fromkeys(("bits", "relative_squared_error", "cosine", "encode_mweights",
                                 "decode_mweights"))
            row["note"] = f"not available: {reason}"
        rows.append({"name": name, **row})
        print_row(rows[-1])
    if args.json:
        with open(args.json, "w") as file:
            json.dump(rows, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
