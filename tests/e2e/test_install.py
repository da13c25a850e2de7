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

ENCODING_PROGRAM = """
#include <hct/hctenc.h>
#include <math.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	float x[2] = {3, 4};
	hct_dct *dct;
	hct_encoder *encoder;

	(void)argv;
	if (argc != 2 || hct_dct_create(HCT_SIMD_AUTO, &dct) != HCT_OK ||
	    hct_dct_forward_1d(dct, x, x, 2, 1, 1, 0) != HCT_OK ||
	    hct_encoder_create(HCT_SIMD_AUTO, &encoder) != HCT_OK)
		return 1;
	printf("%d %s\\n", (int)lround(2 * (double)(x[0] * x[0])), HCT_VERSION);
	fputs(hct_error_string(HCT_OK), stderr);
	hct_encoder_free(encoder);
	hct_dct_free(dct);
	return 0;
}
"""

# What a reader of bundles must not be bound to.
ENCODERS_OWN = ("fftw", "openblas", "lapack", "blas")


def run_make(*words):
    outer = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    clean = {name: value for name, value in os.environ.items() if name not in outer}
    command = ["make", "-C", str(ROOT), f"B={BUILD}", *map(str, words)]
    return subprocess.run(command, env=clean, capture_output=True, text=True, check=False)


def make(*words):
    """make as a user calls it, on what is built already."""
    done = run_make("-o", "all", *words)
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
    return run("pkg-config", *words, env=path).stdout.split()


def needed(file):
    """Names of the shared libraries that a program or library loads, and those that these do."""
    return run("ldd", file).stdout


def test_programs(prefix):
    for name in ("mkhct", "hctfs", "hct"):
        assert run(prefix / "bin" / name, "--version").stdout
        assert (prefix / "share" / "bash-completion" / "completions" / name).exists()
        assert (prefix / "share" / "man" / "man1" / f"{name}.1").exists()


@pytest.mark.parametrize("compiler", ["cc", "c++ -x c++"])
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("name", ["libhct", "libhctenc"])
def test_library(prefix, tmp_path, name, compiler, static):
    """A program finds headers and library with pkg-config, as C and as C++."""
    if run("sh", "-c", f"command -v {compiler.split()[0]}", expect=None).returncode:
        pytest.skip(f"{compiler} is not installed")
    source = tmp_path / "app.c"
    source.write_text(PROGRAM if name == "libhct" else ENCODING_PROGRAM)
    words = pkg_config(prefix, "--cflags", "--libs", *(["--static"] if static else []), name)
    if static:
        archives = {f"-l{lib[3:]}": prefix / "lib" / f"{lib}.a" for lib in ("libhct", "libhctenc")}
        words = [archives.get(word, word) for word in words]
    run(*compiler.split(), source, "-x", "none", *words, "-lm", "-o", tmp_path / "app")
    bundle = compress(make_sharded_model(tmp_path / "model", shards=1), tmp_path / "out")
    libraries = {} if static else {"LD_LIBRARY_PATH": str(prefix / "lib")}
    shown = run(tmp_path / "app", next(bundle.glob("*.safetensors.hct")), env=libraries).stdout.split()
    assert shown == ["31" if name == "libhct" else "49", *pkg_config(prefix, "--modversion", name)]
    if name == "libhct":
        assert not [word for word in ENCODERS_OWN if word in needed(tmp_path / "app")]


@pytest.mark.parametrize("name", ["bin/hct", "bin/hctfs", "lib/libhct.so"])
def test_readers_need_no_library_of_the_encoder(prefix, name):
    shown = needed(prefix / name)
    assert "libzstd" in shown
    assert not [word for word in ENCODERS_OWN if word in shown]
    assert "fftw" in needed(prefix / "lib" / "libhctenc.so")  # ldd would show it


def test_readers_are_built_without_libraries_of_the_encoder(tmp_path):
    """The goals of a reader ask pkg-config for what they need, and mkhct for all."""
    fake = tmp_path / "pkg-config"
    fake.write_text(
        "#!/bin/sh\n"
        'case " $* " in *fftw*|*openblas*|*libcrypto*|*cmocka*) exit 1 ;; esac\n'
        'exec pkg-config "$@"\n'
    )
    fake.chmod(0o755)
    readers = [BUILD / name for name in ("hct", "hctfs", "libhct.a", "libhct.so")]
    done = run_make("-n", f"PKG={fake}", *readers)
    assert done.returncode == 0, done.stderr
    for goal in ("all", BUILD / "mkhct", BUILD / "libhctenc.so"):
        done = run_make("-n", f"PKG={fake}", goal)
        assert done.returncode == 2
        assert "does not find fftw3f fftw3 openblas libcrypto: run contrib/setup.sh" in done.stderr


def includes(header):
    return set(re.findall(r'^#include "(\w+\.h)"$', header.read_text(), flags=re.M)) - {"hct.h"}


def declared(headers):
    names = set()
    for header in headers:
        text = re.sub(r"/\*.*?\*/|^#.*?$", "", header.read_text(), flags=re.S | re.M)
        text = re.sub(r"^(static|struct \w+ \{|typedef enum).*?^\}", "", text, flags=re.S | re.M)
        names |= set(re.findall(r"\b(hct_\w+)\(", text))
    return names


def exported(library):
    table = run("nm", "-D", "--defined-only", library).stdout
    return {line.split()[2] for line in table.splitlines()}


def test_libraries_export_what_the_headers_declare(prefix):
    """libhctenc what the headers that hctenc.h includes declare, libhct the others; the plug-in, where
    it is made, the transforms and what libhct looks for."""
    top = prefix / "include" / "hct"
    encoder = includes(top / "hctenc.h")
    plugin = {header.name for header in top.glob("hct_gpu.h")}
    reader = {header.name for header in top.glob("*.h")} - encoder - plugin
    assert {"dct.h", "encoder.h"} <= encoder and {"reader.h", "hct.h"} <= reader
    for name, headers, least in (("libhct.so", reader, 35), ("libhctenc.so", encoder, 20)):
        names = declared(top / header for header in headers)
        assert len(names) > least
        assert exported(prefix / "lib" / name) == names
    assert (prefix / "lib" / "libhct_cuda.so").exists() == bool(plugin)
    if plugin:
        names = declared(top / header for header in plugin)
        assert exported(prefix / "lib" / "libhct_cuda.so") == names | {"hct_device_class"}


def test_destdir_and_uninstall(prefix, tmp_path):
    make("install", f"DESTDIR={tmp_path}", "PREFIX=/opt/hct")
    assert files(tmp_path / "opt" / "hct") == files(prefix)
    for name in ("libhct.pc", "libhctenc.pc"):
        assert "prefix=/opt/hct\n" in (tmp_path / "opt/hct/lib/pkgconfig" / name).read_text()
    make("uninstall", f"DESTDIR={tmp_path}", "PREFIX=/opt/hct")
    assert files(tmp_path) == []
