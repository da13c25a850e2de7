"""hct plot: what it draws, and what it does not do to files."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from helpers import EXIT_BAD_DATA, EXIT_SYSTEM, EXIT_USAGE, HCT, MKHCT, make_safetensors, random_tensor, run

SVG = "{http://www.w3.org/2000/svg}"
LOSSY, LOSSLESS = "#2f6db3", "#aab2bd"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Twelve layers in the order of their names as text, and names that are markup."""
    folder = tmp_path_factory.mktemp("plot")
    rng = np.random.default_rng(17)
    tensors = {'<embed> & "\x1b[31m': random_tensor(rng, "BF16", (128, 64))}
    for i in sorted(range(12), key=str):
        tensors[f"h.{i}.fc.weight"] = random_tensor(rng, "BF16", (72, 64))
        tensors[f"h.{i}.proj.weight"] = random_tensor(rng, "BF16", (72, 64))
        tensors[f"h.{i}.norm.weight"] = random_tensor(rng, "BF16", (64,))
    make_safetensors(folder / "m.safetensors", tensors)
    run(MKHCT, "-q", "--keep", "h.11.*", folder / "m.safetensors", folder / "a<b.hct")
    return folder / "a<b.hct"


def bars(root):
    """[(tooltip, x, height, colour)] from left to right."""
    found = []
    for rect in root.iter(f"{SVG}rect"):
        title = rect.find(f"{SVG}title")
        if title is not None:
            found.append((title.text, float(rect.get("x")), float(rect.get("height")), rect.get("fill")))
    return sorted(found, key=lambda bar: bar[1])


def test_bars_and_points(bundle):
    text = run(HCT, "plot", bundle).stdout
    assert "\x1b" not in text
    root = ElementTree.fromstring(text)
    first = next(root.iter(f"{SVG}rect"))
    assert first.get("fill") == "#ffffff" and float(first.get("width")) == float(root.get("width"))
    assert root.find(f"{SVG}title").text == "a<b.hct"
    drawn = bars(root)
    # The embedding, and two matrices of each layer, by number.
    names = [tooltip.split(" BF16 ")[0] for tooltip, *_ in drawn]
    assert names[0] == '<embed> & "\\x1b[31m'
    assert names[1:] == [f"h.{i}.{n}.weight" for i in range(12) for n in ("fc", "proj")]
    assert [colour for *_, colour in drawn] == [LOSSY] * 23 + [LOSSLESS] * 2
    points = [c for c in root.iter(f"{SVG}circle") if c.find(f"{SVG}title") is not None]
    assert len(points) == 23
    # Heights are in proportion to bits.
    bits = [float(re.search(r": (\d+\.\d+) bits", tooltip)[1]) for tooltip, *_ in drawn]
    scale = [height / b for (_, _, height, _), b in zip(drawn, bits, strict=True)]
    assert max(scale) < 1.001 * min(scale)
    labels = [t.text for t in root.iter(f"{SVG}text")]
    assert "11" in labels and "bits a weight" in labels and "relative error" in labels
    assert any("12 small tensors not shown" in label for label in labels)
    # Nothing leaves the drawing.
    width, height = float(root.get("width")), float(root.get("height"))
    for shape in root.iter(f"{SVG}rect"):
        assert 0 <= float(shape.get("x")) <= float(shape.get("x")) + float(shape.get("width")) <= width
        assert 0 <= float(shape.get("y")) <= float(shape.get("y")) + float(shape.get("height")) <= height


def test_all_tensors(bundle):
    drawn = bars(ElementTree.fromstring(run(HCT, "plot", "--long", bundle).stdout))
    assert len(drawn) == 37


def test_lossless_and_empty_bundles(tmp_path):
    for name, tensors in {"none": {}, "one": {"a": ("F32", (64, 64), bytes(4 * 64 * 64))}}.items():
        make_safetensors(tmp_path / f"{name}.safetensors", tensors)
        out = tmp_path / name
        run(MKHCT, "-q", "--lossless", tmp_path / f"{name}.safetensors", out)
        root = ElementTree.fromstring(run(HCT, "plot", out).stdout)
        assert len(bars(root)) == len(tensors)


def test_output_file(bundle, tmp_path):
    out = tmp_path / "plot.svg"
    done = run(HCT, "plot", "-o", out, bundle)
    assert done.stdout == "" and out.read_text() == run(HCT, "plot", bundle).stdout
    out.write_text("mine")
    done = run(HCT, "plot", "-o", out, bundle, expect=EXIT_SYSTEM)
    assert "is there already; -f replaces it" in done.stderr and out.read_text() == "mine"
    run(HCT, "plot", "-f", "--output", out, bundle)
    assert out.read_text().startswith("<svg ")
    run(HCT, "plot", "-o", tmp_path / "no" / "plot.svg", bundle, expect=EXIT_SYSTEM)
    run(HCT, "plot", "-o", "/dev/full", "-f", bundle, expect=EXIT_SYSTEM)


def test_wrong_command_lines(bundle, tmp_path):
    assert "name a bundle" in run(HCT, "plot", expect=EXIT_USAGE).stderr
    assert "needs a value" in run(HCT, "plot", bundle, "-o", expect=EXIT_USAGE).stderr
    assert "one bundle" in run(HCT, "plot", bundle, bundle, expect=EXIT_USAGE).stderr
    (tmp_path / "x.hct").write_bytes(b"no such file")
    done = run(HCT, "plot", tmp_path / "x.hct", expect=EXIT_BAD_DATA)
    assert done.stdout == "" or "svg" not in done.stdout
