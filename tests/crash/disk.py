"""A disk and a file system that promise no more than they have to, fed with a trace.

What is certain of a file is what was synced; of what was written to it since, any part may be there
after a crash: blocks of 512 bytes or 4 KiB, of any of the writes, and any of the sizes it had.  What
is certain of a folder is what was in it when it was synced; of what was done in it since, the first
few steps are there, or with `strict` any of them.  A rename is there or not.  After a sync that
failed it is decided at once what is there: no later one brings back what was lost.
"""

import os
import stat

from bundles import UMASK


class File:
    def __init__(self, content=b"", mode=0o600, time=None):
        self.content, self.mode, self.time = content, mode, time
        self.pending = []


class Folder:
    def __init__(self, entries=None, mode=0o755):
        self.entries, self.mode = dict(entries or {}), mode
        self.seen = dict(self.entries)  # by programs
        self.pending = []

    def step(self, *changes):
        apply(self.seen, changes)
        self.pending.append(list(changes))


class Disk:
    def __init__(self, top, strict=False):
        """top: the folder that SHIM_ROOT names; what is in it is certain."""
        self.objects, self.strict = {}, strict
        self.top = self.scan(top)

    def scan(self, path):
        sb = os.lstat(path)
        if stat.S_ISDIR(sb.st_mode):
            found = Folder({n: self.scan(os.path.join(path, n)) for n in sorted(os.listdir(path))},
                           stat.S_IMODE(sb.st_mode))  # fmt: skip
        else:
            with open(path, "rb") as file:
                found = File(file.read(), stat.S_IMODE(sb.st_mode), sb.st_mtime_ns)
        self.objects[sb.st_ino] = found
        return found

    def play(self, record, rng):
        kind, *words = record
        if kind == "#":
            return
        if kind in ("create", "mkdir"):
            inode, mode, folder, name = words
            mode &= ~UMASK
            self.objects[inode] = File(mode=mode) if kind == "create" else Folder(mode=mode)
            self.objects[folder].step((name, self.objects[inode]))
        elif kind == "rename":
            from_folder, old, to_folder, new = words
            if from_folder != to_folder:
                raise ValueError("a rename from one folder to another")
            folder = self.objects[from_folder]
            folder.step((old, None), (new, folder.seen[old]))
        elif kind == "unlink":
            folder, name = words
            self.objects[folder].step((name, None))
        elif kind in ("sync", "unsynced"):
            self.sync(self.objects[words[0]], rng if kind == "unsynced" else None)
        else:
            self.objects[words[0]].pending.append((kind, *words[1:]))

    def sync(self, thing, rng):
        """With rng: one that failed."""
        if isinstance(thing, Folder):
            thing.entries, thing.mode = self.folder_after(thing, rng)
        else:
            thing.content, thing.mode, thing.time = self.file_after(thing, rng)
        thing.pending = []

    def folder_after(self, folder, rng):
        entries, mode = dict(folder.entries), folder.mode
        steps = folder.pending
        if rng and self.strict:
            chance = rng.choice((0, 0.2, 0.5, 0.8, 1))
            steps = [s for s in steps if rng.random() < chance]
        elif rng:
            steps = steps[: rng.choice((0, len(steps), rng.randint(0, len(steps))))]
        for step in steps:
            if isinstance(step, list):
                apply(entries, step)
            else:
                mode = step[1]
        return entries, mode

    @staticmethod
    def file_after(file, rng):
        content, mode, time = bytearray(file.content), file.mode, file.time
        size, sizes = len(content), [len(content)]
        chance = rng.choice((0, 0.1, 0.5, 0.9, 1)) if rng else 1
        block = rng.choice((512, 4096)) if rng else 0
        steps = list(file.pending)
        for step in steps:
            if step[0] == "write":
                size = max(size, step[1] + len(step[2]))
            elif step[0] == "size":
                size = step[1]
            sizes.append(size)
        if rng and rng.random() < 0.5:
            rng.shuffle(steps)
        for step in steps:
            if step[0] == "write":
                put(content, step[1], step[2], block, chance, rng)
            elif step[0] == "size" and not rng:
                content[step[1] :] = bytes(max(0, step[1] - len(content)))
            elif step[0] == "mode" and (not rng or rng.random() < chance):
                mode = step[1]
            elif step[0] == "time" and (not rng or rng.random() < chance):
                time = step[1]
        if rng:
            size = rng.choice((size, rng.choice(sizes)))
        content[size:] = bytes(max(0, size - len(content)))
        return bytes(content), mode, time

    def crash(self, rng, path):
        """Writes to path, a new folder, what is there after a crash."""
        self.write(self.top, path, rng)

    def write(self, thing, path, rng):
        if isinstance(thing, Folder):
            os.mkdir(path)
            entries, mode = self.folder_after(thing, rng)
            for name, inner in entries.items():
                self.write(inner, os.path.join(path, name), rng)
            os.chmod(path, mode)
            return
        content, mode, time = self.file_after(thing, rng)
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, mode)
        if time is not None:
            os.utime(path, ns=(time, time))


def apply(entries, step):
    for name, thing in step:
        if thing is None:
            entries.pop(name, None)
        else:
            entries[name] = thing


def put(content, offset, data, block, chance, rng):
    """Each block of the write with that chance; without rng, all of it."""
    end = offset + len(data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    at = offset
    while at < end:
        upto = end if not block else min(end, (at // block + 1) * block)
        if not rng or rng.random() < chance:
            content[at:upto] = data[at - offset : upto - offset]
        at = upto
