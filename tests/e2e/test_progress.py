"""What a person sees while mkhct works, on a terminal and elsewhere.

Nothing here depends on how long anything takes: a bar that is drawn at all is drawn at once when
work begins, and what is waited for is what the terminal shows.
"""

import contextlib
import fcntl
import os
import re
import signal
import struct
import subprocess
import termios
import unicodedata

import numpy as np
import pytest
from helpers import EXIT_INTERRUPTED, EXIT_OK, MKHCT, make_safetensors, random_tensor, run
from mkhct_tool import make_sparse
from resume_tool import stop, two  # noqa: F401

ETA = r"ETA (-:--|(\d+:)?\d?\d:\d\d)"
BAR = re.compile(rf"\[#*-*\] +(\d+)% [\d.]+/[\d.]+ [KMGTPE]?i?B(  [\d.]+ [KMGTPE]?i?B/s)?  {ETA}(  .*)?")
STEPS = re.compile(rf"(\[#*-*\] )?(pass \d+: )?measuring (\d+)/(\d+)(  {ETA})?(  (?P<name>.*))?")
FINAL = "total"


class Terminal:
    """mkhct on a pseudo-terminal, and what it draws there: `lines` that stay, and `bars` that were drawn over
    others in the last line, in their order."""

    def __init__(self, *words, columns=80):
        self.leader, follower = os.openpty()
        self.resize(columns)
        self.process = subprocess.Popen(
            [str(word) for word in (MKHCT, *words)], stdin=follower, stdout=follower,
            stderr=follower, env={**os.environ, "TERM": "xterm"})  # fmt: skip
        os.close(follower)
        self.raw = b""

    def resize(self, columns):
        self.columns = columns
        fcntl.ioctl(self.leader, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def read_until(self, pattern):
        """Reads until what is new has the pattern; its match."""
        begin = len(self.raw)
        while not (found := re.search(pattern, self.raw[begin:].decode(errors="ignore"))):
            block = os.read(self.leader, 65536)
            assert block
            self.raw += block
        return found

    def end(self, expect=EXIT_OK):
        with contextlib.suppress(OSError):  # EIO when the other end is closed
            while block := os.read(self.leader, 65536):
                self.raw += block
        os.close(self.leader)
        assert self.process.wait() == expect, self.raw[-500:]
        return self

    def text(self):
        return self.raw.decode()

    def bars(self):
        found = re.findall(r"\r([^\r\n]*)\x1b\[K", self.text())
        return [bar for bar in found if bar]

    def lines(self):
        """What is on the terminal in the end.  Nothing but \\r, \\n and "erase to the right" may be there."""
        left, column = [], 0
        for line in self.text().split("\n"):
            shown = ""
            for piece in re.split(r"(\r|\x1b\[K)", line):
                if piece == "\x1b[K":
                    shown = shown[:column]
                elif piece == "\r":
                    column = 0
                else:
                    assert piece.isprintable(), repr(piece)
                    shown = shown[:column] + piece + shown[column + len(piece) :]
                    column += len(piece)
            left.append(shown)
            column = 0
        return left


def width(text):
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def percents(bars):
    return [int(match[1]) for match in map(BAR.fullmatch, bars) if match]


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """Takes minutes, if it is let.  Do not change it."""
    path = tmp_path_factory.mktemp("progress") / "m.safetensors"
    make_sparse(path, 64 << 30, 64)
    return path


@pytest.mark.parametrize("options", [["--lossless"], [], ["--verify"], ["-v"]])
def test_bar_is_drawn_and_removed(two, tmp_path, options):
    """Percents never fall, and the table is all that stays."""
    done = Terminal(*options, two, tmp_path / "out", columns=120).end()
    bars = done.bars()
    assert bars and all(BAR.fullmatch(bar) for bar in bars), bars
    assert percents(bars) == sorted(percents(bars)) and percents(bars)[-1] <= 100
    lines = done.lines()
    assert not any("ETA" in line or "[#" in line or "[-" in line for line in lines), lines
    assert any(line.startswith(FINAL) for line in lines)
    assert any(line.startswith("  b.big  F32  [1536,2048]  ") for line in lines) == ("-v" in options)
    # The table comes after the last bar, and nothing does after the table.
    text = done.text()
    assert text.rindex("ETA") < text.rindex(FINAL)
    assert "\r" not in text[text.rindex(FINAL) :].replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
@pytest.mark.parametrize("options", [[], ["--bpw", "9"], ["--dry-run"]])
def test_never_wider_than_the_terminal(tmp_path, columns, options):
    rng = np.random.default_rng(3)
    names = ["x" * 4000, "層" * 300, "é" * 500 + ".weight", "a\x1b[2J\n\tb\x07", "c\u009bd",
             "\U0001f642" * 90]  # fmt: skip
    model = tmp_path / "m.safetensors"
    make_safetensors(model, {name: random_tensor(rng, "F32", (128, 128)) for name in names})
    done = Terminal(*options, "-v", model, tmp_path / "out", columns=columns).end()
    bars = done.bars()
    assert bars
    for bar in bars:
        assert width(bar) < columns and bar.isprintable(), bar
        assert columns < 80 or BAR.fullmatch(bar) or STEPS.fullmatch(bar), bar
    done.lines()  # has nothing that steers


def test_follows_the_window(slow, tmp_path):
    """Each bar fits the terminal as it was when it was drawn."""
    terminal = Terminal("--lossless", slow, tmp_path / "out", columns=100)
    assert width(terminal.read_until(r"\r(\[[^\r]*)\x1b\[K")[1]) > 50
    for columns in (30, 120, 14):
        terminal.resize(columns)
        terminal.read_until(r"\r[^\r]*\x1b\[K")  # may have been drawn before
        bar = terminal.read_until(r"\r([^\r]+)\x1b\[K")[1]
        assert width(bar) < columns
        assert (width(bar) > 50) == (columns == 120)
    terminal.process.send_signal(signal.SIGTERM)
    lines = terminal.end(EXIT_INTERRUPTED).lines()
    assert any(line.startswith("mkhct: interrupted by SIGTERM") for line in lines), lines


def test_time_left(slow, tmp_path):
    """Not known at first, later minutes and seconds, which do not stand in the way of other lines."""
    terminal = Terminal("--lossless", slow, tmp_path / "out")
    first = terminal.read_until(r"\r(\[[^\r]*)\x1b\[K")[1]
    assert "  ETA -:--" in first
    left = terminal.read_until(rf"{ETA.replace('-:--|', '')}")
    assert left[0] != "ETA 0:00"
    terminal.process.send_signal(signal.SIGINT)
    terminal.end(EXIT_INTERRUPTED)
    assert all(BAR.fullmatch(bar) for bar in terminal.bars())


@pytest.mark.parametrize("options, passes", [
    (["--bpw", "9"], True), (["--size", "2M"], True), (["--dry-run"], False),
    (["--dry-run", "--lossless"], False), (["--policy", "adaptive"], False),
    (["--dry-run", "--bpw", "9"], True)])  # fmt: skip
def test_measuring_is_shown(two, tmp_path, options, passes):
    """How many tensors are measured, in which pass; after that the bar begins."""
    done = Terminal(*options, two, tmp_path / "out").end()
    steps = [STEPS.fullmatch(bar) for bar in done.bars() if "measuring" in bar]
    assert steps and all(steps), done.bars()
    assert all((step[2] is not None) == passes for step in steps)
    assert all(int(step[3]) <= int(step[4]) and step["name"] for step in steps)
    numbers = [int(step[2].split()[1][:-1]) if passes else 1 for step in steps]
    assert numbers == sorted(numbers) and numbers[-1] == len(set(numbers))
    for number in set(numbers):
        shown = [(int(s[3]), s[4]) for s, n in zip(steps, numbers) if n == number]
        assert shown == sorted(shown) and len({total for _, total in shown}) == 1
    bars = [bar for bar in done.bars() if "measuring" not in bar]
    assert bool(bars) == ("--dry-run" not in options)
    assert all(BAR.fullmatch(bar) for bar in bars)
    assert not any("measuring" in line for line in done.lines())


def test_measured_tensors_are_all_counted(two):
    """The first pass is over all of them; where there is one pass, a time left is shown."""
    for options in (["--dry-run"], ["--dry-run", "--bpw", "9"]):
        done = Terminal(*options, two).end()
        steps = [STEPS.fullmatch(bar) for bar in done.bars()]
        assert steps[0][4] == "8" and {int(step[4]) for step in steps} <= set(range(9))
        assert all((step[6] is None) == ("--bpw" in options) for step in steps)


def test_measuring_moves_on(slow):
    terminal = Terminal("--dry-run", slow)
    for done in ("0", "[1-9]", r"\d\d"):
        terminal.read_until(rf"measuring {done}/64  ETA ")
    terminal.process.send_signal(signal.SIGTERM)
    terminal.end(EXIT_INTERRUPTED)


def test_going_on_begins_where_it_stopped(two, tmp_path):
    stop(two, tmp_path / "out")
    done = Terminal(two, tmp_path / "out", columns=120).end()
    assert percents(done.bars()) == sorted(percents(done.bars()))
    assert any("going on with" in line for line in done.lines())


@pytest.mark.parametrize("options", [[], ["--bpw", "9"], ["--dry-run"], ["--json"]])
def test_quiet_shows_nothing(two, tmp_path, options):
    text = Terminal("-q", *options, two, tmp_path / "out").end().text()
    assert [line for line in text.splitlines() if not line.startswith('{"event":')] == []


@pytest.mark.parametrize("options", [[], ["--bpw", "9"], ["--dry-run"], ["-v"]])
def test_no_terminal_no_bar(two, tmp_path, options):
    """Whole lines, for files and, with -v, tensors."""
    done = run(MKHCT, *options, two, tmp_path / "out")
    assert not re.search(r"[\r\x1b]|ETA|measuring", done.stdout + done.stderr)
    assert done.stderr == "" or done.stderr.endswith("\n")
    lines = done.stderr.splitlines()
    files = [line.split(":")[0] for line in lines if not line.startswith((" ", "mkhct: "))]
    assert files == ([] if "--dry-run" in options else
                     ["a.safetensors", "b.safetensors", "config.json", "sub/notes.txt"])  # fmt: skip
    assert len([line for line in lines if line.startswith("  ")]) == (8 if "-v" in options else 0)


def test_dumb_terminal_has_no_bar(two, tmp_path):
    leader, follower = os.openpty()
    process = subprocess.Popen([MKHCT, two, tmp_path / "out"], stdin=follower, stdout=follower,
                               stderr=follower, env={**os.environ, "TERM": "dumb"})  # fmt: skip
    os.close(follower)
    text = b""
    with contextlib.suppress(OSError):
        while block := os.read(leader, 65536):
            text += block
    os.close(leader)
    assert process.wait() == EXIT_OK
    assert b"\x1b" not in text and b"ETA" not in text
    assert b"a.safetensors: " in text and FINAL.encode() in text
