"""What mkhct tells other programs: --json and --log, over failures, kills and several processes."""

import collections
import fcntl
import json
import os
import re
import signal
import subprocess

import pytest
from helpers import (
    EXIT_BAD_DATA,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_SYSTEM,
    MKHCT,
    ROOT,
    make_safetensors,
    run,
)
from mkhct_tool import listing, make_sparse, refuse, start
from resume_tool import run_limited, stop, two  # noqa: F401

# Members besides event and time of each kind; those of a report are in test_mkhct_output.py.
MEMBERS = {
    "start": "source out options files models source_bytes model_bytes jobs",
    "resume": "done_bytes tensors",
    "model": "state name source_bytes stored_bytes seconds",
    "tensor": "file name dtype source_bytes stored_bytes codec error cosine seconds",
    "carried": "name source_bytes",
    "checkpoint": "name tensors done_bytes",
    "note": "message",
    "warning": "message",
    "error": "message exit_code",
    "report": "",
}
VALUE = r'("(?:[^"\\]|\\.)*"|[^ "]+)'  # of a member in the log
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
MANY = 400  # tensors, whose events fill the smallest pipe several times over


def events_of(text):
    """Those of --json; each line is checked."""
    assert text == "" or text.endswith("\n"), text[-200:]
    events = [json.loads(line) for line in text.split("\n")[:-1]]
    for event in events:
        assert list(event)[:2] == ["event", "time"], event
        assert re.fullmatch(TIME, event["time"]), event
        members = set(event) - {"event", "time"}
        known = set(MEMBERS[event["event"]].split())
        if event["event"] == "model" and event["state"] == "begin":
            known -= {"stored_bytes", "seconds"}
        if event["event"] != "report":
            assert members - {"name_hex"} == known, event
    return events


def kinds(events):
    return [event["event"] for event in events]


def of(events, kind):
    return [event for event in events if event["event"] == kind]


def tensors_of(events):
    return [(event["file"], event["name"]) for event in of(events, "tensor")]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Two models of many small tensors.  Do not change it."""
    folder = tmp_path_factory.mktemp("events") / "many"
    folder.mkdir()
    for name in "ab":
        make_safetensors(folder / f"{name}.safetensors", {
            f"{name}.{i:03}.weight": ("F32", (16, 16), bytes([i % 256, 0, 128, 63]) * 256)
            for i in range(MANY)
        })  # fmt: skip
    return folder


def test_all_that_is_told_is_documented():
    """Kinds and members: here, in the header and in the manual page the same."""
    header = (ROOT / "writer/events.h").read_text()
    block = header[header.index("KIND is\n") : header.index("Programs must expect")]
    rows = re.findall(r"^ \*\t(\w[\w, ]*?)  +(.*(?:\n \*\t\s.*)*)", block, re.M)
    told = {kind: text for names, text in rows for kind in names.split(", ")}
    assert set(told) == set(MEMBERS)
    for kind, members in MEMBERS.items():
        assert set(members.split()) <= set(re.findall(r"\w+", told[kind])), kind
    manual = (ROOT / "writer/mkhct.1").read_text()
    item = manual[manual.index(".It Fl -json\n") : manual.index(".It Fl -log")]
    words = set(re.findall(r"\w+", " ".join(re.findall(r"^\.Cm (.*)", item, re.M))))
    assert words == {"event", "time", "state", "begin", "end", *MEMBERS}
    source = (ROOT / "writer/events.c").read_text()
    assert {"note", "warning"} | set(re.findall(r'emit\(e, "(\w+)"', source)) == set(MEMBERS)


def test_order_and_sums(two, tmp_path):
    done = run(MKHCT, "--json", "--checkpoint-interval", "1", two, tmp_path / "out")
    events = events_of(done.stdout)
    assert kinds(events)[0] == "start" and kinds(events)[-1] == "report"
    assert collections.Counter(kinds(events))["report"] == 1
    assert [e["time"] for e in events] == sorted(e["time"] for e in events)
    (begun,) = of(events, "start")
    assert begun["files"] == 4 and begun["models"] == 2
    assert begun["options"] == events[-1]["options"]
    assert begun["source_bytes"] == events[-1]["source_bytes"]
    sizes = sum(e["source_bytes"] for e in of(events, "carried"))
    assert begun["source_bytes"] == begun["model_bytes"] + sizes
    assert sorted(e["name"] for e in of(events, "carried")) == ["config.json", "sub/notes.txt"]

    # A model's events lie between its begin and its end.
    inside, seen = None, []
    for event in events:
        if event["event"] == "model" and event["state"] == "begin":
            inside = event["name"]
            assert event["source_bytes"] == (two / inside).stat().st_size
        elif event["event"] == "model":
            assert event["name"] == inside
            stored = (tmp_path / "out" / f"{inside}.hct").stat().st_size
            assert event["stored_bytes"] == stored and event["seconds"] >= 0
            inside = None
        elif event["event"] == "tensor":
            assert event["file"] == inside
            seen.append(event["name"])
        elif event["event"] == "checkpoint":
            assert event["name"] == inside
            assert event["tensors"] <= sum(name[0] == inside[0] for name in seen) + 1
        else:
            assert inside is None
    assert len(seen) == len(set(seen)) == 8
    (big,) = [e for e in of(events, "tensor") if e["name"] == "b.big"]
    assert big["dtype"] == "F32" and big["source_bytes"] == 1536 * 2048 * 4
    assert 0 < big["stored_bytes"] < big["source_bytes"] and 0 < big["error"] < 1
    assert big["cosine"] > 0.9 and big["codec"] and big["seconds"] >= 0


def test_nothing_but_events_with_quiet_and_verbose(two, tmp_path):
    for word in ("-q", "-v"):
        done = run(MKHCT, word, "--json", two, tmp_path / word)
        assert len(tensors_of(events_of(done.stdout))) == 8
        assert (done.stderr == "") == (word == "-q")


def test_all_kinds_occur(two, tmp_path):
    """What the documents promise is told by somebody."""
    out, log = tmp_path / "out", tmp_path / "log"
    stop(two, out, "--log", log)
    (out / ".a.safetensors.hct.part").unlink()  # it is written again, with a warning
    run(MKHCT, "-q", "--log", log, two, out)
    found = {re.match(rf"{TIME} (\w+)", line)[1] for line in log.read_text().splitlines()}
    assert found == set(MEMBERS)


def test_resumed_after_an_error(two, tmp_path):
    """Each tensor is told of once, by one run or the other; so are bytes."""
    out, first, second = tmp_path / "out", tmp_path / "first", tmp_path / "second"
    document = stop(two, out, "--log", first)
    done = run(MKHCT, "--json", "--log", second, two, out)
    events = events_of(done.stdout)
    told = re.findall(r" tensor file=\S+ name=(\S+) ", first.read_text())
    told += [name for _, name in tensors_of(events)]
    assert len(told) == len(set(told)) == 8

    assert kinds(events)[:1] == ["start"] and "resume" in kinds(events)[:3]
    (resume,) = of(events, "resume")
    whole = sum(s["size"] for s in document["shards"] if s["status"] == "completed")
    (begun,) = [s for s in document["shards"] if s["status"] == "in_progress"]
    parts = [t for t in begun["tensors"] if t["status"] == "completed"]
    assert begun["name"] == "b.safetensors" and 0 < len(parts) < 6
    assert resume["done_bytes"] == whole + sum(t["size"] for t in parts)
    assert resume["tensors"] == 2 + len(parts)
    assert resume["tensors"] + len(tensors_of(events)) == 8
    assert len(re.findall(r" resume ", second.read_text())) == 1
    assert " resume " not in first.read_text()
    (error,) = re.findall(rf"^{TIME} error: (.*) exit_code=(\d+)$", first.read_text(), re.M)
    assert "File too large" in error[0] and error[1] == str(EXIT_SYSTEM)


def slow_reader(*words):
    """mkhct whose standard output takes a page at a time, so that it waits for its reader."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    process = subprocess.Popen([MKHCT, *words], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    return process, os.fdopen(reader)


@pytest.mark.parametrize("at", [1, 60, MANY + 2, MANY + 100])
def test_resumed_after_a_kill(many, tmp_path, at):
    """What the killed run told of and the checkpoint has not is told of again; nothing is lost."""
    out = tmp_path / "out"
    process, stream = slow_reader("-q", "--json", "--checkpoint-interval", "5", many, out)
    text = ""
    while text.count('"event":"checkpoint"') < 1 or text.count('"event":"tensor"') < at:
        line = stream.readline()
        assert line and "report" not in line
        text += line
    process.kill()
    text += stream.read()
    assert process.wait() == -signal.SIGKILL
    stream.close()
    process.stderr.close()
    before = tensors_of(events_of(text[: text.rindex("\n") + 1]))

    events = events_of(run(MKHCT, "-q", "--json", many, out).stdout)
    after = tensors_of(events)
    (resume,) = of(events, "resume")
    everything = [(f"{m}.safetensors", f"{m}.{i:03}.weight") for m in "ab" for i in range(MANY)]
    rest = everything[resume["tensors"] :]
    # A checkpoint may be saved between a tensor's last chunk and its event.
    assert after in (rest, rest[1:])
    assert before == everything[: len(before)] and len(before) >= resume["tensors"]
    size = (many / "a.safetensors").stat().st_size
    begun = [e["name"] for e in of(events, "model")]
    if "a.safetensors" in begun:
        assert resume["done_bytes"] == resume["tensors"] * 1024
    else:
        assert resume["done_bytes"] == size + (resume["tensors"] - MANY) * 1024
    assert kinds(events)[-1] == "report"


def test_failure_is_an_event(two, tmp_path):
    done = run_limited(600 << 10, "--json", two, tmp_path / "out")
    events = events_of(done.stdout)
    assert kinds(events)[0] == "start" and kinds(events)[-1] == "error"
    assert events[-1]["exit_code"] == EXIT_SYSTEM and "File too large" in events[-1]["message"]

    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\xff" * 64)
    done = run(MKHCT, "--json", damaged, tmp_path / "none", expect=EXIT_BAD_DATA)
    (event,) = events_of(done.stdout)
    assert event["event"] == "error" and event["exit_code"] == EXIT_BAD_DATA
    assert f"mkhct: {event['message']}\n" in done.stderr
    assert not (tmp_path / "none").exists()


def test_interruption_is_an_event(tmp_path):
    make_sparse(tmp_path / "m.safetensors", 8 << 30, 64)
    process = start("-q", "--json", tmp_path / "m.safetensors", tmp_path / "out")
    text = process.stdout.readline() + process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate()
    events = events_of(text + rest)
    assert process.returncode == EXIT_INTERRUPTED
    assert kinds(events)[-1] == "error" and events[-1]["exit_code"] == EXIT_INTERRUPTED
    assert "SIGTERM" in events[-1]["message"]


def test_reader_that_goes_away(many, tmp_path):
    """mkhct --json | head -1: a line says so, and the bundle can be gone on with."""
    out = tmp_path / "out"
    process, stream = slow_reader("-q", "--json", "--checkpoint-interval", "5", many, out)
    assert json.loads(stream.readline())["event"] == "start"
    stream.close()
    _, err = process.communicate()
    assert process.returncode == EXIT_SYSTEM
    assert re.match(r"mkhct: standard output cannot be written: Broken pipe; ", err), err
    assert len(err.splitlines()) == 1
    events = events_of(run(MKHCT, "-q", "--json", many, out).stdout)
    assert kinds(events)[-1] == "report"
    run(MKHCT, "-q", many, tmp_path / "plain")
    for name in ("a.safetensors.hct", "b.safetensors.hct"):
        assert (out / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


# The log ---------------------------------------------------------------------------------


def log_lines(path):
    text = path.read_text()
    assert text.endswith("\n")
    lines = text.splitlines()
    for line in lines:
        assert re.match(rf"{TIME} ({'|'.join(MEMBERS)})( |:)", line), line
    return lines


def test_log_has_what_json_has(two, tmp_path):
    log = tmp_path / "log"
    done = run(MKHCT, "-q", "--json", "--log", log, two, tmp_path / "out")
    events = events_of(done.stdout)
    lines = log_lines(log)
    assert [line.split()[1].rstrip(":") for line in lines] == kinds(events)
    assert [line.split()[0] for line in lines] == [e["time"] for e in events]
    for line, event in zip(lines, events):
        for name, value in event.items():
            if isinstance(value, int):
                assert f" {name}={value}" in line, line


def test_log_is_appended_to(two, tmp_path):
    log = tmp_path / "log"
    log.write_text("mine\n")
    for name in ("first", "second"):
        run(MKHCT, "-q", "--log", log, two, tmp_path / name)
    lines = log.read_text().splitlines()
    assert lines.pop(0) == "mine"
    assert sum(" start " in line for line in lines) == sum(" report " in line for line in lines) == 2
    assert lines == sorted(lines, key=lambda line: line.split()[0])


def test_several_processes_share_a_log(many, tmp_path):
    """No line is torn or lost."""
    log = tmp_path / "log"
    runs = [start("-q", "-j1", "--log", log, many, tmp_path / f"out{i}") for i in range(3)]
    assert [process.wait() for process in runs] == [EXIT_OK] * 3
    for process in runs:
        process.communicate()
    lines = log_lines(log)
    for i in range(MANY):
        assert sum(f" name=b.{i:03}.weight " in line for line in lines) == 3


def test_odd_names_stay_in_their_quotes(tmp_path):
    """Nothing that a file says makes a second line, steers a terminal, or looks like a member."""
    odd = ['a\nb "c"', "x=1 y=2", "\x1b[31mred", "слой 🙂", "back\\slash", "\u0085\u009b\x7f", " ",
           "\u2028"]  # fmt: skip
    model = tmp_path / "odd name\n.safetensors"
    make_safetensors(model, {name: ("F32", (4,), bytes(16)) for name in odd})
    log = tmp_path / "log"
    done = run(MKHCT, "-q", "--json", "--log", log, model, tmp_path / "out")
    events = events_of(done.stdout)
    assert sorted(name for _, name in tensors_of(events)) == sorted(odd)
    found = set()
    for line in log_lines(log):
        assert not re.search(r"[\x00-\x1f\x7f-\x9f]", line), repr(line)
        match = re.search(rf" tensor file={VALUE} name={VALUE} ", line)
        if match:
            value = match[2]
            found.add(json.loads(value) if value.startswith('"') else value)
    assert found == set(odd)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028]", done.stdout)


def test_log_that_cannot_be_opened(two, tmp_path):
    """Before anything is written, or read from a file that is not there."""
    for log in (tmp_path / "none" / "log", tmp_path):
        refuse(two, tmp_path / "out", "--log", log, code=EXIT_SYSTEM,
               match=f"--log {re.escape(str(log))}: cannot be opened: ")  # fmt: skip
        assert not (tmp_path / "out").exists()
    assert listing(tmp_path) == []
    done = run(MKHCT, "--json", "--log", tmp_path, two, tmp_path / "out", expect=EXIT_SYSTEM)
    assert done.stdout == ""


def test_log_that_is_full(two, tmp_path):
    """Work goes on, with one warning, which --json tells, too."""
    done = run(MKHCT, "--json", "--log", "/dev/full", two, tmp_path / "out")
    events = events_of(done.stdout)
    assert kinds(events)[-1] == "report"
    (warning,) = of(events, "warning")
    assert "--log /dev/full: lines are missing" in warning["message"]
    assert done.stderr.count("lines are missing") == 1
