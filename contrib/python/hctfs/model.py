"""load_file and safe_open."""

import ctypes
import json
import os
import weakref
from numbers import Integral

from .backend import backend_of
from .bundle import open_path
from .dtypes import dtype_of
from .frameworks import Dlpack, framework_of
from .library import HctError, Load, create, libhct

AT_ONCE = 4 << 30  # bytes decoded by one call, which nothing interrupts


class Model:
    """One .hct file, open until nobody has it any more."""

    def __init__(self, path):
        self.path = path
        self.reader = create("hct_reader_open", os.fsencode(path))
        weakref.finalize(self, libhct().hct_reader_close, self.reader).atexit = False
        self.safetensors = libhct().hct_reader_safetensors(self.reader)
        found = self.safetensors.contents
        header = json.loads(ctypes.string_at(found.header, found.header_len)[8:])
        self.metadata = header.pop("__metadata__", None)
        self.tensors = header

    def load_of(self, name, first_row, rows):
        """What libhct is asked for, without its place in memory, and its bytes."""
        number = libhct().hct_safetensors_find(self.safetensors, name.encode())
        load = Load(tensor=number, first_row=first_row, rows=rows)
        return load, libhct().hct_load_bytes(self.reader, ctypes.byref(load))

    def shape(self, name):
        return tuple(self.tensors[name]["shape"])

    def dtype(self, name):
        return self.tensors[name]["dtype"]

    def rows(self, name):
        return (self.shape(name) or (1,))[0]

    def offsets(self, name):
        return self.tensors[name]["data_offsets"]


def prepare(model, framework, name, first_row, rows):
    """(a tensor without its contents, the Load that gives it these)"""
    shape, dtype = model.shape(name), model.dtype(name)
    load, size = model.load_of(name, first_row, rows)
    try:
        tensor, load.dst, found = framework.empty(dtype, (rows, *shape[1:]) if shape else (), size)
    except TypeError as error:
        raise TypeError(f"{model.path}: tensor {name}: {error}") from None
    if size != found:
        raise HctError(f"{model.path}: tensor {name}: {found} bytes of memory for {size}")
    return tensor, load


def decode(model, framework, loads, layers):
    loads = [load for load in loads if load.dst]
    if loads:
        array = (Load * len(loads))(*loads)
        backend_of(framework.gpu).load(model.reader, array, layers, framework.stream())


def load_parts(model, framework, parts, layers):
    """The tensors of [(name, first row, rows)]."""
    prepared = [prepare(model, framework, *part) for part in parts]
    decode(model, framework, [load for _, load in prepared], layers)
    return [tensor for tensor, _ in prepared]


def groups(owners, names):
    """The names in lists, each of one file and of AT_ONCE bytes or little more."""
    group, end = [], 0
    for name in names:
        begin = owners[name].offsets(name)[0]
        if group and (owners[name] is not owners[group[0]] or begin >= end):
            yield group
            group = []
        if not group:
            end = begin + AT_ONCE
        group.append(name)
    if group:
        yield group


class Slice:
    """A tensor that is decoded where it is indexed: those rows that the first dimension asks for,
    of which the framework then takes what the others do."""

    def __init__(self, model, framework, name, layers):
        self._model, self._framework, self._name, self._layers = model, framework, name, layers

    def get_shape(self):
        return list(self._model.shape(self._name))

    def get_dtype(self):
        return self._model.dtype(self._name)

    def __getitem__(self, index):
        shape = self._model.shape(self._name)
        if dtype_of(self.get_dtype()).bits < 8:  # how they lie in a tensor is the framework's
            first, rows = 0, self._model.rows(self._name)
        else:
            first, rows, index = rows_of(index, shape)
        part = [(self._name, first, rows)]
        (whole,) = load_parts(self._model, self._framework, part, self._layers)
        if is_all(index, shape):
            return whole
        if isinstance(self._framework, Dlpack):
            raise TypeError('framework="dlpack" has only ranges of rows, as in [a:b]')
        return self._framework.own(whole[index], whole)


def rows_of(index, shape):
    """(the first row, how many, and the index of what is wanted within these)"""
    words = index if isinstance(index, tuple) else (index,)
    word = words[0] if words and shape else None
    if isinstance(word, slice):
        picked = range(*word.indices(shape[0]))
        first, last = sorted((picked[0], picked[-1])) if picked else (0, -1)
        step = None if picked.step == 1 else picked.step
        return first, last + 1 - first, (slice(None, None, step), *words[1:])
    if isinstance(word, Integral) and not isinstance(word, bool):
        row = int(word) + (shape[0] if word < 0 else 0)
        if not 0 <= row < shape[0]:
            raise IndexError(f"row {int(word)} of {shape[0]}")
        return row, 1, (0, *words[1:])
    return 0, shape[0] if shape else 1, index


def is_all(index, shape):
    words = index if isinstance(index, tuple) else (index,)
    return len(words) <= max(len(shape), 1) and all(
        word is Ellipsis or (isinstance(word, slice) and word == slice(None)) for word in words
    )


def owners_of(models):
    """{name of a tensor: its model}"""
    owners = {}
    for model in models:
        for name in model.tensors:
            other = owners.setdefault(name, model)
            if other is not model:
                line = f"{other.path} and {model.path} both have a tensor {name}: open one of them"
                raise HctError(line)
    return owners


def agreed(found):
    """What dicts have in common; None without dicts."""
    first = found[0] if found else None
    return first and {k: v for k, v in first.items() if all(m.get(k) == v for m in found)}


class safe_open:
    """The tensors of a path, each decoded when it is asked for.

    framework and device: as the package says.  layers: of a bundle that was made with --layers,
    decodes no more than so many of each tensor, a coarser version; 0 for all.
    """

    def __init__(self, path, framework=None, device="cpu", *, layers=0):
        self._path, self._layers = os.fsdecode(path), layers
        self._framework = framework_of(framework, device)
        models = open_path(path, Model)
        self._owners = owners_of(models)
        self._metadata = agreed([m.metadata for m in models if m.metadata is not None])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """What other threads are decoding at this moment is still decoded."""
        self._owners = None

    def _all(self):
        owners = self._owners
        if owners is None:
            raise HctError(f"{self._path}: it is closed")
        return owners

    def _owner(self, name):
        owners = self._all()
        if name not in owners:
            raise KeyError(f"{self._path}: no tensor {name!r}")
        return owners[name]

    def keys(self):
        return sorted(self._all())

    def offset_keys(self):
        """In the order of their data."""
        owners = self._all()
        return sorted(owners, key=lambda name: (owners[name].path, owners[name].offsets(name)))

    def metadata(self):
        """None without any; of a bundle, what all files that say something agree on."""
        self._all()
        return self._metadata

    def get_tensor(self, name):
        model = self._owner(name)
        part = [(name, 0, model.rows(name))]
        return load_parts(model, self._framework, part, self._layers)[0]

    def get_slice(self, name):
        return Slice(self._owner(name), self._framework, name, self._layers)

    def get_tensors(self):
        """{name: tensor} of all."""
        owners, found = self._all(), {}
        for names in groups(owners, self.offset_keys()):
            model = owners[names[0]]
            parts = [(name, 0, model.rows(name)) for name in names]
            found.update(zip(names, load_parts(model, self._framework, parts, self._layers)))
        return found


def load_file(path, device="cpu", framework=None, *, layers=0):
    """{name: tensor} of all tensors of a path; arguments as those of safe_open."""
    with safe_open(path, framework, device, layers=layers) as model:
        return model.get_tensors()
