"""The cases of the codecs coef and lowrank: registered under
names that begin with coef_ and lowrank_."""

import math
import struct

from hctcases_made import VALID, damage, valid
from hctmake import Image, change, zstd_frame
from hctmake_literal import ALL, NONE, STORED, ZSTD, CoefCoder, LowrankCoder, literal_tensor
from hctmake_tcq import Layer
from hctspec import FLOATS


def coef_image(dtype="BF16", n=2500, chunk=1100, columns=100, **options):
    made = literal_tensor("w", CoefCoder(dtype, columns, **options), n, chunk)
    return Image.of([made]), made


def lowrank_image(dtype="BF16", rows=50, chunk_rows=30, columns=40, rank=3, **options):
    made = literal_tensor("w", LowrankCoder(dtype, columns, rank, **options), rows * columns,
                          chunk_rows * columns)
    return Image.of([made]), made


def case(name, image, **options):
    VALID[name] = lambda: image(**options)[0].build()


# ---------------------------------------------------------------- valid

for _dtype in FLOATS:
    case(f"coef_{_dtype.lower()}", coef_image, dtype=_dtype)
    case(f"lowrank_{_dtype.lower()}", lowrank_image, dtype=_dtype)
for _form in (NONE, STORED, ZSTD):
    for _half in (NONE, STORED, ZSTD, ALL):
        case(f"coef_masks_{_form}_{_half}", coef_image, form=_form, half_form=_half, dtype="F32")
for _kept in (0, 1):
    case(f"coef_kept_{_kept}", coef_image, kept=_kept, halves=0.5)
for _exponent in (-100, -24, 60):
    case(f"coef_exponent_{_exponent}", coef_image, exponent=_exponent, dtype="F32")
for _rows, _columns, _width in ((0, 3, 40), (3, 0, 37), (2, 2, 60), (6, 6, 64), (1, 5, 32)):
    _whole = _width << _rows
    case(f"coef_tile_{1 << _rows}x{1 << _columns}", coef_image, columns=_width,
         tile=(_rows, _columns), n=3 * _whole, chunk=2 * _whole, dtype="F32")
case("coef_1_element", coef_image, n=1, chunk=1, columns=1)
case("coef_many_columns", coef_image, columns=(1 << 32) - 1)
case("lowrank_1", lowrank_image, rank=1)
case("lowrank_full", lowrank_image, rank=17, columns=17, dtype="F32")
case("lowrank_1_column", lowrank_image, rank=1, columns=1, rows=2000, chunk_rows=1999)
case("lowrank_raw_bits", lowrank_image, dtype="F32", rank=7,
     u={"layers": [Layer(b=3, Q=4, exceptions=0.02)], "segment": 10},
     v={"layers": [Layer(b=5, K=5, run=0, exceptions=0.02)]})
case("lowrank_tiles", lowrank_image, dtype="F32", rank=8, rows=48, chunk_rows=32,
     u={"tile": (3, 2)}, v={"tile": (1, 3)})
case("lowrank_u_columns_7", lowrank_image, dtype="F32", u_columns=7, chunk_rows=20,
     u={"layers": [Layer(Q=4, seed=3)]})
case("lowrank_infinite", lowrank_image, dtype="F32", rank=4, u={"layers": [Layer(step=2.0**100)]},
     v={"layers": [Layer(step=2.0**100)]})


@valid
def literal_mixed():
    """Both codecs in one file, and unused bits and bytes that are not zero."""
    image = Image.of([
        literal_tensor("a", CoefCoder("F16", 64, tile=(3, 3)), 64 * 24, 64 * 16),
        literal_tensor("b", LowrankCoder("F8_E5M2", 33, 2), 33 * 9, 33 * 4),
        literal_tensor("c", CoefCoder("F32", 9, form=STORED), 1001, 1001),
    ])
    payload = bytearray(image.extents[-1].payload)
    payload[2:4] = b"\xff\xff"
    payload[12 + 125] |= 0xFE
    image.extents[-1].payload = bytes(payload)
    return image.build()


# ---------------------------------------------------------------- damaged: tables


def tables_edit(name, edit, image, **options):
    def make():
        made, _ = image(**options)
        params = bytearray(made.params)
        edit(params)
        made.params = bytes(params)
        made.records[0].tables_length = len(params)
        return made.build()

    damage(f"tables_{name}", "CORRUPT", make)


TILED = {"columns": 64, "tile": (3, 3), "n": 64 * 32, "chunk": 64 * 16}
for _at, _part, _values in ((0, "rows", (7, 255)), (1, "columns", (7, 255))):
    for _value in _values:
        tables_edit(f"coef_tile_{_part}_{_value}", change(_at, "B", _value), coef_image, **TILED)
for _value in (-101, 61, -128, 127):
    tables_edit(f"coef_exponent_{_value}", change(2, "b", _value), coef_image)
for _value in (0, 63, (1 << 20) + 64):
    tables_edit(f"coef_columns_{_value}", change(4, "I", _value), coef_image, **TILED)
tables_edit("coef_short", lambda p: p.pop(), coef_image)
tables_edit("coef_long", lambda p: p.append(0), coef_image)
for _value in (0, 41, 1025, (1 << 32) - 1):
    tables_edit(f"lowrank_rank_{_value}", change(0, "I", _value), lowrank_image)
for _value in (0, 2, 39, 1 << 21, (1 << 32) - 1):
    tables_edit(f"lowrank_columns_{_value}", change(4, "I", _value), lowrank_image)
for _at, _part in ((8, "v"), (12, "u"), (16, "payload")):
    for _value in (0, (1 << 32) - 1):
        tables_edit(f"lowrank_{_part}_{_value}", change(_at, "I", _value), lowrank_image)
for _value in (math.inf, -math.inf, math.nan):
    tables_edit(f"lowrank_scale_{_value}", change(24, "f", _value), lowrank_image)
tables_edit("lowrank_v_of_2_layers", change(32, "B", 2), lowrank_image)
tables_edit("lowrank_short", lambda p: p.pop(), lowrank_image)
tables_edit("lowrank_long", lambda p: p.append(0), lowrank_image)


def _payload_longer(params):
    """The payload of V is one byte longer, and its length says so."""
    params.append(0)
    params[16:20] = struct.pack("<I", struct.unpack_from("<I", params, 16)[0] + 1)


tables_edit("lowrank_v_one_byte_more", _payload_longer, lowrank_image)


# ---------------------------------------------------------------- damaged: payloads


def payload_edit(name, edit, image, **options):
    def make():
        made, parts = image(**options)
        payload = parts.coders[0].payload
        edit(payload)
        made.extents[0].payload = payload.pack()
        return made.build()

    damage(name, "CORRUPT", make)


def setting(**changes):
    def edit(payload):
        for name, value in changes.items():
            setattr(payload, name, value(getattr(payload, name)) if callable(value) else value)

    return edit


payload_edit("coef_form_3", setting(form=3), coef_image)
payload_edit("coef_half_form_4", setting(half_form=4), coef_image)
payload_edit("coef_mask_where_none", setting(form=NONE), coef_image)
payload_edit("coef_half_mask_where_all", setting(half_form=ALL), coef_image)
payload_edit("coef_mask_short", setting(mask=lambda m: m[:-1]), coef_image)
payload_edit("coef_mask_long", setting(mask=lambda m: m + b"\0"), coef_image)
payload_edit("coef_half_mask_long", setting(half_mask=lambda m: m + b"\0"), coef_image)
payload_edit("coef_mask_not_zstd", setting(form=ZSTD), coef_image)
payload_edit("coef_mask_frame_short", setting(mask=lambda m: zstd_frame(bytes(137))), coef_image,
             form=ZSTD)
payload_edit("coef_mask_two_frames", setting(mask=lambda m: m + zstd_frame(b"")), coef_image,
             form=ZSTD)
payload_edit("coef_one_more_kept", setting(mask=lambda m: bytes([m[0] | 255]) + m[1:]), coef_image)
payload_edit("coef_scale_infinite", setting(scales=lambda s: s[:-2] + b"\0\x7c"), coef_image)
payload_edit("coef_half_nan", setting(halves=lambda h: h[:-2] + b"\1\xfe"), coef_image)
payload_edit("coef_one_byte_more", setting(halves=lambda h: h + b"\0"), coef_image)
payload_edit("coef_one_byte_less", setting(halves=lambda h: h[:-1]), coef_image)
payload_edit("lowrank_u_one_byte_more", lambda p: setattr(p.segments[0], "raw", b"\0"),
             lowrank_image)
payload_edit("lowrank_u_state", lambda p: p.segments[0].states.__setitem__(3, 255), lowrank_image)


def cut_elsewhere(image, elements, **options):
    """The tensor is cut into chunks of another size than they were made for."""

    def make():
        made, parts = image(**options)
        made.records[0].chunk_bytes = elements * FLOATS[parts.dtype].W
        return made.build()

    return make


damage("coef_not_whole_tiles", "CORRUPT",
       cut_elsewhere(coef_image, 64 * 16 + 8, **TILED))
damage("lowrank_not_whole_rows", "CORRUPT", cut_elsewhere(lowrank_image, 30 * 40 + 1))
