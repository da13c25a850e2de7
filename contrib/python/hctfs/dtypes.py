"""The dtypes of safetensors, and what others call them."""

from typing import NamedTuple


class Dtype(NamedTuple):
    bits: int
    numpy: str  # or ml_dtypes; "" where elements have no bytes of their own
    torch: str
    dlpack: int  # DLDataTypeCode, or -1


DTYPES = {
    "BOOL": Dtype(8, "bool", "bool", 6),
    "F4": Dtype(4, "", "float4_e2m1fn_x2", -1),
    "F6_E2M3": Dtype(6, "", "", -1),
    "F6_E3M2": Dtype(6, "", "", -1),
    "U8": Dtype(8, "uint8", "uint8", 1),
    "I8": Dtype(8, "int8", "int8", 0),
    "F8_E5M2": Dtype(8, "float8_e5m2", "float8_e5m2", 12),
    "F8_E4M3": Dtype(8, "float8_e4m3fn", "float8_e4m3fn", 10),
    "F8_E8M0": Dtype(8, "float8_e8m0fnu", "float8_e8m0fnu", 14),
    "F8_E4M3FNUZ": Dtype(8, "float8_e4m3fnuz", "float8_e4m3fnuz", 11),
    "F8_E5M2FNUZ": Dtype(8, "float8_e5m2fnuz", "float8_e5m2fnuz", 13),
    "I16": Dtype(16, "int16", "int16", 0),
    "U16": Dtype(16, "uint16", "uint16", 1),
    "F16": Dtype(16, "float16", "float16", 2),
    "BF16": Dtype(16, "bfloat16", "bfloat16", 4),
    "I32": Dtype(32, "int32", "int32", 0),
    "U32": Dtype(32, "uint32", "uint32", 1),
    "F32": Dtype(32, "float32", "float32", 2),
    "C64": Dtype(64, "complex64", "complex64", 5),
    "F64": Dtype(64, "float64", "float64", 2),
    "I64": Dtype(64, "int64", "int64", 0),
    "U64": Dtype(64, "uint64", "uint64", 1),
}

UNKNOWN = Dtype(0, "", "", -1)


def dtype_of(name):
    return DTYPES.get(name, UNKNOWN)


def unsupported(dtype, framework, hint):
    return TypeError(f"{framework} has no type for {dtype}: {hint}")


def numpy_dtype(name):
    """TypeError where neither numpy nor ml_dtypes has it."""
    import numpy as np

    word = dtype_of(name).numpy
    if not word:
        raise unsupported(name, "numpy", 'framework="dlpack" gives an object with tobytes()')
    if hasattr(np, word):
        return np.dtype(getattr(np, word))
    try:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, word))
    except (ImportError, AttributeError):
        hint = 'install ml_dtypes, or ask for framework="pt" or "dlpack"'
        raise unsupported(name, "numpy", hint) from None
