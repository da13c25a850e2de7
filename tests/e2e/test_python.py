"""contrib/python: load_file, safe_open and DeviceTensor, on the CPU and on an emulated GPU."""

import ctypes
import gc
import os
import shutil
import sys
import threading
import weakref

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hct_tool import copy_bundle, extents, flip
from helpers import (
    BUILD,
    DTYPE_BITS,
    HCT,
    MKHCT,
    ROOT,
    compress,
    make_safetensors,
    run,
)
from python_tool import bytes_read, hctfs, plain

PACKED = ("F4", "F6_E2M3", "F6_E3M2")  # less than a byte each
ML_DTYPES = [name for name in DTYPE_BITS if name == "BF16" or name.startswith("F8")]
MODEL = "model.safetensors"
EMULATED = BUILD / "tests" / "gpu" / "libhct_cuda.so"


def equal(array, expected):
    """An array of numpy's and another one, in every bit."""
    assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
    assert array.tobytes() == expected.tobytes()


def devices():
    """Both kinds; the GPU is the emulated one."""
    return pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=EMULATION)])


EMULATION = pytest.mark.skipif(not EMULATED.exists(), reason=f"{EMULATED} is not built")


@pytest.fixture(autouse=True)
def backends(monkeypatch):
    """Each test opens backends of its own."""
    monkeypatch.setenv("HCT_CUDA_PLUGIN", str(EMULATED))
    hctfs.backend.backends.clear()
    yield hctfs.backend.backends
    hctfs.backend.backends.clear()


def python(script, env=None, expect=0):
    """A script in an interpreter of its own, which has the module."""
    paths = {"PYTHONPATH": str(ROOT / "contrib" / "python"), **(env or {})}
    return run(sys.executable, "-B", "-c", script, env=paths, expect=expect)


# Tensors -----------------------------------------------------------------------------


def test_every_dtype_that_numpy_has(odd_model, odd_bundle):
    """As safetensors.numpy gives them: scalars, empty ones, odd names and ranks, NaN payloads."""
    other = (*PACKED, *ML_DTYPES)
    path = odd_bundle / (MODEL + ".hct")
    with hctfs.safe_open(path, "np") as found:
        with safetensors.safe_open(odd_model / MODEL, "np") as expected:
            assert found.keys() == sorted(expected.keys())
            assert found.offset_keys() == expected.offset_keys()
            assert found.metadata() == expected.metadata()
            for name in found.keys():
                part, reference = found.get_slice(name), expected.get_slice(name)
                assert part.get_dtype() == reference.get_dtype()
                assert part.get_shape() == reference.get_shape()
                if part.get_dtype() not in other:
                    equal(found.get_tensor(name), expected.get_tensor(name))


def test_dtypes_of_ml_dtypes(odd_model, odd_bundle):
    import ml_dtypes

    words = {"BF16": "bfloat16", "F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn"}
    expected = plain(odd_model / MODEL)
    with hctfs.safe_open(odd_bundle / MODEL, "np") as found:
        for name, (dtype, shape, data) in expected.items():
            if dtype in ML_DTYPES:
                array = found.get_tensor(name)
                word = words.get(dtype, array.dtype.name)
                assert array.dtype == getattr(ml_dtypes, word) and array.dtype.kind != "u"
                assert (array.shape, array.tobytes()) == (shape, data)


def test_dtypes_that_numpy_has_not(odd_bundle, monkeypatch):
    """Never a number that is another one."""
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with hctfs.safe_open(odd_bundle / MODEL, "np") as found:
        for dtype in ML_DTYPES:
            with pytest.raises(TypeError, match=f"dtype.{dtype}: .*install ml_dtypes"):
                found.get_tensor(f"dtype.{dtype}")
        for dtype in PACKED:
            with pytest.raises(TypeError, match=f"no type for {dtype}.*tobytes"):
                found.get_tensor(f"dtype.{dtype}")
        with pytest.raises(TypeError):
            found.get_tensors()


@devices()
def test_bytes_of_every_dtype(odd_model, odd_bundle, device):
    expected = plain(odd_model / MODEL)
    found = hctfs.load_file(odd_bundle / MODEL, device, "dlpack")
    assert list(found) == list(expected)
    for name, (dtype, shape, data) in expected.items():
        tensor = found[name]
        assert (tensor.dtype, tensor.shape, tensor.device) == (dtype, shape, device), name
        assert tensor.nbytes == len(data) and tensor.tobytes() == data, name


def test_files_without_metadata_or_tensors(odd_model, odd_bundle):
    adapter = hctfs.load_file(odd_bundle / "adapter.safetensors.hct", framework="np")
    expected = safetensors.numpy.load_file(odd_model / "adapter.safetensors")
    assert list(adapter) == list(expected)
    for name, array in expected.items():
        equal(adapter[name], array)
    with hctfs.safe_open(odd_bundle / "adapter.safetensors", "np") as found:
        assert found.metadata() is None
    assert hctfs.load_file(odd_bundle / "onnx", framework="np") == {}


def test_unknown_dtype(tmp_path):
    """As a file of a newer writer has it."""
    path = ROOT / "tests" / "golden" / "unknown_dtype.safetensors.hct"
    with hctfs.safe_open(path, "np") as found:
        (name,) = [n for n in found.keys() if found.get_slice(n).get_dtype() not in DTYPE_BITS]
        with pytest.raises(TypeError, match="no type for"):
            found.get_tensor(name)
    run(HCT, "extract", "-q", path, tmp_path / "out")
    with hctfs.safe_open(path, "dlpack") as found:
        expected = plain(tmp_path / "out" / "unknown_dtype.safetensors")
        assert found.get_tensor(name).tobytes() == expected[name][2]


def test_arrays_are_the_callers(matrices, tmp_path):
    """Aligned, writable, and each with memory of its own."""
    path = compress(matrices, tmp_path / "bundle.hct")
    with hctfs.safe_open(path / MODEL, "np") as found:
        name = "layers.0.fc.weight"
        one, other = found.get_tensor(name), found.get_tensor(name)
    assert one.flags.writeable and one.flags.c_contiguous
    before = one.tobytes()
    other[:] = 0
    assert one.tobytes() == before and before.strip(b"\0")
    small = [hctfs.frameworks.empty_array((n, 3), np.dtype("f2")) for n in range(1, 500)]
    assert all(array.ctypes.data % 64 == 0 for array in small)


@pytest.mark.parametrize("options", [("--retention", ".7"), ("--snr", "30", "--layers", "3")])
@devices()
def test_lossy_is_what_extract_gives(matrices, tmp_path, options, device):
    bundle = tmp_path / "bundle.hct"
    run(MKHCT, "-q", *options, matrices, bundle)
    for layers, quality in ((0, "full"), (1, "essentials"), (2, "quick")):
        out = tmp_path / quality
        run(HCT, "extract", "-q", "--quality", quality, bundle, out)
        found = hctfs.load_file(bundle, device, "dlpack", layers=layers)
        expected = plain(out / MODEL)
        assert set(found) == set(expected)
        for name, (_, _, data) in expected.items():
            assert found[name].tobytes() == data, name
    assert plain(tmp_path / "full" / MODEL) != plain(matrices / MODEL)


def outcome(path, device, layers):
    """The bytes of all tensors, or what is said of the first that has none."""
    try:
        found = hctfs.load_file(path, device, "dlpack", layers=layers)
    except hctfs.HctError as error:
        return str(error)
    return {name: tensor.tobytes() for name, tensor in found.items()}


@EMULATION
@pytest.mark.parametrize("layers", [0, 1])
def test_golden_files_are_the_same_on_a_gpu(layers):
    """Every codec and dtype, and what is said of files that are damaged."""
    paths = sorted((ROOT / "tests" / "golden").glob("*.hct"))
    kinds = []
    for path in paths:
        expected = outcome(path, "cpu", layers)
        assert outcome(path, "cuda:0", layers) == expected, path.name
        kinds.append(type(expected))
    assert kinds.count(dict) > 50 and kinds.count(str) > 15


# Slices ------------------------------------------------------------------------------

INDEXES = [
    np.s_[:], np.s_[...], np.s_[2:5], np.s_[:3], np.s_[5:], np.s_[-3:], np.s_[-5:-2], np.s_[4:4],
    np.s_[5:2], np.s_[90:], np.s_[-90:2], np.s_[::2], np.s_[1:6:3], np.s_[::-1], np.s_[5:1:-2],
    np.s_[0], np.s_[6], np.s_[-1], np.int64(3), (), np.s_[2:5, ...], np.s_[2:5, 1], np.s_[3, :, 0],
    np.s_[2:5, 1:, :, 3:9], np.s_[..., 2], np.s_[..., 3:5, 7], np.s_[:, 1], np.s_[:, :, 0, ::4],
    np.s_[2, ..., 1:3], np.s_[None, 2:4], np.s_[[1, 5, 2]], np.s_[:, [0, 2]], np.s_[2:5, [0, 2]],
    np.s_[np.array([True, False] * 3 + [True])], np.s_[True], np.s_[3, 2, 0, 10, 12],
]  # fmt: skip


@pytest.mark.parametrize("index", INDEXES, ids=str)
def test_slices_are_those_of_numpy(odd_model, odd_bundle, index):
    name = "odd.F32"
    expected = safetensors.numpy.safe_open(odd_model / MODEL, "np").get_tensor(name)[index]
    with hctfs.safe_open(odd_bundle / MODEL, "np") as found:
        equal(np.asarray(found.get_slice(name)[index]), np.asarray(expected))


def test_slices_of_small_shapes(odd_model, odd_bundle):
    with hctfs.safe_open(odd_bundle / MODEL, "np") as found:
        expected = safetensors.numpy.safe_open(odd_model / MODEL, "np")
        for name, indexes in {
            "scalar.F32": [np.s_[...], ()],
            "one.F32": [np.s_[0], np.s_[:], np.s_[1:]],
            "empty.F32": [np.s_[:], np.s_[1:2], np.s_[1], np.s_[:, :, 2]],
            "vector.I64": [np.s_[70000:70010], np.s_[-1], np.s_[::5000]],
        }.items():
            for index in indexes:
                part = np.asarray(found.get_slice(name)[index])
                equal(part, np.asarray(expected.get_tensor(name)[index]))


@pytest.mark.parametrize("index", [7, -8, np.s_[0, 3], np.s_[0, 0, 0, 0, 0, 0], "a", 1.5])
def test_indexes_that_are_wrong(odd_bundle, index):
    with hctfs.safe_open(odd_bundle / MODEL, "np") as found:
        with pytest.raises(IndexError):
            found.get_slice("odd.F32")[index]
        with pytest.raises(IndexError):
            found.get_slice("scalar.F32")[0]


def test_slices_keep_no_more_than_they_show(odd_bundle):
    with hctfs.safe_open(odd_bundle / MODEL, "np") as found:
        part = found.get_slice("tall.F32")[:, 1]
    assert part.base is None and part.nbytes == 4 * 70_001


@devices()
def test_slices_of_device_tensors(odd_model, odd_bundle, device):
    _, _, data = plain(odd_model / MODEL)["tall.F16"]
    with hctfs.safe_open(odd_bundle / MODEL, "dlpack", device) as found:
        rows = found.get_slice("tall.F16")
        for first, last in ((0, 1), (65_000, 70_001), (12_345, 66_000), (9, 9), (70_000, 70_001)):
            part = rows[first:last]
            assert part.shape == (last - first, 3)
            assert part.tobytes() == data[6 * first : 6 * last]
        assert rows[...].tobytes() == rows[:].tobytes() == data
        for index in (np.s_[:, 1], np.s_[::2], 5):
            with pytest.raises(TypeError, match="ranges of rows"):
                rows[index]
        assert found.get_slice("dtype.F4")[:].nbytes == 120


def test_slices_read_their_part_of_the_file(large_bundle):
    """Two ranks read half each, and one row is one chunk."""
    path = large_bundle / (MODEL + ".hct")
    with hctfs.safe_open(path, "dlpack") as found:

        def cost(name, *index):
            before = bytes_read()
            part = found.get_slice(name)[index]
            return bytes_read() - before, part

        name = "layer.3.weight"
        for warm in range(2):
            whole, tensor = cost(name, slice(None))
        data = tensor.tobytes()
        halves = [cost(name, slice(0, 1024)), cost(name, slice(1024, 2048))]
        assert b"".join(part.tobytes() for _, part in halves) == data
        assert whole > len(data) // 2 and warm
        for read, _ in halves:
            assert 0.4 * whole < read < 0.6 * whole
        read, part = cost(name, slice(2047, 2048))
        assert part.tobytes() == data[-2048:] and read < 0.2 * whole
        assert cost(name, slice(7, 7))[0] < 4096


def test_fewer_layers_read_less(matrices, tmp_path):
    run(MKHCT, "-q", "--retention", ".9", "--layers", "4", matrices, tmp_path / "bundle.hct")
    read = []
    for layers in (1, 2, 0):
        with hctfs.safe_open(tmp_path / "bundle.hct", "np", layers=layers) as found:
            found.get_tensor("layers.0.fc.weight")
            before = bytes_read()
            found.get_tensor("layers.0.fc.weight")
            read.append(bytes_read() - before)
    assert read[0] < 0.8 * read[1] and read[1] < 0.8 * read[2]


# Bundles -----------------------------------------------------------------------------


def shards_of(model):
    found = {}
    for path in sorted(model.glob("*.safetensors")):
        found.update(plain(path))
    return found


def test_a_bundle_is_all_of_its_files(sharded_model, sharded_bundle):
    expected = shards_of(sharded_model)
    found = hctfs.load_file(sharded_bundle, framework="dlpack")
    assert list(found) == list(expected)
    for name, (_, shape, data) in expected.items():
        assert (found[name].shape, found[name].tobytes()) == (shape, data)
    with hctfs.safe_open(str(sharded_bundle), "dlpack") as bundle:
        assert bundle.keys() == sorted(expected) and bundle.metadata() == {"format": "pt"}
        assert bundle.get_tensor("model.embed_tokens.weight").shape == (1024, 256)


def test_metadata_of_several_files(tmp_path):
    """What they agree on, of those that have any."""
    source = tmp_path / "source"
    source.mkdir()
    for name, metadata in {
        "a": {"format": "pt", "step": "1", "only": "a"},
        "b": None,
        "c": {"step": "2", "format": "pt"},
    }.items():
        tensors = {name: ("U8", (3,), b"abc")}
        make_safetensors(source / f"{name}.safetensors", tensors, metadata)
    with hctfs.safe_open(compress(source, tmp_path / "bundle.hct"), "np") as found:
        assert found.keys() == ["a", "b", "c"] and found.metadata() == {"format": "pt"}


def test_memory_of_another_size_is_not_written_to(odd_bundle, monkeypatch):
    """Were a dtype not what libhct takes it for."""
    monkeypatch.setitem(hctfs.dtypes.DTYPES, "F32", hctfs.dtypes.DTYPES["F16"])
    with hctfs.safe_open(odd_bundle / MODEL, "np") as found:
        with pytest.raises(hctfs.HctError, match="480 bytes of memory for 960"):
            found.get_tensor("dtype.F32")


def test_many_tensors_in_several_calls(sharded_model, sharded_bundle, monkeypatch):
    monkeypatch.setattr(hctfs.model, "AT_ONCE", 100_000)
    calls = []
    load = hctfs.backend.Backend.load
    monkeypatch.setattr(
        hctfs.backend.Backend,
        "load",
        lambda *words: calls.append(len(words[2])) or load(*words),
    )
    found = hctfs.load_file(sharded_bundle, framework="dlpack")
    expected = shards_of(sharded_model)
    assert {name: tensor.tobytes() for name, tensor in found.items()} == {
        name: data for name, (_, _, data) in expected.items()
    }
    assert len(calls) > 10 and sum(calls) == len(expected)


def test_names_beside_what_is_there(sharded_bundle, tmp_path):
    """A source's name stands for what was made of it, unless it is there itself."""
    shard = sorted(sharded_bundle.glob("*.safetensors.hct"))[0]
    for path in (shard, str(shard)[: -len(".hct")], str(sharded_bundle)[: -len(".hct")]):
        assert hctfs.load_file(path, framework="dlpack")
    shutil.copy(shard, tmp_path / "any name")
    assert hctfs.load_file(os.fsencode(tmp_path / "any name"), framework="dlpack")
    make_safetensors(tmp_path / MODEL, {})
    shutil.copy(shard, tmp_path / (MODEL + ".hct"))
    with pytest.raises(hctfs.HctError, match="not an .hct file"):
        hctfs.load_file(tmp_path / MODEL, framework="dlpack")


def test_an_index_tells_what_belongs_together(sharded_bundle, tmp_path):
    bundle = copy_bundle(sharded_bundle, tmp_path)
    shards = sorted(bundle.glob("*.safetensors.hct"))
    shutil.copy(shards[0], bundle / "consolidated.safetensors.hct")
    assert hctfs.load_file(bundle, framework="dlpack")
    index = (bundle / "model.safetensors.index.json").read_text()
    (bundle / "model.safetensors.index.json").unlink()
    with pytest.raises(hctfs.HctError, match="both have a tensor"):
        hctfs.load_file(bundle, framework="dlpack")
    (bundle / "model.safetensors.index.json").write_text(index)
    shards[1].unlink()
    with pytest.raises(FileNotFoundError, match=shards[1].name):
        hctfs.load_file(bundle, framework="dlpack")


def test_bundles_that_are_not_whole(sharded_bundle, tmp_path, monkeypatch):
    bundle = copy_bundle(sharded_bundle, tmp_path)
    report = bundle / ".hct" / "report.json"
    (bundle / ".hct" / "checkpoint-1-of-2.json").write_text("{}")
    assert hctfs.load_file(bundle, framework="dlpack")  # of which mkhct makes another one
    reader = hctfs.model.Model

    def replaced(path):
        shutil.copy(report, report.with_suffix(".new"))
        report.with_suffix(".new").rename(report)
        return reader(path)

    with monkeypatch.context() as patch:
        patch.setattr(hctfs.model, "Model", replaced)
        with pytest.raises(hctfs.HctError, match="replacing this bundle"):
            hctfs.load_file(bundle, framework="dlpack")
    report.unlink()
    with pytest.raises(hctfs.HctError, match="has not finished"):
        hctfs.load_file(bundle, framework="dlpack")


# Errors ------------------------------------------------------------------------------


def test_paths_that_are_not_there(tmp_path):
    for path in (tmp_path / "no", tmp_path):
        with pytest.raises(FileNotFoundError, match=str(path)):
            hctfs.load_file(path, framework="np")


def test_words_that_are_wrong(odd_bundle):
    path = odd_bundle / MODEL
    for framework, device in (("jax", "cpu"), ("np", "cuda:0"), ("np", "mps"), ("np", "cuda:-1")):
        with pytest.raises(ValueError):
            hctfs.safe_open(path, framework, device)
    with hctfs.safe_open(path, "np") as found:
        for get in (found.get_tensor, found.get_slice):
            with pytest.raises(KeyError, match="no tensor 'nothing'"):
                get("nothing")
        part = found.get_slice("odd.F32")
    for get in (found.keys, found.metadata, found.get_tensors, lambda: found.get_tensor("")):
        with pytest.raises(hctfs.HctError, match="closed"):
            get()
    assert part[2:3].shape == (1, 3, 1, 11, 13)  # it holds the file


def test_damaged_tensors(sharded_model, sharded_bundle, tmp_path):
    """The line is libhct's, and what is whole is still there."""
    bundle = copy_bundle(sharded_bundle, tmp_path)
    shard = sorted(bundle.glob("*.safetensors.hct"))[0]
    offset, length = extents(shard)[0]
    flip(shard, offset + length // 2)
    name = next(iter(plain(sharded_model / shard.name[:-4])))
    with pytest.raises(hctfs.HctError, match=f"{shard.name}.*{name}.*checksum") as caught:
        hctfs.load_file(bundle, framework="dlpack")
    assert caught.value.code == 9 and "\n" not in str(caught.value)
    with hctfs.safe_open(bundle, "dlpack") as found:
        with pytest.raises(hctfs.HctError):
            found.get_tensor(name)
        assert all(found.get_tensor(other).tobytes() for other in found.keys() if other != name)
    os.truncate(shard, 1000)
    with pytest.raises(hctfs.HctError, match=shard.name):
        hctfs.safe_open(bundle, "dlpack")


def test_gpus_that_are_not_there(odd_bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("HCT_CUDA_PLUGIN", str(tmp_path / "nothing.so"))
    with pytest.raises(hctfs.HctError) as caught:
        hctfs.load_file(odd_bundle / MODEL, "cuda:0", "dlpack")
    assert caught.value.code == 7 and "nothing.so" in str(caught.value)
    assert hctfs.load_file(odd_bundle / MODEL, "cpu", "dlpack")


@pytest.mark.parametrize(
    ("library", "line"),
    [("/nowhere/libhct.so", "HCT_LIBRARY"), ("libc.so.6", "libc.so.6 is of another version")],
)
def test_libraries_that_will_not_do(library, line, tmp_path):
    script = (
        "import hctfs\n"
        "try:\n    hctfs.load_file('/dev/null')\n"
        "except hctfs.HctError as error:\n    print(error)"
    )
    done = python(script, {"HCT_LIBRARY": library})
    assert library in done.stdout and line in done.stdout and done.stdout.count("\n") == 1


def test_the_library_of_the_checkout(odd_bundle, tmp_path):
    """Is found without HCT_LIBRARY; elsewhere it is the system's."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "contrib" / "python", checkout / "contrib" / "python")
    for folder, file in (("codec", ROOT / "codec" / "hct.h"), ("build", BUILD / "libhct.so")):
        (checkout / folder).mkdir()
        shutil.copy(file, checkout / folder)
    script = f"import hctfs; print(len(hctfs.load_file({str(odd_bundle)!r}, framework='dlpack')))"
    env = {"HCT_LIBRARY": "", "PYTHONPATH": str(checkout / "contrib" / "python")}
    assert int(python(script, env).stdout) > 40
    shutil.move(checkout / "codec", checkout / "other")
    script = "import hctfs.library as l; print(l.candidates())"
    assert "build" not in python(script, env).stdout


# DLPack ------------------------------------------------------------------------------


def collected(reference):
    gc.collect()
    return reference() is None


def test_dlpack_to_numpy(odd_model, odd_bundle):
    """Shares the memory, which lives as long as one of both."""
    expected = safetensors.numpy.load_file(odd_model / "adapter.safetensors")
    for name, array in expected.items():
        tensor = hctfs.load_file(odd_bundle / "adapter.safetensors", "cpu", "dlpack")[name]
        memory, address = weakref.ref(tensor._memory), tensor.data_ptr()
        one, other = np.from_dlpack(tensor), np.from_dlpack(tensor)
        del tensor
        equal(one, array)
        assert one.ctypes.data == other.ctypes.data == address and one.flags.writeable
        del one
        equal(other, array)
        assert not collected(memory)
        del other
        assert collected(memory)


def test_dlpack_of_every_dtype_that_numpy_takes(odd_model, odd_bundle):
    other = (*PACKED, *ML_DTYPES)
    with safetensors.safe_open(odd_model / MODEL, "np") as expected:
        for name, tensor in hctfs.load_file(odd_bundle / MODEL, "cpu", "dlpack").items():
            if tensor.dtype not in other:
                equal(np.from_dlpack(tensor), expected.get_tensor(name))
                equal(tensor.numpy(), expected.get_tensor(name))


def test_capsules_that_nobody_takes_over(odd_bundle):
    """numpy refuses BF16 and forgets the capsule while it raises."""
    exported = hctfs.dlpack.exported
    before = len(exported)
    with hctfs.safe_open(odd_bundle / MODEL, "dlpack") as found:
        tensor = found.get_tensor("dtype.BF16")
        memory = weakref.ref(tensor._memory)
        for _ in range(3):
            with pytest.raises((RuntimeError, BufferError), match="[Uu]nsupported"):
                np.from_dlpack(tensor)
            with pytest.raises((RuntimeError, BufferError), match="[Uu]nsupported"):
                np.from_dlpack(found.get_tensor("dtype.BF16"))  # it ends with the exception
        capsule = tensor.__dlpack__()
        del tensor
        assert not collected(memory) and "dltensor" in repr(capsule)
        del capsule
        assert collected(memory) and len(exported) == before
        for dtype in PACKED:
            with pytest.raises(BufferError, match=dtype):
                found.get_tensor(f"dtype.{dtype}").__dlpack__()
        with pytest.raises(BufferError):
            found.get_tensor("dtype.F32").__dlpack__(copy=True)
        with pytest.raises(BufferError):
            found.get_tensor("dtype.F32").__dlpack__(dl_device=(2, 0))


def pointer_in(capsule, name):
    get = ctypes.pythonapi["PyCapsule_GetPointer"]
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return get(capsule, name)


@devices()
@pytest.mark.parametrize("version", [None, (1, 0), (1, 1), (2, 0), (0, 8)])
def test_what_is_in_a_capsule(odd_model, odd_bundle, device, version):
    with hctfs.safe_open(odd_bundle / MODEL, "dlpack", device) as found:
        tensor = found.get_tensor("odd.BF16")
    kind = hctfs.dlpack.ManagedVersioned if version and version >= (1, 0) else hctfs.dlpack.Managed
    capsule = tensor.__dlpack__(max_version=version, stream=None)
    managed = kind.from_address(pointer_in(capsule, kind.name))
    found = managed.tensor
    assert (found.device_type, found.device_id) == tensor.__dlpack_device__()
    assert tensor.__dlpack_device__() == ((2, 0) if device == "cuda:0" else (1, 0))
    assert (found.code, found.bits, found.lanes, found.byte_offset) == (4, 16, 1, 0)
    assert (ctypes.c_int64 * 5).from_address(found.shape)[:] == [7, 3, 1, 11, 13]
    assert (ctypes.c_int64 * 5).from_address(found.strides)[:] == [429, 143, 143, 13, 1]
    assert found.data == tensor.data_ptr() and found.data % 256 == 0
    _, _, data = plain(odd_model / MODEL)["odd.BF16"]
    assert ctypes.string_at(found.data, tensor.nbytes) == data  # the emulated GPU's, too
    if kind is hctfs.dlpack.ManagedVersioned:
        assert (managed.major, managed.minor, managed.flags) == (1, 0, 0)


@devices()
def test_memory_goes_back_to_the_device(odd_bundle, device, backends, monkeypatch):
    free, freed = hctfs.backend.free, []
    monkeypatch.setattr(hctfs.backend, "free", lambda *at: freed.append(at[1]) or free(*at))
    tensor = hctfs.load_file(odd_bundle / MODEL, device, "dlpack")["dtype.F32"]
    (backend,) = map(weakref.ref, backends.values())
    backends.clear()
    assert not collected(backend) and tensor.tobytes()
    address = tensor.data_ptr()
    assert address not in freed and len(freed) > 40
    del tensor
    assert collected(backend) and address in freed


@devices()
def test_the_end_of_the_interpreter(odd_bundle, device):
    """Tensors that are still there, and those of others."""
    script = f"""
import sys, hctfs, numpy
tensors = hctfs.load_file({str(odd_bundle / MODEL)!r}, {device!r}, "dlpack")
arrays = [numpy.from_dlpack(t) for n, t in tensors.items() if "F32" in n and {device == "cpu"}]
sys.kept = arrays[:2], tensors["dtype.F32"].__dlpack__()
print(len(tensors))
"""
    done = python(script)
    assert int(done.stdout) > 40 and not done.stderr


# Threads, processes, devices ---------------------------------------------------------


@devices()
def test_many_threads(sharded_model, sharded_bundle, device):
    expected = shards_of(sharded_model)
    names, bad = sorted(expected)[:: 1 if device == "cpu" else 6], []
    model = hctfs.safe_open(sharded_bundle, "dlpack", device)

    def work(seed):
        try:
            for i in np.random.default_rng(seed).permutation(len(names)):
                if model.get_tensor(names[i]).tobytes() != expected[names[i]][2]:
                    bad.append(names[i])
        except Exception as error:  # noqa: BLE001 - for the thread that waits
            bad.append(repr(error))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not bad


def test_a_file_is_open_while_it_is_decoded(sharded_bundle):
    """Leaving the with is no danger to other threads."""
    errors = []

    def work(model):
        try:
            while True:
                model.get_tensor("model.embed_tokens.weight")
        except hctfs.HctError as error:
            errors.append(str(error))

    for _ in range(5):
        with hctfs.safe_open(sharded_bundle, "dlpack") as model:
            threads = [threading.Thread(target=work, args=(model,)) for _ in range(3)]
            for thread in threads:
                thread.start()
        for thread in threads:
            thread.join()
    assert len(errors) == 15 and all("closed" in error for error in errors)


def test_after_a_fork(odd_bundle):
    """As the workers of a data loader are made: with backends of their own."""
    script = f"""
import os, hctfs
load = lambda: hctfs.load_file({str(odd_bundle / MODEL)!r}, framework="dlpack")
first = load()
child = os.fork()
second = load()
assert {{n: t.tobytes() for n, t in first.items()}} == {{n: t.tobytes() for n, t in second.items()}}
if child:
    print(os.waitpid(child, 0)[1])
"""
    done = python(script)
    assert done.stdout == "0\n" and not done.stderr


@EMULATION
def test_devices_by_their_names(odd_bundle, monkeypatch):
    """A GPU without torch gives what DLPack takes; numpy has no memory there."""
    monkeypatch.setitem(sys.modules, "torch", None)
    path = odd_bundle / "adapter.safetensors"
    for device in ("cuda:0", "cuda", 0, "0"):
        tensor = hctfs.load_file(path, device)["a"]
        assert isinstance(tensor, hctfs.DeviceTensor) and tensor.device == "cuda:0"
        equal(tensor.numpy(), hctfs.load_file(path)["a"])
    assert repr(tensor) == "DeviceTensor(F32, shape=(64, 65), device='cuda:0')"
    with pytest.raises(hctfs.HctError) as caught:
        hctfs.load_file(path, "cuda:99")
    assert caught.value.code == 7


def test_lines_of_the_log(caplog):
    """A GPU that fails is told of through logging."""
    hctfs.backend.write_log(None, b"cuda:0: out of memory, the CPU goes on")
    assert [(r.name, r.getMessage()) for r in caplog.records] == [
        ("hctfs", "cuda:0: out of memory, the CPU goes on")
    ]
