"""make install: what is there afterwards works, and make uninstall removes all of it."""

import os
import re
import subprocess

import pytest
from helpers import BUILD, ROOT, compress, make_sharded_model, run

PROGRAM = """
#include <hct/hct.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	struct hct_diag diag;
	hct_reader *reader;

	if (argc != 2 || hct_reader_open(argv[1], &reader, &diag) != HCT_OK)
		return 1;
	printf("%d %s\\n", (int)hct_reader_safetensors(reader)->count, HCT_VERSION);
	hct_reader_close(reader);
	return 0;
}
"""


def make(*words):
    """make as a user calls it, on what is built already."""
    outer = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    clean = {name: value for name, value in os.environ.items() if name not in outer}
    command = ["make", "-C", str(ROOT), "-o", "all", f"B={BUILD}", *map(str, words)]
    done = subprocess.run(command, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def files(top):
    return sorted(str(path.relative_to(top)) for path in top.rglob("*") if not path.is_dir())


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    if "-fsanitize" in (BUILD / "flags").read_text():
        pytest.skip("a sanitizer build is not for installation")
    top = tmp_path_factory.mktemp("install") / "hct"
    make("install", f"PREFIX={top}")
    return top


def pkg_config(prefix, *words):
    path = {"PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")}
    return run("pkg-config", *words, "libhct", env=path).stdout.split()


def test_programs(prefix):
    for name in ("mkhct", "hctfs", "hct"):
        assert run(prefix / "bin" / name, "--version").stdout
        assert (prefix / "share" / "bash-completion" / "completions" / name).exists()
        assert (prefix / "share" / "man" / "man1" / f"{name}.1").exists()


@pytest.mark.parametrize("compiler", ["cc", "c++ -x c++"])
@pytest.mark.parametrize("static", [False, True])
def test_library(prefix, tmp_path, compiler, static):
    """A program finds headers and library with pkg-config, as C and as C++."""
    if run("sh", "-c", f"command -v {compiler.split()[0]}", expect=None).returncode:
        pytest.skip(f"{compiler} is not installed")
    source = tmp_path / "app.c"
    source.write_text(PROGRAM)
    words = pkg_config(prefix, "--cflags", "--libs", *(["--static"] if static else []))
    if static:
        words = [prefix / "lib" / "libhct.a" if word == "-lhct" else word for word in words]
    run(*compiler.split(), source, "-x", "none", *words, "-o", tmp_path / "app")
    bundle = compress(make_sharded_model(tmp_path / "model", shards=1), tmp_path / "out")
    libraries = {} if static else {"LD_LIBRARY_PATH": str(prefix / "lib")}
    shown = run(tmp_path / "app", next(bundle.glob("*.safetensors.hct")), env=libraries).stdout.split()
    assert shown == ["31", *pkg_config(prefix, "--modversion")]


def test_library_exports_what_the_headers_declare(prefix):
    declared = set()
    for header in (prefix / "include" / "hct").glob("*.h"):
        text = re.sub(r"/\*.*?\*/|^#.*?$", "", header.read_text(), flags=re.S | re.M)
        text = re.sub(r"^(static|struct \w+ \{|typedef enum).*?^\}", "", text, flags=re.S | re.M)
        declared |= set(re.findall(r"\b(hct_\w+)\(", text))
    table = run("nm", "-D", "--defined-only", prefix / "lib" / "libhct.so").stdout
    exported = {line.split()[2] for line in table.splitlines()}
    assert len(declared) > 40
    assert exported == declared


def test_destdir_and_uninstall(prefix, tmp_path):
    make("install", f"DESTDIR={tmp_path}", "PREFIX=/opt/hct")
    assert files(tmp_path / "opt" / "hct") == files(prefix)
    assert "prefix=/opt/hct\n" in (tmp_path / "opt/hct/lib/pkgconfig/libhct.pc").read_text()
    make("uninstall", f"DESTDIR={tmp_path}", "PREFIX=/opt/hct")
    assert files(tmp_path) == []
