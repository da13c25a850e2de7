"""The codec tcq: hctspec.py against plain arithmetic, and libhct against hctspec.py.

The files of hctcases_tcq.py are checked, extracted, mounted and damaged by test_spec.py and
test_hostile.py together with those of the other codecs.
"""

import ctypes
import math

import numpy as np
import pytest
from helpers import BUILD
from test_hostile import agree, scribbled
from verdict import VARIANTS, check_says, write_bundle

import hctcases
import hctspec
from hctmake import Image
from hctmake_tcq import Layer, TcqCoder, decoded_layers, drawn, flat, lone, peak, tcq_tensor
from hctspec import FLOATS

# The parts of hctspec -----------------------------------------------------------------


@pytest.mark.parametrize("freq", [flat(), lone(3, 29), peak(), sorted(peak(9)), [1, 15] * 16,
                                  *(drawn(np.random.default_rng(i)) for i in range(30))])
def test_slots_share_out_the_ranks(freq):
    """Each symbol has as many slots as its frequency, of ranks 0, 1 ...; a bucket has two."""
    symbol, rank = hctspec.slots_of(freq)
    for s in range(32):
        ranks = [r for r, t in zip(rank, symbol) if t == s]
        assert sorted(ranks) == list(range(freq[s]))
    for i in range(32):
        bucket = symbol[8 * i:8 * i + 8]
        assert len(set(bucket)) <= 2
        assert bucket == sorted(bucket, key=lambda s: s != i)  # its own symbol first


@pytest.mark.parametrize("v", [3, 4, 5])
def test_trellis_is_ungerboecks(v):
    """Every state is reached from two, and every path is a code word."""
    following = hctspec.trellis(v)
    assert sorted(following.reshape(-1).tolist()) == sorted([*range(1 << v)] * 2)
    # The parity check of the code: g of the parities and f of the inputs z, as polynomials of
    # the delay, sum to 0 mod 2 at every step.
    g, f = {3: (0o13, 0o04), 4: (0o23, 0o04), 5: (0o45, 0o10)}[v]
    rng = np.random.default_rng(v)
    z = rng.integers(0, 2, 200).tolist()
    states = [0]
    for bit in z:
        states.append(int(following[states[-1]][bit]))
    parity = [t % 2 for t in states]
    for n in range(v, 200):
        check = sum((g >> i & 1) * parity[n - i] + (f >> i & 1) * z[n - i] for i in range(v + 1))
        assert check % 2 == 0


def value_of(code, dtype):
    """The number that a code of a dtype stands for, from its definition; None for no number."""
    E, M = dtype.E, dtype.M
    sign, exponent, mantissa = code >> (E + M), code >> M & ((1 << E) - 1), code & ((1 << M) - 1)
    if not dtype.signed_zero and code == 1 << (E + M):
        return None
    value = (math.ldexp(mantissa, 1 - dtype.bias - M) if exponent == 0
             else math.ldexp((1 << M) + mantissa, exponent - dtype.bias - M))
    return -value if sign else value


@pytest.mark.parametrize("name", ["BF16", "F16", "F8_E5M2", "F8_E4M3", "F8_E5M2FNUZ",
                                  "F8_E4M3FNUZ"])
def test_rounding_goes_to_the_nearest_even(name):
    """Each finite number of a dtype stays, what lies between goes to the nearer one."""
    dtype = FLOATS[name]
    positive = [value_of(code, dtype) for code in range(1 << (8 * dtype.W - 1))]
    finite = np.array([v for v in positive if v <= dtype.largest])
    assert finite[-1] == dtype.largest and (np.diff(finite) > 0).all()
    assert {"BF16": 0x7F7F, "F16": 0x7BFF, "F8_E5M2": 0x7B, "F8_E4M3": 0x7E, "F8_E5M2FNUZ": 0x7F,
            "F8_E4M3FNUZ": 0x7F}[name] == len(finite) - 1

    def codes(values):
        return np.frombuffer(hctspec.rounded(np.array(values, np.float32), dtype),
                             f"<u{dtype.W}").astype(int)

    top = 1 << (8 * dtype.W - 1)
    numbers = np.arange(len(finite))
    assert (codes(finite) == numbers).all()
    minus = np.where(numbers + dtype.signed_zero > 0, top, 0) + numbers
    assert (codes(-finite) == minus).all()
    # float32 has every number half-way between two, but for the least of BF16.
    middle = (finite[1:] + finite[:-1]) / 2
    middle = middle[middle.astype(np.float32) == middle]
    low = np.searchsorted(finite, middle) - 1
    assert (codes(middle) == low + low % 2).all()
    inf = np.float32(np.inf)
    below, above = (np.nextafter(middle.astype(np.float32), end) for end in (-inf, inf))
    assert (codes(below) == low).all() and (codes(above) == low + 1).all()
    great = [np.nextafter(np.float32(dtype.largest), inf), 3.4e38, np.inf]
    assert set(codes(great)) == {len(finite) - 1}
    assert set(codes([-v for v in great])) == {top + len(finite) - 1}
    assert codes([np.nan, -np.nan, 0.0, -0.0]).tolist() == [0, 0, 0, top * dtype.signed_zero]


@pytest.mark.parametrize("name", ["F32", "F64"])
def test_rounding_to_wider_dtypes(name):
    dtype, kind = FLOATS[name], {"F32": "<f4", "F64": "<f8"}[name]
    bits = np.random.default_rng(3).integers(0, 1 << 32, 10_000, dtype=np.uint32)
    some = bits.view(np.float32)
    some = np.concatenate([some[np.isfinite(some)],
                           np.array([0.0, -0.0, 1e-45, -1e-45, 3.4028235e38], np.float32)])
    assert hctspec.rounded(some, dtype) == some.astype(kind).tobytes()
    ends = np.array([np.inf, -np.inf, np.nan], np.float32)
    largest = np.finfo(kind).max
    assert hctspec.rounded(ends, dtype) == np.array([largest, -largest, 0], kind).tobytes()


def cosines(N):
    """x[n] = sum over k of X[k] cos(pi (2n+1) k / 2N), X[0] halved in power: in float64."""
    n, k = np.arange(N)[:, None], np.arange(N)
    basis = np.cos(np.pi * (2 * n + 1) * k / (2 * N))
    if N > 1:
        basis[:, 0] *= math.sqrt(0.5)
    return basis


@pytest.mark.parametrize("rows_log2", range(7))
@pytest.mark.parametrize("columns_log2", range(7))
def test_transform_is_the_cosine_transform(rows_log2, columns_log2):
    R, S = 1 << rows_log2, 1 << columns_log2
    X = np.random.default_rng([R, S]).standard_normal((2 * R, 3 * S)).astype(np.float32)
    found = hctspec.transformed_back(X.reshape(-1).copy(), 3 * S, R, S)
    tiles = X.astype(np.float64).reshape(2, R, 3, S)
    expected = np.einsum("rk,akbl,sl->arbs", cosines(R), tiles, cosines(S)).reshape(-1)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= 4e-6 * math.sqrt(R * S) * (1 + max(R, S) / 8)


@pytest.mark.parametrize("b", [0, 1, 7])
def test_points_are_what_was_drawn(b):
    """Encoded and decoded, each element is the point that was chosen for it."""
    coder = TcqCoder("F64", 70, layers=[Layer(Q=4, K=5, run=0, b=b, states_log2=4, step=0.7)])
    payloads = coder.draw(3333, 100)
    decoded, = decoded_layers(coder, payloads, 3333, 100)
    step = np.float32(0.7) * np.float32(2.0**-6)
    points = [float(np.float32(n) * step) for n in coder.points[0]]
    assert np.frombuffer(decoded, "<f8").tolist() == points
    assert len({p % 2 for p in coder.points[0]}) == (2 if b == 0 else 1)


def test_exceptions_are_added():
    numbers = {0: 5, 63: -1, 64: 0, 1023: -70_000, 1500: 3, 1999: 16_000_000}

    def of_segment(m, rng):
        first = 0 if m == 1024 else 1024
        return {p - first: e for p, e in numbers.items() if first <= p < first + m}

    coder = TcqCoder("F32", 50, layers=[Layer(step=0.3, exceptions=of_segment, low=15)])
    payloads = coder.draw(2000, 0)
    decoded, = decoded_layers(coder, payloads, 2000, 0)
    step = np.float32(0.3)
    expected = [np.float32(n) * (step * np.float32(2.0**-6)) for n in coder.points[0]]
    for p, e in numbers.items():
        expected[p] = expected[p] + np.float32(e) * step
    assert decoded == np.array(expected, np.float32).tobytes()


def test_decoding_stops_after_any_layer():
    """Each layer has the digest of what there is up to it."""
    data = hctcases.VALID["tcq_layers_4"]()
    file = hctspec.File(data)
    found = [file.decode_chunk(0, layers) for layers in (1, 2, 3, 4)]
    assert len(set(found)) == 4
    assert found[3] == file.decode_chunk(0)
    # Later layers may be damaged then.
    image = Image.from_bytes(data)
    image.extents[3].payload, image.extents[2].digest = b"damaged", 1
    file = hctspec.File(image.build())
    assert file.decode_chunk(0, 2) == found[1]
    for layers, error in ((3, "DIGEST"), (4, "CORRUPT")):
        with pytest.raises(hctspec.SpecError, match=error):
            file.decode_chunk(0, layers)


def test_infinities_and_what_is_no_number_occur():
    """Otherwise the case of that name would show less than it says."""
    file = hctspec.File(hctcases.VALID["tcq_infinities"]())
    number = next(i for i, t in enumerate(file.tensors) if t.dtype == "F64")
    values = np.frombuffer(file.decode_chunk(number), "<f8")
    largest = np.finfo("<f8").max
    assert (values == largest).any() and (values == -largest).any() and (values == 0).any()


# libhct ------------------------------------------------------------------------------


def drawn_tensor(rng, name):
    """A tensor whose every parameter is drawn."""
    dtype = str(rng.choice(list(FLOATS)))
    tile = (0, 0) if rng.random() < 0.4 else tuple(rng.integers(0, 7, 2).tolist())
    R, S = 1 << tile[0], 1 << tile[1]
    columns = S * int(rng.integers(1, max(2, 300 // S)))
    unit = R * columns if R > 1 else S
    chunk = unit * max(1, int(rng.integers(1, 5000)) // unit)
    elements = chunk + unit * int(rng.integers(0, chunk // unit + 1))
    layers = [Layer(states_log2=int(rng.integers(3, 6)), Q=int(rng.choice([1, 2, 4])),
                    K=int(rng.integers(1, 17)), run=int(rng.integers(0, 11)),
                    b=int(rng.choice([0, 0, 0, 1, 2, 5, 7])), seed=int(rng.integers(1 << 30)),
                    step=float(np.float32(2.0 ** rng.uniform(-14, 1))),
                    exceptions=float(rng.choice([0, 0.001, 0.05])),
                    rice=int(rng.integers(0, 16)), low=int(rng.integers(0, 16)))
              for _ in range(rng.choice([1, 1, 2, 3, 4]))]
    coder = TcqCoder(dtype, columns, layers, tile, int(rng.integers(10, 14)),
                     seed=int(rng.integers(1 << 30)))
    return tcq_tensor(name, coder, elements, chunk)


@pytest.mark.parametrize("seed", range(4))
def test_libhct_decodes_what_is_drawn(seed, tmp_path):
    """The digests are of what hctspec decodes."""
    rng = np.random.default_rng([77, seed])
    files = {f"drawn{i}": Image.of([drawn_tensor(rng, f"t{k}") for k in range(3)]).build()
             for i in range(15)}
    bundle = write_bundle(tmp_path / "bundle", files)
    for variant in VARIANTS:
        assert check_says(bundle, variant) == {}, variant


@pytest.fixture(scope="module")
def libhct():
    path = BUILD / "libhct.so"
    if b"__asan_init" in path.read_bytes():
        pytest.skip("Python cannot load a library that was built with a sanitizer")
    lib = ctypes.CDLL(str(path))
    lib.hct_reader_decode_verified.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64,
                                               ctypes.c_char_p, ctypes.c_void_p]
    return lib


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["tcq_layers_2", "tcq_layers_3_tiles", "tcq_layers_4",
                                  "tcq_layers_4_tiles", "tcq_mixed"])
def test_libhct_stops_after_any_layer(libhct, name, variant, tmp_path):
    """What a decoder gives that was told to stop early is what hctspec decodes, too."""
    path = tmp_path / "file.hct"
    path.write_bytes(hctcases.VALID[name]())
    file = hctspec.open(path)
    reader, decoder = ctypes.c_void_p(), ctypes.c_void_p()
    simd = {"scalar": 1, "avx2": 2, "avx512": 3}[variant]
    assert libhct.hct_decoder_create(simd, ctypes.byref(decoder)) == 0
    assert libhct.hct_reader_open(str(path).encode(), ctypes.byref(reader), None) == 0
    try:
        for number, (i, _) in enumerate(file.chunks):
            for layers in range(file.tensors[i].layers + 1):  # 0 is all
                libhct.hct_decoder_set_layers(decoder, layers)
                expected = file.decode_chunk(number, layers)
                found = ctypes.create_string_buffer(len(expected))
                assert libhct.hct_reader_decode_verified(reader, decoder, number, found,
                                                         None) == 0
                assert found.raw == expected
    finally:
        libhct.hct_reader_close(reader)
        libhct.hct_decoder_free(decoder)


SCRIBBLED = ["tcq_bf16", "tcq_f8_e4m3", "tcq_raw_3", "tcq_layers_2_tiles", "tcq_freq_lone",
             "tcq_tile_4x4_of_36", "tcq_row_classes_16", "tcq_exceptions_everywhere"]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("part", ["payload", "params"])
def test_scribbles_in_tcq(part, variant, tmp_path):
    """Whatever happens to payloads and tables, both decoders come to the same conclusion."""
    rng = np.random.default_rng([8, *part.encode()])
    images = [hctcases.VALID[name]() for name in SCRIBBLED]
    files = {f"{part}{i}": scribbled(rng, images[i % len(images)], part) for i in range(240)}
    verdicts = agree(tmp_path / "bundle", files, variant)
    assert len(set(verdicts.values())) > 1
