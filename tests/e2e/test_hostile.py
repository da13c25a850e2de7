"""Damaged files: the documented error, the same from both decoders, and never a crash.

The folder of programs may be a sanitizer build (make sanitize), which then sees each read
and write beyond a buffer.
"""

import struct

import numpy as np
import pytest
from helpers import EXIT_BAD_DATA, EXIT_OK, HCT, run
from verdict import VARIANTS, check_says, spec_opens, spec_says, write_bundle

import hctcases
import hctspec
from hctmake import Image

# One thing wrong, its checksums right ------------------------------------------------


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """A bundle with every damaged file, and the verdicts of hct check in each variant."""
    files = {name: make() for name, (make, _) in hctcases.DAMAGED.items()}
    bundle = write_bundle(tmp_path_factory.mktemp("damaged") / "bundle", files)
    return bundle, {variant: check_says(bundle, variant) for variant in VARIANTS}


@pytest.mark.parametrize("name", hctcases.DAMAGED)
def test_damage_has_its_error(damaged, name):
    bundle, verdicts = damaged
    path = bundle / f"{name}.safetensors.hct"
    allowed = hctcases.DAMAGED[name][1]
    assert spec_says(path.read_bytes()) in allowed
    for variant, found in verdicts.items():
        assert name in found, f"{variant}: hct check finds nothing wrong"
        assert set(found[name]) <= set(allowed), variant


@pytest.mark.parametrize("name", hctcases.DAMAGED)
def test_listing_what_is_damaged(damaged, name):
    """hct ls tells what is wrong with a file, or lists it when only its chunks are bad."""
    path = damaged[0] / f"{name}.safetensors.hct"
    done = run(HCT, "ls", path, expect=None)
    if spec_opens(path.read_bytes()):
        # Tables may be looked at early.
        assert done.returncode == EXIT_OK or name.startswith("tables_"), done.stderr
    else:
        assert done.returncode == EXIT_BAD_DATA, done.stderr
    if done.returncode != EXIT_OK:
        assert str(path) in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["extent_checksum", "extent_digest", "extent_codec", "magic",
                                  "split_final_state", "zstd_cut", "tables_sum_257"])
def test_extract_leaves_no_wrong_file(damaged, tmp_path, name):
    done = run(HCT, "extract", damaged[0] / f"{name}.safetensors.hct", tmp_path / "out",
               expect=EXIT_BAD_DATA)
    assert done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


# Flipped bytes -----------------------------------------------------------------------


def agree(folder, files, variant=VARIANTS[-1], alike=()):
    """Both decoders must say the same about each of {name: bytes}; returns what they say.

    alike: names of errors that count as the same.
    """
    expected = {name: spec_says(data) for name, data in files.items()}
    found = check_says(write_bundle(folder, files), variant)
    first = {name: found.get(name, ["OK"])[0] for name in files}
    differ = {name: (expected[name], first[name])
              for name in files
              if first[name] != expected[name] and not {first[name], expected[name]} <= set(alike)}
    assert not differ, f"hctspec and hct check: {differ}"
    return expected


def flipped(data, offset, bit=0):
    out = bytearray(data)
    out[offset] ^= 1 << bit
    return bytes(out)


def regions(file):
    """{name: range of offsets} of everything in a valid file."""
    found = {"superblock": range(64)}
    at = 64
    for i, e in enumerate(file.extents):
        if at < e.offset:
            found[f"gap{i}"] = range(at, e.offset)
        found[f"extent{i}"] = range(e.offset, e.offset + e.length)
        at = e.offset + e.length
    found["head"] = range(file.index_offset, file.index_offset + 32 + 40 * len(file.sections))
    for s in file.sections:
        start = file.index_offset + s.offset
        found[f"section{s.id}"] = range(start, start + s.length)
    found["trailer"] = range(len(file.data) - 64, len(file.data))
    return found


def whole_file(name, request):
    if name == "mkhct":
        return (request.getfixturevalue("odd_bundle") / "adapter.safetensors.hct").read_bytes()
    return hctcases.mixed_image(gap=b"gap").build()


@pytest.mark.parametrize("origin", ["hctmake", "mkhct"])
def test_flipped_byte(origin, tmp_path, request):
    """In the fixed structures each byte, in the others some, first and last among them."""
    data = whole_file(origin, request)
    rng = np.random.default_rng(5)
    files, harmless = {}, set()
    for name, where in regions(hctspec.File(data)).items():
        offsets = where
        if name not in ("superblock", "head", "trailer"):
            some = rng.choice(where, min(len(where), 10), replace=False)
            offsets = sorted({where[0], where[-1], *some.tolist()})
        for offset in offsets:
            key = f"{name}.{offset}"
            files[key] = flipped(data, offset, int(rng.integers(8)))
            if name.startswith("gap"):
                harmless.add(key)
    verdicts = agree(tmp_path / "bundle", files)
    assert {name for name, verdict in verdicts.items() if verdict == "OK"} == harmless
    for name, verdict in verdicts.items():
        if name.startswith(("extent", "section")):
            assert verdict == "CHECKSUM", name


# Cut and longer files ----------------------------------------------------------------


@pytest.mark.parametrize("origin", ["hctmake", "mkhct"])
def test_cut_file(origin, tmp_path, request):
    """At each boundary, one byte before and behind it, and at places drawn by chance."""
    data = whole_file(origin, request)
    wheres = regions(hctspec.File(data)).values()
    ends = {end for where in wheres for end in (where[0], where[-1] + 1)}
    lengths = {n + d for n in ends for d in (-1, 0, 1)}
    lengths |= set(np.random.default_rng(6).integers(0, len(data), 40).tolist())
    lengths = {n for n in lengths if 0 <= n < len(data)}
    verdicts = agree(tmp_path / "bundle", {f"cut{n}": data[:n] for n in lengths})
    assert set(verdicts.values()) == {"NOT_HCT", "UNFINISHED"}


def test_missing_and_doubled_bytes(tmp_path):
    """Pieces that are lost or come twice in the middle, as a broken copy has them."""
    data = whole_file("hctmake", None)
    rng = np.random.default_rng(7)
    files = {}
    for i in range(60):
        begin, end = sorted(rng.integers(0, len(data), 2).tolist())
        files[f"lost{i}"] = data[:begin] + data[end + 1:]
        files[f"twice{i}"] = data[:end + 1] + data[begin:]
        files[f"zeros{i}"] = data[:begin] + bytes(end + 1 - begin) + data[end + 1:]
    verdicts = agree(tmp_path / "bundle", files)
    assert "OK" not in verdicts.values()


# Random damage behind right checksums ------------------------------------------------

# Values that lengths, counts and offsets break at.
EXTREMES = [0, 1, 2, 63, 64, 127, 128, 254, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 1 << 31,
            (1 << 32) - 1, 1 << 63, (1 << 64) - 1]


def scribble(rng, data):
    """Changes a byte or a number somewhere in a bytearray."""
    for _ in range(rng.integers(1, 3)):
        width = int(rng.choice([1, 1, 2, 4, 8]))
        if len(data) < width:
            return
        at = int(rng.integers(0, len(data) - width + 1)) // width * width
        old = int.from_bytes(data[at:at + width], "little")
        new = [old ^ 1 << int(rng.integers(8 * width)), old + 1, old - 1,
               int(rng.choice(np.array(EXTREMES, object)))][rng.integers(4)]
        data[at:at + width] = (new % (1 << 8 * width)).to_bytes(width, "little")


def scribbled(rng, image_bytes, part):
    image = Image.from_bytes(image_bytes)
    if part == "payload":
        extent = image.extents[rng.integers(len(image.extents))]
        payload = bytearray(extent.payload)
        scribble(rng, payload)
        extent.payload = bytes(payload)
        return image.build()
    if part == "params":
        params = bytearray(image.params)
        scribble(rng, params)
        image.params = bytes(params)
        return image.build()
    return image.build(**{part: lambda data: scribble(rng, data)})


@pytest.mark.parametrize("part", ["superblock", "trailer", "index", "table", "tensors", "extents",
                                  "source", "params", "payload"])
def test_scribbles(part, tmp_path):
    """Whatever happens in one structure, both decoders come to the same conclusion.

    A digest does not protect here from wrong bytes that both agree on: it is the check
    that finds them.
    """
    rng = np.random.default_rng(sum(part.encode()))
    names = ["split_f16", "split_f64", "exceptions_with_shift", "classes_5", "tcq_layers_2",
             "tcq_layers_4_tiles"]
    if part != "payload":  # versions of zstd differ in what damage they notice
        names += ["mixed", "tail_zstd"]
    images = [hctcases.VALID[name]() for name in names]
    files = {f"{part}{i}": scribbled(rng, images[i % len(images)], part) for i in range(400)}
    # With two entries wrong, either of their errors is right.
    alike = ("LIMIT", "CORRUPT", "CHECKSUM") if part == "table" else ()
    verdicts = agree(tmp_path / "bundle", files, alike=alike)
    assert len(set(verdicts.values())) > 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_scribbles_in_entropy_coded_bytes(variant, tmp_path):
    """The variants of the decoder give up at the same files as the specification does."""
    rng = np.random.default_rng(9)
    names = ["split_bf16", "classes_16", "exceptions_everywhere", "all_equal", "shifts_c64"]
    images = [hctcases.VALID[name]() for name in names]
    files = {f"{variant}{i}": scribbled(rng, images[i % len(images)], "payload")
             for i in range(250)}
    agree(tmp_path / "bundle", files, variant)


# Sizes -------------------------------------------------------------------------------


def test_huge_claims_cost_no_memory(tmp_path):
    """A file of a few hundred bytes that promises terabytes is refused by little memory."""
    header = b'{"w":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (1 << 52, 1 << 52)
    image = Image.of([])
    image.header = struct.pack("<Q", len(header)) + header
    image.source_size = len(image.header) + (1 << 52)
    image.source = struct.pack("<QqII32s8x", image.source_size, 0, 0, 0, bytes(32))
    chunk = 8 << 20
    records = {
        "chunks_missing": struct.pack("<HBBIQQQIId", 0, 1, 0, chunk, 0, 0, 0, 0, 0, 0.0),
        "chunks_counted": struct.pack("<HBBIQQQIId", 0, 1, 0, chunk, (1 << 52) // chunk, 0, 0, 0,
                                      0, 0.0),
        "chunks_of_a_byte": struct.pack("<HBBIQQQIId", 0, 8, 0, 1, 1 << 52, 0, 0, 0, 0, 0.0),
    }

    def as_record(record):
        return lambda data: data.extend(record)

    files = {name: image.build(tensors=as_record(record)) for name, record in records.items()}
    verdicts = agree(tmp_path / "bundle", files)
    assert set(verdicts.values()) == {"CORRUPT"}
