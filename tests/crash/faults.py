"""Lets every single call of mkhct that changes something kill it or fail, one at a time, then runs
it again and compares what comes out.

    HCT_BUILD=build build/venv/bin/python tests/crash/faults.py [KIND ...]

KIND: kill, half, short, enospc, eio, ...: see FAULTS; all of them when none is given.
HCT_FAULTS=N tries N calls of each kind, chosen at random, and not every one.
"""

import errno
import os
import random
import re
import shutil
import sys
import time

from bundles import (
    Case,
    Failure,
    make_shards,
    make_source,
    program,
    remove,
    run_shimmed,
    scratch,
    seed,
    tree,
)
from trace import calls

# name: (SHIM_DO, the kinds of calls that may fail so, 1 when all such calls fail from then on)
GROWING = "write,create,mkdir"
FAULTS = {
    "kill": ("kill", None, 0),
    "half": ("half", None, 0),
    "short": ("short", "write", 0),
    "enospc": (errno.ENOSPC, GROWING + ",truncate,fsync", 0),
    "full": (errno.ENOSPC, GROWING, 1),
    "edquot": (errno.EDQUOT, GROWING, 1),
    "eio": (errno.EIO, None, 0),
    "dead": (errno.EIO, None, 1),
    "erofs": (errno.EROFS, GROWING + ",truncate,rename,unlink,chmod,times", 1),
    "efbig": (errno.EFBIG, "write,truncate", 1),
}

# What becomes of OUT when mkhct ends with an error: the words of its last line.
KEPT = "what is done is kept"


def cases(top):
    source = make_source(top / "source")
    old = Case("old", make_shards(top / "shards"), ["--lossless"])
    old.make(random.Random(1), top / "old")
    return [
        Case("lossless", source, ["--lossless"]),
        Case("lossy", source, ["--size=50K"]),
        Case("force", source, ["--bpw=6", "-f"], old=top / "old"),
        Case("parts", source, ["--lossless"], parts=2),
    ]


class Faults:
    """Runs one case with faults; out is where its bundle goes."""

    def __init__(self, rng, top, case):
        self.rng, self.top, self.case = rng, top, case
        self.out, self.trace = top / "root" / "out", top / "trace"
        self.out.parent.mkdir(exist_ok=True)
        case.expect(rng, self.out)
        self.stages = self.make_stages()

    def make_stages(self):
        """What OUT is before each of the commands that make the bundle, and these."""
        stages = []
        self.case.prepare(self.out)
        commands = self.case.commands(random.Random(1))
        for i, command in enumerate(commands):
            before = None
            if self.out.exists():
                before = self.top / f"before-{self.case.name}-{i}"
                shutil.copytree(self.out, before)
            code, error = self.shimmed(command, {})
            if code != 0:
                raise Failure(f"{command}, with no fault: exit code {code}: {error}")
            stages.append((commands[i:], before, calls(self.trace)))
        return stages

    def shimmed(self, command, env):
        self.trace.unlink(missing_ok=True)
        words = self.case.words(command, self.rng, self.out)
        if "--checkpoint-interval" in words:
            words[words.index("--checkpoint-interval") + 1] = "1"
        return run_shimmed(words, SHIM_ROOT=str(self.out.parent), SHIM_TRACE=str(self.trace), **env)

    def restore(self, before):
        remove(self.out)
        if before:
            shutil.copytree(before, self.out)

    def fault(self, stage, fault, at):
        commands, before, _ = stage
        do, kinds, lasts = FAULTS[fault]
        env = {"SHIM_DO": str(do), "SHIM_AT": str(at)}
        if lasts:
            env["SHIM_LASTS"] = "1"
            if kinds:
                env["SHIM_THEN"] = kinds
        self.restore(before)
        was = tree(self.out) if before else None
        code, error = self.shimmed(commands[0], env)
        if do in ("kill", "half"):
            if code != -9:
                raise Failure(f"was not killed: exit code {code}: {error}")
        else:
            self.check_end(do, lasts, code, error)
            if KEPT not in error and code != 0 and commands[0] != ["--finish"]:
                self.check_untouched(lasts or do == errno.EIO, error, was)
        self.case.check_old(self.out)
        self.case.finish(self.rng, self.out, commands)
        self.case.check(self.out)

    def check_end(self, do, lasts, code, error):
        if do == "short" and code != 0:
            raise Failure(f"a short write: exit code {code}: {error}")
        if code == 0 and error == "":
            return
        if code != 3 or not re.match(r"mkhct: [^\n]+\n", error):
            raise Failure(f"exit code {code}: {error}")
        extra = error.split("\n")[1:-1]
        if extra and not (lasts or do == errno.EIO):
            raise Failure(f"more than a line: {error}")

    def check_untouched(self, may_fail, error, was):
        now = tree(self.out) if self.out.exists() else None
        if now != was and not (may_fail and "could not be removed" in error):
            raise Failure(f"is not as before: {error}; {set(now or ())} {set(was or ())}")


def points(rng, fault, kinds):
    """The numbers of the calls that are tried."""
    allowed = FAULTS[fault][1]
    found = [i + 1 for i, kind in enumerate(kinds) if not allowed or kind in allowed.split(",")]
    most = int(os.environ.get("HCT_FAULTS", "0"))
    return sorted(rng.sample(found, most)) if 0 < most < len(found) else found


def main():
    rng = random.Random(seed())
    begun, tried, failed = time.monotonic(), 0, []
    wanted = sys.argv[1:] or list(FAULTS)
    with scratch() as top:
        for case in cases(top):
            faults = Faults(rng, top, case)
            for fault in wanted:
                for stage in faults.stages:
                    found = points(rng, fault, stage[2])
                    for at in found:
                        tried += 1
                        try:
                            faults.fault(stage, fault, at)
                        except Failure as failure:
                            failed.append(f"{case.name} {' '.join(stage[0][0])}: {fault} at call {at} "
                                          f"of {len(stage[2])}, {stage[2][at - 1]}: {failure}")
                            print(failed[-1], flush=True)
                print(f"faults: {case.name}: {fault}: done, {tried} calls so far", flush=True)
    print(f"faults: {tried} calls in {time.monotonic() - begun:.0f} s, {len(failed)} failures")
    if failed:
        raise Failure(f"{len(failed)} of {tried}")


if __name__ == "__main__":
    program(main)
