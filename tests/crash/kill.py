"""Kills mkhct at random moments, again and again, and compares what comes out in the end.

    HCT_BUILD=build HCT_KILLS=3000 HCT_SEED=1 build/venv/bin/python tests/crash/kill.py [CASE ...]

Every bundle that was made through kills must be what one is that was made in one go, byte for byte.
"""

import os
import random
import sys
import time
from subprocess import TimeoutExpired

from bundles import (
    TIMEOUT,
    Case,
    Failure,
    compare,
    has_state,
    leftovers,
    make_shards,
    make_source,
    program,
    scratch,
    seed,
    start,
    tree,
)


def make_cases(top):
    """The ways to make a bundle that are tried."""
    source, shards = make_source(top / "source", 3), make_shards(top / "shards", 3, 3)
    single = source / "model.safetensors"
    rng = random.Random(1)
    old = Case("old", shards, ["--lossless"])
    old.make(rng, top / "old")
    return [
        Case("lossless", source, ["--lossless"]),
        Case("lossy", source, ["--retention=.6"]),
        Case("layers", source, ["--snr=20", "--layers=2", "--verify"]),
        Case("size", source, ["--size=60K"]),
        Case("adaptive", shards, ["--policy=adaptive"]),
        Case("file", single, ["--lossless"]),
        Case("force", source, ["--bpw=6", "-f"], old=top / "old"),
        Case("parts", shards, ["--lossless"], parts=2),
        Case("parts-lossy", shards, ["--retention=.5"], parts=3),
    ]


class Killer:
    def __init__(self, rng, kills):
        self.rng, self.left, self.kills, self.bundles, self.resumed = rng, kills, 0, 0, 0

    def once(self, case, command, out, longest):
        """1 when mkhct came to its end, 0 when it was killed before."""
        self.resumed += has_state(out)
        process = start(case.words(command, self.rng, out))
        wait = self.rng.uniform(0, longest) if self.left > 0 else TIMEOUT
        try:
            _, error = process.communicate(timeout=wait)
        except TimeoutExpired:
            process.kill()
            process.communicate()
            if self.left <= 0:
                raise Failure("mkhct hangs") from None
            self.kills += 1
            self.left -= 1
            case.check_old(out)
            return 0
        if process.returncode != 0:
            raise Failure(f"{process.args}: exit code {process.returncode}: {error}")
        return 1

    def bundle(self, case, out, longest):
        case.prepare(out)
        for command in case.commands(self.rng):
            while not self.once(case, command, out, longest):
                # Killed behind its last act: to run it again would be to make another.
                if case.is_finished(out):
                    break
        case.check(out)
        self.bundles += 1


def main():
    rng = random.Random(seed())
    kills = int(os.environ.get("HCT_KILLS", "100"))
    begun = time.monotonic()
    with scratch() as top:
        cases = [c for c in make_cases(top) if not sys.argv[1:] or c.name in sys.argv[1:]]
        total = 0
        for i, case in enumerate(cases):
            killer = Killer(rng, (kills - total) // (len(cases) - i))
            before = time.monotonic()
            case.expect(rng, top / "expected")
            longest = 1.1 * (time.monotonic() - before) / max(1, case.parts)
            case.make(rng, top / "again")
            compare(case.expected, tree(top / "again"))
            while killer.left > 0:
                killer.bundle(case, top / "out", longest)
            leftovers(top / "out")
            total += killer.kills
            print(f"kill: {case.name}: {killer.kills} kills, {killer.bundles} bundles, "
                  f"{killer.resumed} runs went on", flush=True)  # fmt: skip
    print(f"kill: {total} kills, {time.monotonic() - begun:.0f} s, all bundles are the same")


if __name__ == "__main__":
    program(main)
