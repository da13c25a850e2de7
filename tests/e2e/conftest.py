"""Fixtures and markers of the end-to-end tests; the functions are in helpers.py.

    @pytest.mark.fuse    needs /dev/fuse and fusermount3 (mount() skips by itself too)
    @pytest.mark.root    needs to run as root

With HCT_REQUIRE_FUSE=1 a test that cannot mount fails instead of being skipped.
"""

import importlib.util
import os

import helpers
import pytest

# Needs heavy packages, which make check-loaders installs.
collect_ignore = [] if importlib.util.find_spec("transformers") else ["test_loaders.py"]


def pytest_configure(config):
    config.addinivalue_line("markers", "fuse: needs to mount a file system")
    config.addinivalue_line("markers", "root: needs to run as root")
    missing = [p for p in (helpers.MKHCT, helpers.HCTFS, helpers.HCT) if not p.exists()]
    if missing:
        pytest.exit(f"{missing[0]} is not there: run make first, or set HCT_BUILD", returncode=2)


def pytest_runtest_setup(item):
    if item.get_closest_marker("fuse") and not os.environ.get("HCT_REQUIRE_FUSE"):
        reason = helpers.fuse_missing()
        if reason:
            pytest.skip(f"cannot mount: {reason}")
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("must run as root")


def pytest_terminal_summary(terminalreporter):
    """Closes with the same line as the unit tests do; HCT_SUITE names the suite."""
    stats = {kind: len(reports) for kind, reports in terminalreporter.stats.items()}
    failed = stats.get("failed", 0) + stats.get("error", 0)
    skipped = stats.get("skipped", 0) + stats.get("xfailed", 0)
    suite = os.environ.get("HCT_SUITE", "e2e")
    line = f"{suite}: {stats.get('passed', 0)} passed, {failed} failed, {skipped} skipped"
    terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def odd_model(tmp_path_factory):
    """Source directory with every dtype, shape and name that is odd.  Do not change it."""
    return helpers.make_odd_model(tmp_path_factory.mktemp("odd") / "source")


@pytest.fixture(scope="session")
def odd_bundle(odd_model):
    """odd_model compressed.  Copy it before damaging it."""
    return helpers.compress(odd_model, odd_model.parent / "bundle.hct")


@pytest.fixture(scope="session")
def sharded_model(tmp_path_factory):
    """Source directory of a BF16 model in three shards.  Do not change it."""
    return helpers.make_sharded_model(tmp_path_factory.mktemp("sharded") / "source")


@pytest.fixture(scope="session")
def sharded_bundle(sharded_model):
    """sharded_model compressed.  Copy it before damaging it."""
    return helpers.compress(sharded_model, sharded_model.parent / "bundle.hct")
