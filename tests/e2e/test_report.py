"""The report in a bundle as a page: what it holds, and what a real browser makes of it."""

import http.server
import json
import re
import shutil
import subprocess
import threading
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers import MKHCT, bf16_bytes, make_safetensors, run, weights

HOSTILE = [
    "<script>document.title='owned'</script>",
    "</td></table><img src=x onerror=\"document.title='owned'\">",
    "\" onmouseover=\"document.title='owned'\" x='",
    "&lt;b&gt; &amp; 'quotes'",
    "</script><script>document.title='owned'//",
    "control \t\x01\x1b[31m and \u202e reversed",
    "]]><!-- --><style>*{display:none}</style>",
    "n" * 4096,
    "слой.重み.🙂",
]


def small_model(folder, layers=6):
    """A BF16 transformer with hostile names, lossy and lossless tensors."""
    rng = np.random.default_rng(7)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": layers}))
    shape = (128, 128)
    names = [f"model.layers.{i}.{kind}.weight" for i in range(layers)
             for kind in ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj")]  # fmt: skip
    names += ["model.embed_tokens.weight", *HOSTILE]
    tensors = {name: ("BF16", shape, bf16_bytes(weights(rng, *shape))) for name in names}
    for i in range(layers):
        name = f"model.layers.{i}.input_layernorm.weight"
        tensors[name] = ("BF16", (128,), bf16_bytes(weights(rng, 128)))
    make_safetensors(folder / "model.safetensors", tensors)
    return list(tensors)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    names = small_model(folder / "source")
    run(MKHCT, "-q", "--retention", ".7", folder / "source", folder / "out")
    return folder / "out", names


class Page(HTMLParser):
    """Elements, texts of cells, and all addresses that a browser would fetch."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.table, self.rows = [], [], None, {}
        self.cell = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.addresses += [attrs[k] for k in ("src", "href") if attrs.get(k)]
        assert not [k for k in attrs if k.startswith("on")]
        if tag == "table":
            self.table = attrs.get("id")
        if tag == "tr" and self.table:
            self.rows.setdefault(self.table, []).append([])
        if tag in ("td", "th") and self.table:
            self.rows[self.table][-1].append("")
            self.cell = self.rows[self.table][-1]

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = None
        if tag == "table":
            self.table = None

    def handle_data(self, data):
        if self.cell is not None:
            self.cell[-1] += data


def seen(name):
    """A name as the page shows it."""
    name = re.sub("[\x00-\x1f\u202e]", lambda m: f"\\u{{{ord(m[0]):x}}}", name)
    return name if len(name) <= 600 else name[:300]


def check_rows(page, names):
    rows = page.rows["tensors"][1:]
    assert len(rows) == len(names)
    assert {row[0][:300] for row in rows} == {seen(name)[:300] for name in names}
    assert len(page.rows["worst-list"]) == 21
    assert {row[0] for row in page.rows["reasons"][1:]} >= {"norm"}


def test_page_holds_what_the_report_says(bundle):
    out, names = bundle
    text = (out / ".hct/report.html").read_text()
    page = Page(text)
    check_rows(page, names)
    assert page.tags.count("script") == 1 and page.tags.count("img") == 0
    assert page.addresses == ["data:,"]
    assert page.tags.count("svg") == 3  # size and error by layer, and kinds
    assert text.count('<g class="bar">') == 6
    report = json.loads((out / ".hct/report.json").read_text())
    assert f"<b>{report['ratio']:.3f}</b>" in text
    assert re.search("[\x00-\x08\x0b-\x1f\u202e]", text) is None


def test_page_is_the_same_but_for_the_time(bundle, tmp_path):
    out, _ = bundle
    run(MKHCT, "-q", "-j1", "--retention", ".7", out.parent / "source", tmp_path / "again")
    pages = [(b / ".hct/report.html").read_text() for b in (out, tmp_path / "again")]
    pages = [re.sub(r"<b>[^<]*</b><span>of time", "", page) for page in pages]
    assert pages[0] == pages[1]


def test_lossless_page(bundle, tmp_path):
    out, names = bundle
    run(MKHCT, "-q", "--lossless", out.parent / "source", tmp_path / "out")
    page = Page((tmp_path / "out/.hct/report.html").read_text())
    assert len(page.rows["tensors"]) == 1 + len(names)
    assert page.tags.count("svg") == 2 and "worst-list" not in page.rows


def test_page_of_very_many_tensors_is_cut(tmp_path):
    data = np.arange(2, dtype="<u2").tobytes()
    tensors = {f"model.layers.{i}.a.bias": ("BF16", (2,), data) for i in range(100_000)}
    (tmp_path / "source").mkdir()
    make_safetensors(tmp_path / "source" / "model.safetensors", tensors)
    run(MKHCT, "-q", "--lossless", tmp_path / "source", tmp_path / "out")
    path = tmp_path / "out/.hct/report.html"
    page = Page(path.read_text())
    assert path.stat().st_size < 10 << 20
    assert len(page.rows["tensors"]) == 1 + 1000
    assert "100000 tensors. The table shows the 1000" in path.read_text()


# A real browser ------------------------------------------------------------------------

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
browser = pytest.mark.skipif(not BROWSER, reason="no chromium here: contrib/setup.sh --dev installs it")


def open_page(address, profile, *options):
    """Runs the browser; returns the DOM that it came to, and what it logged."""
    words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             f"--user-data-dir={profile}", "--enable-logging=stderr", "--log-level=0",
             "--virtual-time-budget=3000", *options, address]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@browser
def test_browser_shows_the_page(bundle, tmp_path):
    out, names = bundle
    dom, console = open_page(f"file://{out}/.hct/report.html", tmp_path / "profile", "--dump-dom")
    page = Page(dom)
    check_rows(page, names)
    assert console == []
    assert "owned" not in re.search("<title>(.*?)</title>", dom)[1]
    assert page.tags.count("svg") == 3 and page.tags.count("circle") > 6
    assert page.tags.count("button") == 11  # the script ran: columns can be sorted
    assert page.tags.count("input") == 1


@browser
def test_browser_asks_for_nothing_else(bundle, tmp_path):
    """Served over HTTP, the page is the only thing that is fetched; a click sorts the table."""
    text = (bundle[0] / ".hct/report.html").read_bytes()
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/report.html"
        _, console = open_page(address, tmp_path / "profile", "--dump-dom")
    finally:
        server.shutdown()
    assert asked == ["/report.html"] and console == []
