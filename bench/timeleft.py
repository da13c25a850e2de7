"""How well mkhct's bar foretells the time that is left.

    python timeleft.py [--json FILE] [--from SHARE] [--list] COMMAND ...

Runs COMMAND, a mkhct, on a pseudo-terminal of 120 columns and notes each time left that its bar
shows.  Each is a prediction of how long the whole run takes: the time so far and the time left.  Of
those after SHARE of the run, a tenth by default, it prints the mean and the worst relative error
of the predicted total, and how many predictions of the time left were wrong by more than a tenth of it
(and more than the second to which it is shown, which the end of every run would not meet).
Exit status 1 when COMMAND fails.

A time left can only be right where the machine does the same work in the same time all along: for
-j1 run it as the only one on its core (chrt -f 60 taskset -c 1 python timeleft.py ...).
"""

import argparse
import fcntl
import json
import os
import pty
import re
import struct
import sys
import termios
import time

COLUMNS = 120
SHOWN = re.compile(rb"(\d+%|\d+/\d+) .*ETA ([-\d:]+)")


class Failed(Exception):
    """The command did not end well."""


def seconds_of(text):
    """Of "1:02:03"; None of "-:--"."""
    if "-" in text:
        return None
    return sum(int(part) * 60**i for i, part in enumerate(reversed(text.split(":"))))


def record(command):
    """Runs it; (seconds, share, seconds left or None) of each bar, and the seconds of the run."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.execvp(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    start = time.monotonic()
    seen, rest = [], b""
    while True:
        try:
            block = os.read(terminal, 65536)
        except OSError:  # EIO: the other end is closed
            break
        if not block:
            break
        now = time.monotonic() - start
        *lines, rest = (rest + block).split(b"\r")
        for line in lines:
            found = SHOWN.search(line)
            if found:
                seen.append((now, found[1].decode(), seconds_of(found[2].decode())))
    end = time.monotonic() - start
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    if status:
        raise Failed(f"{' '.join(command)}: exit {os.waitstatus_to_exitcode(status)}: "
                     f"{rest.decode(errors='replace').strip()}")
    return seen, end


def judge(seen, end, share=0.1):
    """What the predictions after that share of the run were worth."""
    told = [(now, left) for now, _, left in seen if left is not None]
    late = [(now, left) for now, left in told if now >= share * end]
    errors = [abs(now + left - end) / end for now, left in late]
    wrong = [1 for now, left in late if abs(left - (end - now)) > max(0.1 * (end - now), 1)]
    return {
        "seconds": end,
        "first": told[0][0] / end if told else None,
        "predictions": len(late),
        "mean": sum(errors) / len(errors) if errors else None,
        "worst": max(errors) if errors else None,
        "wrong": len(wrong),
    }


def line_of(found):
    """For people."""
    if not found["predictions"]:
        return f"{found['seconds']:7.1f} s  no time left was shown"
    return (f"{found['seconds']:7.1f} s  first after {found['first']:4.0%}  total wrong by "
            f"{found['mean']:5.1%}, at worst {found['worst']:5.1%}  time left wrong by more than a "
            f"tenth: {found['wrong'] / found['predictions']:4.0%} of {found['predictions']}")


def main():
    """See above."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json")
    parser.add_argument("--from", dest="share", type=float, default=0.1)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    try:
        seen, end = record(args.command)
    except (Failed, OSError) as e:
        print(f"timeleft: {e}", file=sys.stderr)
        return 1
    found = judge(seen, end, args.share)
    last = -end
    for now, done, left in seen:
        if args.list and now - last > end / 30:
            last = now
            shown = "   -" if left is None else f"{left:4}"
            print(f"  {now:7.1f} s {done:>4}  shown {shown}  was {end - now:7.1f}")
    print(line_of(found))
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump(found, f, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
