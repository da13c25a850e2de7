"""Other lossless coders of weights on the tensor data of one safetensors file: ZipNN and OpenZL.

    python peers.py FILE.safetensors DTYPE          (DTYPE: bf16, f16 or f32)

Prints rows like those of bench_lossless: ratio of the whole file (its header counted as it is),
encode and decode rate on one core, best of three.  A coder that is not installed is said to be
missing.
"""

import struct
import sys
import time

ROUNDS = 3


def row(name, header, data, compress, decompress):
    encode, decode = [], []
    for _ in range(ROUNDS):
        start = time.process_time()
        packed = compress(data)
        encode.append(time.process_time() - start)
        start = time.process_time()
        plain = decompress(packed)
        decode.append(time.process_time() - start)
    if bytes(plain) != bytes(data):
        raise SystemExit(f"{name} does not give the same bytes back")
    ratio = (header + len(data)) / (header + len(packed))
    print(f"  {name:<28} {ratio:8.4f} {1e-6 * len(data) / min(encode):10.0f}"
          f" {1e-9 * len(data) / min(decode):10.2f}")


def zipnn_row(header, data, dtype):
    from zipnn import ZipNN

    name = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}[dtype]
    coder = ZipNN(input_format="byte", bytearray_dtype=name, threads=1)
    # It compresses in place: give it a copy each time.
    row("zipnn", header, data, lambda d: coder.compress(bytearray(d)), coder.decompress)


def openzl_row(header, data, dtype):
    import numpy
    import openzl.ext as zl

    compressor = zl.Compressor()
    split = {"bf16": zl.nodes.BFloat16Deconstruct, "f16": zl.nodes.Float16Deconstruct,
             "f32": zl.nodes.Float32Deconstruct}[dtype]()
    numbers = (zl.nodes.ConvertSerialToNumLE32 if dtype == "f32" else
               zl.nodes.ConvertSerialToNumLE16)()
    # Its F16 split leaves sign and fraction, 11 bits, in 16: these must be compressed as well.
    rest = zl.graphs.Compress() if dtype == "f16" else zl.graphs.Store()
    exponent = zl.graphs.Compress() if dtype == "f16" else zl.graphs.Entropy()
    graph = split(compressor, sign_frac=rest, exponent=exponent)
    compressor.select_starting_graph(numbers(compressor, graph))
    encoder, decoder = zl.CCtx(), zl.DCtx()

    def compress(d):
        # Parameters last for one call.
        encoder.ref_compressor(compressor)
        encoder.set_parameter(zl.CParam.FormatVersion, zl.MAX_FORMAT_VERSION)
        return encoder.compress([zl.Input(zl.Type.Serial, numpy.frombuffer(d, numpy.uint8))])

    row("openzl, float deconstruct", header, data, compress,
        lambda packed: decoder.decompress(packed)[0].content.as_bytes())


def main():
    path, dtype = sys.argv[1:]
    with open(path, "rb") as file:
        raw = file.read()
    header = 8 + struct.unpack("<Q", raw[:8])[0]
    for name, function in (("zipnn", zipnn_row), ("openzl", openzl_row)):
        try:
            function(header, raw[header:], dtype)
        except ImportError as error:
            print(f"  {name:<28} not installed ({error})")


if __name__ == "__main__":
    main()
