"""mkhct: where OUT may be, and what --force replaces."""

import json
import shutil

from helpers import EXIT_SYSTEM, EXIT_USAGE, compress
from mkhct_tool import REPORTS, listing, refuse, same_after_extract


def test_places_that_are_refused(model, tmp_path):
    refuse(model, model, code=EXIT_USAGE, match="lies in the source")
    refuse(model, model / "out", code=EXIT_USAGE, match="lies in the source")
    refuse(model, model / "sub" / "out", code=EXIT_USAGE, match="lies in the source")
    refuse(model, tmp_path, code=EXIT_USAGE, match="the source .* lies in it")
    refuse(model / "model.safetensors", model, code=EXIT_USAGE, match="lies in it")
    (tmp_path / "link").symlink_to(model)
    refuse(model, tmp_path / "link" / "out", code=EXIT_USAGE, match="lies in the source")
    (model / "elsewhere").symlink_to(tmp_path / "other")
    (tmp_path / "other").mkdir()
    refuse(model, tmp_path / "other" / "out", code=EXIT_USAGE, match="lies in the source")
    (model / "elsewhere").unlink()
    refuse(model, tmp_path / "no" / "out", code=EXIT_SYSTEM, match="no folder .*/no;")
    (tmp_path / "file").write_text("x")
    refuse(model, tmp_path / "file", code=EXIT_SYSTEM, match="a file is there already")
    refuse(model, tmp_path / "file" / "out", code=EXIT_SYSTEM, match="file")
    (tmp_path / "dangling").symlink_to("nowhere")
    refuse(model, tmp_path / "dangling", code=EXIT_SYSTEM, match="a symlink to nothing")
    refuse(model, tmp_path / "other" / ".." / "model" / "x", code=EXIT_USAGE, match="lies in")


def test_out_beside_a_single_file(model):
    compress(model / "model.safetensors", model / "out.hct")


def test_folder_of_somebody_else(model, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    for options in ([], ["-f"]):
        refuse(model, out, *options, code=EXIT_SYSTEM, match="neither empty nor a bundle")


def test_force(model, tmp_path):
    out = compress(model, tmp_path / "out")
    refuse(model, out, code=EXIT_SYSTEM, match="a bundle already; give --force")
    (out / "mine.txt").write_text("of the user")
    (out / "sub" / "mine.txt").write_text("of the user")
    (model / "config.json").unlink()
    (model / "sub" / "notes.txt").unlink()
    (model / "new.txt").write_text("new")
    (model / "model.safetensors").rename(model / "renamed.safetensors")
    compress(model, out, "-f")
    assert listing(out) == [".hct", *REPORTS, "mine.txt", "new.txt",
                            "renamed.safetensors.hct", "sub", "sub/mine.txt"]  # fmt: skip
    # Once more, so that the report of the second run is what counts.
    (model / "new.txt").unlink()
    (model / "sub").rmdir()
    compress(model, out, "--force")
    assert listing(out) == [".hct", *REPORTS, "mine.txt",
                            "renamed.safetensors.hct", "sub", "sub/mine.txt"]  # fmt: skip
    (out / "sub" / "mine.txt").unlink()
    (out / "mine.txt").unlink()
    (out / "sub").rmdir()
    same_after_extract(model, out, tmp_path)


def test_force_replaces_nothing_of_the_user(model, tmp_path):
    out = compress(model, tmp_path / "out")
    (out / "later.txt").write_text("of the user")
    (model / "later.txt").write_text("of the model")
    refuse(model, out, "-f", code=EXIT_SYSTEM, match="later.txt: was not written by mkhct")
    assert (out / "later.txt").read_text() == "of the user"
    (out / "later.txt").unlink()
    (out / "later.txt").symlink_to(tmp_path / "elsewhere")
    refuse(model, out, "-f", code=EXIT_SYSTEM, match="later.txt: was not written by mkhct")
    (out / "later.txt").unlink()
    shutil.rmtree(out / "sub")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "notes.txt").write_text("of the user")
    (out / "sub").symlink_to(tmp_path / "elsewhere")
    refuse(model, out, "-f", code=EXIT_SYSTEM, match="sub: stands where a folder must be")
    assert (tmp_path / "elsewhere" / "notes.txt").read_text() == "of the user"


def test_force_with_a_forged_report(model, tmp_path):
    """Names that lead outside, by dots or by links, are not followed."""
    out = compress(model, tmp_path / "out")
    victim = tmp_path / "victim.txt"
    victim.write_text("keep me")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "victim.txt").write_text("keep me")
    (out / "way").symlink_to(tmp_path / "folder")
    path = out / ".hct" / "report.json"
    report = json.loads(path.read_text())
    names = ["../victim.txt", str(victim), "sub/../../victim.txt", "way/victim.txt", "", "/", "."]
    report["files"] += [{"name": name, "kind": "carried"} for name in names]
    report["files"] += [{"name": 1}, {}, None, {"name": "x", "name_hex": "zz"}]
    report["files"] += [{"name": "x", "name_hex": b"../victim.txt".hex()}]
    path.write_text(json.dumps(report))
    compress(model, out, "-f")
    assert victim.read_text() == "keep me"
    assert (tmp_path / "folder" / "victim.txt").read_text() == "keep me"
