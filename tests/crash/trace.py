"""Reads what shim.c records.

    # COUNT KIND                 a call that was counted is about to happen
    create INODE MODE FOLDER/NAME
    mkdir INODE MODE FOLDER/NAME
    rename FOLDER/NAME FOLDER/NAME
    unlink FOLDER/NAME
    write INODE OFFSET LENGTH    and so many bytes and a newline
    size INODE BYTES
    mode INODE MODE
    time INODE NANOSECONDS
    sync INODE                   a file or a folder, with success
    unsynced INODE               and without

FOLDER is an inode, and between it and NAME is a space.  There is no slash but in rename.
"""

import os


def read(path):
    """The records, each a tuple that begins with its kind."""
    with open(path, "rb") as file:
        data = file.read()
    records, at = [], 0
    while at < len(data):
        end = data.index(b"\n", at)
        kind, _, rest = data[at:end].decode().partition(" ")
        at = end + 1
        if kind == "#":
            records.append(("#", *rest.split(" ")))
        elif kind == "write":
            inode, offset, length = map(int, rest.split(" "))
            records.append((kind, inode, offset, data[at : at + length]))
            at += length + 1
        elif kind in ("create", "mkdir"):
            inode, mode, folder, name = rest.split(" ", 3)
            records.append((kind, int(inode), int(mode), int(folder), name))
        elif kind == "rename":
            a, b = rest.split("/")
            records.append((kind, *split(a), *split(b)))
        elif kind == "unlink":
            records.append((kind, *split(rest)))
        else:
            records.append((kind, *map(int, rest.split(" "))))
    return records


def split(place):
    folder, name = place.split(" ", 1)
    return int(folder), name


def calls(path):
    """The kinds of the calls that were counted, in their order."""
    return [r[2] for r in read(path) if r[0] == "#"] if os.path.exists(path) else []
