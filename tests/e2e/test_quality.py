"""Layers read in part: hctfs -o quality= and hct extract --quality."""

import ctypes
import errno
import itertools
import json
import mmap
import os
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import (
    EXIT_BAD_DATA,
    EXIT_OK,
    EXIT_USAGE,
    HCT,
    HCTFS,
    MKHCT,
    make_safetensors,
    mount,
    mounted,
    random_tensor,
    run,
    sha256,
    tree_digests,
    unmount,
)
from verdict import write_bundle

import hctcases
import hctspec

LAYERS = {"essentials": 1, "quick": 2, "balanced": 3, "full": 4}

# Of one to four layers, in tiles and without, several codecs, layered and lossless tensors.
FORGED = ["tcq_layers_1", "tcq_layers_2", "tcq_layers_2_tiles", "tcq_layers_3",
          "tcq_layers_4", "tcq_layers_4_tiles", "tcq_mixed", "mixed"]  # fmt: skip


@pytest.fixture(scope="module")
def forged(tmp_path_factory):
    """A bundle of odd layered files beside a plain one.  Copy it before damaging it."""
    files = {name: hctcases.VALID[name]() for name in FORGED}
    bundle = write_bundle(tmp_path_factory.mktemp("forged") / "bundle", files)
    (bundle / "config.json").write_text('{"model_type": "odd"}\n')
    return bundle


def shown(path, layers):
    """An .hct file as it must be shown with no more layers than that, by the specification."""
    file = hctspec.File(path.read_bytes())
    return file.header + b"".join(
        file.decode_chunk(number, min(layers, file.tensors[i].layers))
        for number, (i, _) in enumerate(file.chunks)
    )


def extents_of(path):
    """[(layer, layers of the tensor, extent)] of all chunks of an .hct file."""
    file = hctspec.File(path.read_bytes())
    return [
        (layer, tensor.layers, file.extents[tensor.first_extent + k * tensor.layers + layer])
        for tensor in file.tensors
        for k in range(tensor.chunk_count)
        for layer in range(tensor.layers)
    ]


def models_of(bundle):
    """{name as it is shown: .hct file}"""
    return {path.stem: path for path in sorted(bundle.glob("*.hct")) if path.is_file()}


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """(source, bundle) of a model that mkhct has coded in four layers.  Do not change it."""
    top = tmp_path_factory.mktemp("real")
    source, bundle = top / "source", top / "bundle.hct"
    source.mkdir()
    rng = np.random.default_rng(5)
    make_safetensors(source / "model.safetensors", {
        "layers.0.fc.weight": random_tensor(rng, "BF16", (1024, 1024)),
        "layers.0.norm.weight": random_tensor(rng, "F32", (1024,)),
        "layers.0.proj.weight": random_tensor(rng, "F32", (1024, 512)),
        "layers.0.keep.weight": random_tensor(rng, "F16", (512, 256)),
    })  # fmt: skip
    run(MKHCT, "-q", "--layers", "4", "--retention", ".9", "--keep", "*.keep.*", source, bundle)
    return source, bundle


# What is shown -------------------------------------------------------------------------


@pytest.mark.fuse
@pytest.mark.parametrize("options", [(), ("-s",)])
@pytest.mark.parametrize("quality", LAYERS)
def test_mount_shows_the_layers(forged, quality, options):
    expected = {name: shown(path, LAYERS[quality]) for name, path in models_of(forged).items()}
    with mount(forged, "-o", f"quality={quality}", *options) as path:
        assert sorted(os.listdir(path)) == sorted([*expected, "config.json"])
        for name, data in expected.items():
            # First a little of it, which decodes single substreams.
            rng = random.Random(name)
            with open(path / name, "rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
                for _ in range(10):
                    at = rng.randrange(len(data))
                    assert os.pread(file.fileno(), 99, at) == data[at : at + 99]
            assert (path / name).read_bytes() == data, name
        assert (path / "config.json").read_bytes() == (forged / "config.json").read_bytes()


@pytest.mark.parametrize("quality", LAYERS)
def test_extract_gives_the_layers(forged, tmp_path, quality):
    run(HCT, "extract", "-q", "--quality", quality, forged, tmp_path / "out")
    for name, path in models_of(forged).items():
        assert (tmp_path / "out" / name).read_bytes() == shown(path, LAYERS[quality]), name
    assert (tmp_path / "out/config.json").exists()


@pytest.mark.fuse
def test_qualities_differ_only_in_values(forged):
    def look(path):
        return {
            p.name: (s.st_ino, s.st_mode, s.st_size, s.st_mtime_ns)
            for p in sorted(path.iterdir())
            for s in [p.stat()]
        }

    with mount(forged, "-o", "quality=essentials") as coarse, mount(forged) as full:
        assert look(coarse) == look(full)
        for name, path in models_of(forged).items():
            header = hctspec.File(path.read_bytes()).header
            assert (coarse / name).read_bytes()[: len(header)] == header
        name = "tcq_layers_4.safetensors"
        assert sha256(coarse / name) != sha256(full / name)
        assert sha256(coarse / "mixed.safetensors") == sha256(full / "mixed.safetensors")


def test_each_layer_comes_closer(real, tmp_path):
    source, bundle = real
    errors = []
    for quality in LAYERS:
        out = tmp_path / quality
        run(HCT, "extract", "-q", f"--quality={quality}", bundle, out)
        done = run(HCT, "compare", "--json", source, out)
        found = {t["name"]: t for t in json.loads(done.stdout)["tensors"]}
        for name in ("layers.0.norm.weight", "layers.0.keep.weight"):
            assert found[name]["relative_squared_error"] == 0
        names = ("layers.0.fc.weight", "layers.0.proj.weight")
        errors.append([found[name]["relative_squared_error"] for name in names])
    for better, worse in zip(errors[1:], errors, strict=False):
        assert all(b < 0.7 * w for b, w in zip(better, worse, strict=True)), errors
    assert max(errors[0]) < 1
    # Without the option it is what full is.
    run(HCT, "extract", "-q", bundle, tmp_path / "out")
    assert tree_digests(tmp_path / "out") == tree_digests(tmp_path / "full")


# Only what is needed is read -----------------------------------------------------------


def read_by_program(command):
    """Bytes that a program read, by the account that the kernel keeps of its parent."""

    def rchar():
        return int(re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())[1])

    before = rchar()
    done = run(*command)
    return rchar() - before - len(done.stdout) - len(done.stderr), done


def wanted_bytes(path, layers):
    return sum(extent.length for layer, _, extent in extents_of(path) if layer < layers)


def test_extract_reads_less(real, tmp_path):
    path = real[1] / "model.safetensors.hct"
    read = {}
    for quality in LAYERS:
        command = [HCT, "extract", "--quality", quality, real[1], tmp_path / quality]
        read[quality], done = read_by_program(command)
        if quality == "full":
            assert done.stderr == ""
        else:
            said = re.search(r"quality (\w+): (\d) of up to (\d) layers, ([\d.]+) (\w)iB of",
                             done.stderr)  # fmt: skip
            assert said.groups()[:3] == (quality, str(LAYERS[quality]), "4")
            unit = {"K": 1 << 10, "M": 1 << 20}[said[5]]
            assert float(said[4]) * unit == pytest.approx(
                wanted_bytes(path, LAYERS[quality]), rel=0.01
            )
            assert "2 of 4 tensors" in done.stderr
            assert "sha256" not in done.stderr + done.stdout
    for quality, layers in LAYERS.items():
        saved = wanted_bytes(path, 4) - wanted_bytes(path, layers)
        # The index is read but once; numbers in /proc that libraries look at vary a little.
        assert read["full"] - read[quality] == pytest.approx(saved, abs=500)
    assert read["essentials"] < read["quick"] < read["balanced"] < read["full"] - 100_000


@pytest.mark.fuse
def test_mount_reads_less(real):
    path = real[1] / "model.safetensors.hct"
    read = {}
    for quality, layers in LAYERS.items():
        with mounted(real[1], "-o", f"quality={quality}") as running:
            io = Path(f"/proc/{running.process.pid}/io")

            def rchar(io=io):
                return int(re.search(r"rchar: (\d+)", io.read_text())[1])

            before = rchar()
            sha256(running.path / "model.safetensors")
            read[quality] = rchar() - before
        # Nothing is read twice, and requests of the kernel are small.
        assert read[quality] == pytest.approx(wanted_bytes(path, layers), abs=30_000)
    assert read["essentials"] < read["full"] - 100_000


class PageCache:
    """Which pages of a file the kernel holds."""

    def __init__(self, path):
        self.path = path
        self.size = path.stat().st_size
        with open(path, "r+b") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if self.pages():
            pytest.skip(f"the page cache of {path} cannot be emptied, or not be looked at")

    def pages(self):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
        held = ctypes.create_string_buffer(self.size // mmap.PAGESIZE + 1)
        # A private map that could be written: its address can be had, and nothing is touched.
        with (
            open(self.path, "rb") as file,
            mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_COPY) as view,
        ):
            start = ctypes.c_char.from_buffer(view)
            failed = libc.mincore(ctypes.addressof(start), self.size, held)
            del start
        if failed:
            pytest.skip(f"mincore: {os.strerror(ctypes.get_errno())}")
        return {page for page, byte in enumerate(held.raw) if byte & 1}


def pages_wanted(path, layers):
    """Pages of the wanted extents, and of what every reader looks at: both ends of the file."""
    wanted = [range(1)]
    every = [extent for _, _, extent in extents_of(path)]
    end = max(extent.offset + extent.length for extent in every)
    wanted.append(range(end // mmap.PAGESIZE, path.stat().st_size // mmap.PAGESIZE + 1))
    for layer, _, extent in extents_of(path):
        if layer < layers:
            last = extent.offset + extent.length - 1
            wanted.append(range(extent.offset // mmap.PAGESIZE, last // mmap.PAGESIZE + 1))
    return set(itertools.chain(*wanted))


@pytest.fixture(params=["essentials", "quick", "balanced"])
def cut(request, real, tmp_path):
    """(quality, bundle of its own, its .hct file)"""
    bundle = tmp_path / "bundle"
    shutil.copytree(real[1], bundle)
    path = bundle / "model.safetensors.hct"
    pages = path.stat().st_size / mmap.PAGESIZE
    assert len(pages_wanted(path, LAYERS[request.param])) < 0.9 * pages
    return request.param, bundle, path


# The kernel does not fetch the layers that are left out, either.


@pytest.mark.parametrize("jobs", [1, 4])
def test_extract_is_not_read_ahead_of(cut, tmp_path, jobs):
    quality, bundle, path = cut
    cache = PageCache(path)
    run(HCT, "extract", "-q", "-j", jobs, "--quality", quality, bundle, tmp_path / "out")
    assert cache.pages() <= pages_wanted(path, LAYERS[quality])


@pytest.mark.fuse
def test_mount_is_not_read_ahead_of(cut):
    quality, bundle, path = cut
    cache = PageCache(path)
    with mount(bundle, "-o", f"quality={quality}") as shown_at:
        sha256(shown_at / path.stem)
        assert cache.pages() <= pages_wanted(path, LAYERS[quality])


def flip(path, extent):
    with open(path, "r+b") as file:
        file.seek(extent.offset + extent.length // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x40]))


@pytest.mark.fuse
@pytest.mark.parametrize("bad_layer", range(4))
@pytest.mark.parametrize("name", ["tcq_layers_4", "tcq_layers_4_tiles"])
def test_damage_in_a_layer(forged, tmp_path, name, bad_layer):
    """Who does not need the layer does not see that it is damaged."""
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    path = bundle / f"{name}.safetensors.hct"
    shutil.copy(forged / path.name, path)
    expected = {quality: shown(path, layers) for quality, layers in LAYERS.items()}
    flip(path, [extent for layer, _, extent in extents_of(path) if layer == bad_layer][-1])
    for quality, layers in LAYERS.items():
        out = tmp_path / f"out-{quality}"
        good = layers <= bad_layer
        run(HCT, "extract", "--quality", quality, bundle, out,
            expect=EXIT_OK if good else EXIT_BAD_DATA)  # fmt: skip
        with mounted(bundle, "-o", f"quality={quality}") as running:
            model = running.path / path.stem
            if good:
                assert model.read_bytes() == expected[quality]
                assert (out / path.stem).read_bytes() == expected[quality]
            else:
                with pytest.raises(OSError) as caught:
                    model.read_bytes()
                assert caught.value.errno == errno.EIO
                assert "checksum" in running.log
                assert not (out / path.stem).exists()
    # The check is of all layers.
    assert "checksum" in run(HCT, "check", bundle, expect=EXIT_BAD_DATA).stdout


@pytest.mark.fuse
def test_real_damage_in_the_last_layer(real, tmp_path):
    bundle = tmp_path / "bundle.hct"
    shutil.copytree(real[1], bundle)
    path = bundle / "model.safetensors.hct"
    flip(path, [extent for layer, _, extent in extents_of(path) if layer == 3][1])
    with mount(bundle, "-o", "quality=balanced") as damaged, \
         mount(real[1], "-o", "quality=balanced") as good:  # fmt: skip
        assert tree_digests(damaged) == tree_digests(good)
    with mount(bundle) as damaged, pytest.raises(OSError) as caught:
        sha256(damaged / path.stem)
    assert caught.value.errno == errno.EIO


# What is told --------------------------------------------------------------------------


def attributes(path):
    return {
        name.removeprefix("user.hctfs."): os.getxattr(path, name).decode()
        for name in os.listxattr(path)
    }


@pytest.mark.fuse
def test_attributes_tell_the_quality(forged):
    stored = {"tcq_layers_2": 2, "tcq_layers_4": 4, "tcq_mixed": 4, "mixed": 1}
    for quality, layers in LAYERS.items():
        with mount(forged, "-o", f"quality={quality}") as path:
            assert attributes(path)["quality"] == quality
            assert "quality" not in attributes(path / "config.json")
            for name, most in stored.items():
                found = attributes(path / f"{name}.safetensors")
                assert found["quality"] == quality
                assert found["layers"] == f"{min(layers, most)}/{most}"
                # The source's checksum is no description of a lossy file.
                assert ("sha256" in found) == (name == "mixed"), (quality, name)
                if name != "mixed":
                    with pytest.raises(OSError) as caught:
                        os.getxattr(path / f"{name}.safetensors", "user.hctfs.sha256")
                    assert caught.value.errno == errno.ENODATA
    with mount(forged) as path:
        assert attributes(path)["quality"] == "full"


@pytest.mark.fuse
def test_without_layers_every_quality_is_full(sharded_model, sharded_bundle, tmp_path):
    with mounted(sharded_bundle, "-o", "quality=essentials,readahead=0") as running:
        assert tree_digests(running.path) == tree_digests(sharded_model)
        name = next(p for p in running.path.iterdir() if p.suffix == ".safetensors")
        assert attributes(name)["sha256"] == sha256(name)
        assert attributes(name)["layers"] == "1/1"
        assert "no tensor has more than 1 layer, so this is full quality" in running.log
    out = tmp_path / "out"
    done = run(HCT, "extract", "--quality", "quick", sharded_bundle, out)
    assert tree_digests(out) == tree_digests(sharded_model)
    assert "no tensor has more than 2 layers, so this is full quality" in done.stderr


@pytest.mark.fuse
def test_mount_says_its_quality(forged, tmp_path):
    point = tmp_path / "point"
    point.mkdir()
    try:
        done = run(HCTFS, "-o", "quality=quick,readahead=0", forged, point)
    finally:
        unmount(point)
    assert re.fullmatch(
        f"hctfs: {point}: quality=quick: shows 2 of up to 4 layers, .*\n", done.stderr
    )
    with mounted(forged, "-o", "quality=full,readahead=0") as running:
        assert running.log == ""


def test_extract_is_quiet_about_it(forged, tmp_path):
    done = run(HCT, "extract", "-q", forged, tmp_path / "a", "--quality=quick")
    assert done.stderr == done.stdout == ""
    done = run(HCT, "extract", "--quality=full", forged, tmp_path / "b")
    assert done.stderr == ""
    # Only what was extracted counts.
    done = run(HCT, "extract", "--quality=quick", forged, tmp_path / "c", "config.json")
    assert done.stderr == ""
    done = run(HCT, "extract", "--quality=quick", forged, tmp_path / "d", "tcq_mixed.safetensors")
    assert "coarser than at full quality: 1 of 5 tensors" in done.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--quality", "best"], "essentials, quick, balanced or full, not 'best'"),
        (["--quality=QUICK"], "essentials, quick, balanced or full, not 'QUICK'"),
        (["--quality="], "essentials, quick, balanced or full, not ''"),
        (["--quality"], "option '--quality' needs a value"),
        (["--", "--quality=quick"], "--quality=quick"),
    ],
)
def test_extract_refuses_other_qualities(forged, tmp_path, words, text):
    expect = None if words[0] == "--" else EXIT_USAGE
    done = run(HCT, "extract", forged, tmp_path / "out", *words, expect=expect)
    assert done.returncode != EXIT_OK
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", ["best", "", "5", "Full", "quick "])
def test_mount_refuses_other_qualities(forged, tmp_path, value):
    done = run(HCTFS, "-o", f"quality={value}", forged, tmp_path, expect=EXIT_USAGE)
    assert "quality is none of essentials, quick, balanced or full" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_other_commands_know_no_quality(forged):
    for command in ("ls", "info", "check", "compare", "plot"):
        done = run(HCT, command, "--quality=quick", forged, forged, expect=EXIT_USAGE)
        assert "unknown option '--quality=quick'" in done.stderr


def test_the_last_quality_counts(forged, tmp_path):
    name = "tcq_layers_4"
    path = forged / f"{name}.safetensors.hct"
    run(HCT, "extract", "--quality=full", path, "-q", "--quality", "quick", tmp_path / "out")
    assert (tmp_path / "out" / path.stem).read_bytes() == shown(path, LAYERS["quick"])
    done = run(HCT, "extract", "--quality", "best", "--quality=quick", path, tmp_path / "none",
               expect=EXIT_USAGE)  # fmt: skip
    assert "not 'best'" in done.stderr


def test_help_and_manuals_name_the_qualities():
    pages = Path(__file__).resolve().parents[2] / "fs"
    texts = [
        run(HCTFS, "--help").stdout,
        run(HCT, "extract", "--help").stdout,
        (pages / "hctfs.1").read_text(),
        (pages / "hct.1").read_text(),
    ]
    for text in texts:
        for word in ("quality", *LAYERS):
            assert word in text
