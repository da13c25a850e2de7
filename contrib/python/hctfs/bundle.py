"""The model files that a path names."""

import json
import os
import re

from .library import UNFINISHED, HctError

HIDDEN = ".hct"
SUFFIX = ".safetensors.hct"
INDEX = ".safetensors.index.json"


def state_of(folder):
    """(identity of the bundle's report or None, whether mkhct has a checkpoint in it)"""
    hidden = os.path.join(folder, HIDDEN)
    try:
        status = os.stat(os.path.join(hidden, "report.json"))
        report = status.st_dev, status.st_ino, status.st_mtime_ns
    except OSError:
        report = None
    try:
        names = os.listdir(hidden)
    except OSError:
        names = []
    return report, any(re.fullmatch(r"checkpoint(-\d+-of-\d+)?\.json", name) for name in names)


def files_of_index(path):
    """Of model.safetensors.index.json."""
    with open(path, encoding="utf-8") as file:
        return {name + ".hct" for name in json.load(file)["weight_map"].values()}


def files_of_folder(folder):
    """Its .hct files; those that its index names, when it has one."""
    names = sorted(os.listdir(folder))
    files = [name for name in names if name.endswith(SUFFIX) and not name.startswith(".")]
    if not files:
        raise FileNotFoundError(f"{folder}: no .hct file right in this folder")
    indexes = [name for name in names if name.endswith(INDEX)]
    if len(indexes) == 1:
        wanted = files_of_index(os.path.join(folder, indexes[0]))
        missing = sorted(wanted.difference(files))
        if missing:
            raise FileNotFoundError(f"{folder}: {indexes[0]} wants {missing[0]}, which is missing")
        files = [name for name in files if name in wanted]
    return [os.path.join(folder, name) for name in files]


def open_bundle(folder, opened):
    """Each file of a bundle by opened(path), all of one run of mkhct."""
    report, unfinished = state_of(folder)
    if unfinished and not report:
        line = f"{folder}: mkhct has not finished this bundle; wait for it, or run it again"
        raise HctError(line, UNFINISHED)
    found = [opened(path) for path in files_of_folder(folder)]
    if report and state_of(folder)[0] != report:
        line = f"{folder}: mkhct is replacing this bundle at this moment; try again"
        raise HctError(line, UNFINISHED)
    return found


def open_path(path, opened):
    """[opened(file)] of an .hct file, of what it was before (model.safetensors), or of a bundle."""
    path = os.fsdecode(path)
    if not os.path.exists(path) and os.path.exists(path + ".hct"):
        path += ".hct"
    return open_bundle(path, opened) if os.path.isdir(path) else [opened(path)]
