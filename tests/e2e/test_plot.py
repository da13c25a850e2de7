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


def drawn_texts(root):
    """[(text, x, whether it stands upright)]"""
    return [(t.text, float(t.get("x")), "rotate" in (t.get("transform") or "")) for t in root.iter(f"{SVG}text")]


def plot_of(folder, tensors, *options):
    make_safetensors(folder / "m.safetensors", tensors)
    run(MKHCT, "-q", *options, folder / "m.safetensors", folder / "out")
    return ElementTree.fromstring(run(HCT, "plot", folder / "out").stdout)


def matrices(names):
    rng = np.random.default_rng(3)
    return {name: random_tensor(rng, "BF16", (72, 64)) for name in names}


def below(root, name):
    """The x of the name that stands upright below its bar."""
    (found,) = [x for text, x, upright in drawn_texts(root) if upright and text == name]
    return found


def test_tensors_outside_layers_are_named(tmp_path):
    """Of one that is long, the words that tell it from those beside it are shown, and its end."""
    common = "module/encoder/transformer/attention"
    ends = [f"{n}_projection/of_many_heads/kernel" for n in ("query", "key")]
    long = [f"{common}/{end}" for end in ends]
    root = plot_of(tmp_path, matrices([*(f"h.{i}.w" for i in range(8)), "wpe", *long]))
    drawn = bars(root)
    names = ["wpe", *(f"\u2026{end[:14]}\u2026{end[-16:]}" for end in ends)]
    for name, (tooltip, x, _, _) in zip(names, drawn[8:], strict=True):
        assert tooltip.split(" BF16")[0] in ("wpe", *long)
        assert x < below(root, name) < x + 40
    # The drawing has room for them: they stand from the points down.
    foot = max(float(c.get("cy")) for c in root.iter(f"{SVG}circle"))
    assert float(root.get("height")) > foot + 6 * max(map(len, names))
    assert any(text == "layers of h" for text, *_ in drawn_texts(root))


def test_axes_always_have_titles(tmp_path):
    for i, (names, title) in enumerate((
        (["enc.a", "enc.b"], "tensors"),
        ([f"many.{n}x" for n in range(40)], "tensors"),
        (["h.0.w", "h.1.w"], "layers"),
    )):  # fmt: skip
        folder = tmp_path / str(i)
        folder.mkdir()
        root = plot_of(folder, matrices(names))
        texts = [text for text, *_ in drawn_texts(root)]
        assert title in texts and "bits a weight" in texts and "relative error" in texts
        assert ("enc.a" in texts) == (i == 0) and "other" not in texts
    many = matrices([*(f"h.{n}.w" for n in range(3)), *(f"x{n}" for n in range(30))])
    (tmp_path / "many").mkdir()
    texts = drawn_texts(plot_of(tmp_path / "many", many))
    assert [upright for text, _, upright in texts if text == "other"] and "x1" not in [t for t, *_ in texts]


def test_high_bars_are_cut_off(tmp_path):
    rng = np.random.default_rng(4)
    tensors = matrices([f"h.{i}.w" for i in range(6)])
    tensors["h.6.exact"] = "F64", (72, 64), rng.standard_normal(72 * 64).tobytes()
    root = plot_of(tmp_path, tensors, "--keep", "*exact")
    (tooltip, x, height, colour) = bars(root)[-1]
    bits = float(re.search(r": (\d+\.\d+) bits", tooltip)[1])
    assert bits > 50 and colour == LOSSLESS
    # The others keep a sixth of the height at least, and the figure stands above the bar.
    assert all(h > height / 6 for _, _, h, _ in bars(root)[:-1])
    (at,) = [at for text, at, _ in drawn_texts(root) if text == f"{bits:.1f}"]
    assert x < at < x + 40
    assert any("high bars cut off" in text for text, *_ in drawn_texts(root))


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
