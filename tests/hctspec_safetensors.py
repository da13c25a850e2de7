"""The header of a safetensors file, for hctspec.py."""

import json

from hctspec_bytes import SpecError, need

# Bits of an element, by the name in the header.
DTYPE_BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8,
    "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}


def dtype_unit(dtype):
    """Bytes of an element; 1 for dtypes of less than a byte or unknown ones."""
    return max(1, DTYPE_BITS.get(dtype, 8) // 8)


def dtype_element(dtype):
    """The same, but the two halves of a complex number are elements of their own."""
    return 4 if dtype == "C64" else dtype_unit(dtype)


def parse_safetensors(header, file_size):
    """[(name, dtype, shape, begin, end)] in the order of the data."""

    def check(condition, message):
        need(condition, "SAFETENSORS", message)

    def unique(pairs):
        check(len({k for k, _ in pairs}) == len(pairs), "a key occurs twice")
        return dict(pairs)

    def counts(value):
        return isinstance(value, list) and all(
            type(v) is int and 0 <= v < 1 << 64 for v in value)

    check(len(header) >= 8 and 8 + int.from_bytes(header[:8], "little") == len(header),
          "header length is wrong")
    check(header[8:9] == b"{", "the header does not begin with {")
    try:
        # Spaces may fill up the end.
        document = json.loads(header[8:].decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as e:
        raise SpecError("SAFETENSORS", f"not JSON: {e}") from None

    metadata = document.pop("__metadata__", {})
    check(isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values()),
          "__metadata__ is not a map of strings")
    tensors = []
    for name, info in document.items():
        check(isinstance(info, dict) and {"dtype", "shape", "data_offsets"} <= info.keys(),
              f"{name}: dtype, shape or data_offsets is missing")
        dtype, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
        check(isinstance(dtype, str), f"{name}: dtype")
        check(counts(shape), f"{name}: shape")
        check(counts(offsets) and len(offsets) == 2 and offsets[0] <= offsets[1],
              f"{name}: data_offsets")
        if dtype in DTYPE_BITS:
            elements = 1
            for d in shape:
                elements *= d
            check(elements * DTYPE_BITS[dtype] == 8 * (offsets[1] - offsets[0]),
                  f"{name}: shape and data_offsets disagree")
        tensors.append((name, dtype, shape, *offsets))
    tensors.sort(key=lambda t: (t[3], t[4]))  # stable: then in the order of the text
    position = 0
    for name, _, _, begin, end in tensors:
        check(begin == position, f"{name}: hole or overlap in the data")
        position = end
    check(len(header) + position == file_size, "the data do not fill the file")
    return tensors
