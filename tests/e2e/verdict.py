"""What the two decoders say about .hct files: hctspec.py and `hct check`.

Files are judged many at a time: a bundle is nothing but a folder with .hct files.
"""

import json
import platform
import sys
from pathlib import Path

from helpers import EXIT_BAD_DATA, EXIT_OK, HCT, run

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

import hctspec  # noqa: E402

# The phrases of codec/error.c for the errors of FORMAT.md section 8.
PHRASES = {
    "NOT_HCT": "not an .hct file",
    "UNFINISHED": "unfinished .hct file",
    "VERSION": "newer format version",
    "UNSUPPORTED": "unsupported feature",
    "CORRUPT": "corrupt structure",
    "CHECKSUM": "checksum mismatch",
    "DIGEST": "decoded data mismatch",
    "LIMIT": "limit exceeded",
    "SAFETENSORS": "invalid safetensors file",
}
NAMES = {phrase: name for name, phrase in PHRASES.items()}

# What the CPU must have for each variant of the decoder.
NEEDED_FLAGS = {
    "scalar": set(),
    "avx2": {"avx2", "bmi2", "popcnt"},
    "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vbmi", "avx512_vbmi2"},
}


def cpu_flags():
    if platform.machine() != "x86_64":
        return set()
    text = Path("/proc/cpuinfo").read_text()
    return set(next((line for line in text.splitlines() if line.startswith("flags")), "").split())


# The values of HCT_SIMD that this CPU can run.
VARIANTS = [name for name, needed in NEEDED_FLAGS.items() if needed <= cpu_flags()]


def spec_says(data):
    """"OK" or the name of the error that decoding gives, by the specification, after each layer."""
    try:
        file = hctspec.File(data)
        for number, (i, _) in enumerate(file.chunks):
            for layers in range(1, file.tensors[i].layers + 1):
                file.decode_chunk(number, layers)
    except hctspec.SpecError as error:
        return error.name
    return "OK"


def spec_opens(data):
    """Whether the structures, without the chunks, are in order."""
    try:
        hctspec.File(data)
    except hctspec.SpecError:
        return False
    return True


def write_bundle(folder, files):
    """Writes {name: bytes of an .hct file} as a folder that is a bundle."""
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / f"{name}.safetensors.hct").write_bytes(data)
    return folder


def check_says(bundle, variant="scalar"):
    """{name: names of the errors} by hct check; a good file has no key.

    Fails when hct does not end as it should: a crash or a sanitizer's complaint.
    """
    done = run(HCT, "check", "--json", bundle, expect=None, env={"HCT_SIMD": variant})
    assert done.returncode in (EXIT_OK, EXIT_BAD_DATA), done.stderr
    assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr
    report = json.loads(done.stdout)
    found = {}
    for bad in report["bad"]:
        assert bad["message"] and "\n" not in bad["message"]
        found.setdefault(bad["file"].removesuffix(".safetensors"), []).append(NAMES[bad["error"]])
    assert (done.returncode == EXIT_BAD_DATA) == bool(found)
    return found
