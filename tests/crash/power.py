"""Cuts the power: crash states of a simulated disk (disk.py), from each of which mkhct goes on.

    HCT_BUILD=build HCT_STATES=500 HCT_SEED=1 build/venv/bin/python tests/crash/power.py [CASE ...]

Some of the runs lose the power again while they go on, up to three times; in some a sync fails
before.  What comes out in the end must be what an undisturbed run makes.  A state that has no
checkpoint is a bundle, the old or the new one, or none at all.
"""

import os
import random
import shutil
import sys
import time

from bundles import (
    Failure,
    has_state,
    leftovers,
    program,
    remove,
    run,
    run_shimmed,
    scratch,
    seed,
    tree,
)
from disk import Disk
from faults import cases
from trace import calls, read

EIO = "5"
MOST_FAILURES = 20


class Power:
    def __init__(self, rng, top, case, strict):
        self.rng, self.top, self.case, self.strict = rng, top, case, strict
        self.root, self.trace = top / "root", top / "trace"
        self.out = self.root / "out"
        remove(self.root)
        self.root.mkdir()
        case.expect(rng, self.out)
        self.old = tree(case.old) if case.old else None
        self.states = 0

    def watched(self, words, env):
        self.trace.unlink(missing_ok=True)
        return run_shimmed(words, SHIM_ROOT=str(self.root), SHIM_TRACE=str(self.trace), **env)

    def disturbed(self, command):
        """A disk that has the run of a command behind it, up to the end or to some point."""
        before = self.top / "before"
        remove(before)
        shutil.copytree(self.root, before)
        words = self.case.words(command, self.rng, self.out)
        if "--checkpoint-interval" in words and self.rng.random() < 0.7:
            words[words.index("--checkpoint-interval") + 1] = "1"
        disk = Disk(self.root, self.strict)
        code, error = self.watched(words, {})
        if code == 0 and self.rng.random() < 0.2:
            return self.with_failed_sync(before, words)
        if code != 0:
            raise Failure(f"{words}: exit code {code}: {error}")
        records = read(self.trace)
        for record in records[: self.rng.choice((len(records), self.rng.randint(0, len(records))))]:
            disk.play(record, self.rng)
        return disk

    def with_failed_sync(self, before, words):
        """The same run, in which a sync fails; the power goes once mkhct has come to its end."""
        syncs = calls(self.trace).count("fsync")
        remove(self.root)
        shutil.copytree(before, self.root)
        disk = Disk(self.root, self.strict)
        if syncs == 0:
            return disk
        at = self.rng.randint(1, syncs)
        self.watched(words, {"SHIM_ONLY": "fsync", "SHIM_DO": EIO, "SHIM_AT": str(at)})
        for record in read(self.trace):
            disk.play(record, self.rng)
        return disk

    def crash(self, disk):
        remove(self.root)
        disk.crash(self.rng, self.root)
        self.states += 1
        self.case.check_old(self.out)
        if not self.out.exists() or has_state(self.out) or self.case.parts:
            return
        found = {n: t for n, t in tree(self.out).items()
                 if not n.startswith((".hct/lock", ".hct/checkpoint"))}  # fmt: skip
        claims = any(n in found for n in (".hct/report.json", "sub/more.safetensors.hct"))
        if claims and found not in (self.case.expected, self.old):
            what = [n for n in found.keys() | self.case.expected.keys()
                    if found.get(n) != self.case.expected.get(n)]  # fmt: skip
            raise Failure(f"a mixture that claims to be a bundle; other than the new one: {what}")

    def bundle(self):
        remove(self.root)
        self.root.mkdir()
        self.case.prepare(self.out)
        for command in self.case.commands(self.rng):
            for _ in range(self.rng.randint(1, 3)):
                self.crash(self.disturbed(command))
                if self.case.is_finished(self.out):
                    break
            if self.case.is_finished(self.out):
                break
            code, error = run(self.case.words(command, self.rng, self.out))
            if code != 0:
                raise Failure(f"going on: exit code {code}: {error}")
        self.case.check(self.out)
        leftovers(self.out)


def main():
    number = seed()
    states = int(os.environ.get("HCT_STATES", "200"))
    begun, done, failed = time.monotonic(), 0, []
    with scratch() as top:
        kinds = [(c, s) for c in cases(top) for s in (False, True)
                 if not sys.argv[1:] or c.name in sys.argv[1:]]  # fmt: skip
        for i, (case, strict) in enumerate(kinds):
            name = f"{case.name}{' strict' if strict else ''}"
            power, bundle = Power(random.Random(0), top, case, strict), 0
            share = (states - done) // (len(kinds) - i)
            while power.states < share:
                bundle += 1
                power.rng = random.Random(f"{number} {name} {bundle}")
                try:
                    power.bundle()
                except Failure as failure:
                    failed.append(f"{name}, bundle {bundle}: {failure}")
                    print(failed[-1], flush=True)
                    if len(failed) == MOST_FAILURES:
                        raise Failure(f"{len(failed)} bundles, and no more are tried") from failure
            done += power.states
            print(f"power: {name}: {power.states} states, {bundle} bundles", flush=True)
    print(f"power: {done} states, {time.monotonic() - begun:.0f} s, {len(failed)} failures")
    if failed:
        raise Failure(f"{len(failed)} bundles")


if __name__ == "__main__":
    program(main)
