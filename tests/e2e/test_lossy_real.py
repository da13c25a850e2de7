"""mkhct with loss on real weights: what they lose and take stays as it was recorded."""

import pytest
from helpers import real_model
from losses import RETENTION, SLACK, lossy, measure

MODEL = "gpt2-attn"

# Bytes of the whole .hct file with no options, which is retention .7: 2.851 bits a weight.
RECORDED = 5_345_996


def stored(bundle):
    return (bundle / "model.safetensors.hct").stat().st_size


@pytest.fixture(scope="module")
def coded(tmp_path_factory):
    """{retention: (bytes of the .hct file, {tensor: (relative squared error, cosine)})}"""
    source, folder = real_model(MODEL), tmp_path_factory.mktemp("real")
    found = {}
    for r in (0.5, 0.7, 0.9):
        options = [] if r == 0.7 else ["--retention", r]
        bundle = lossy(source, folder / f"r{r}", *options)
        found[r] = stored(bundle), measure(source, bundle, folder)
    return found


def test_real_weights_take_what_was_recorded(coded):
    """A larger file is a loss; one that is smaller by as much is to be recorded here."""
    size, _ = coded[0.7]
    assert size == pytest.approx(RECORDED, rel=0.02)


def test_real_weights_reach_the_default_quality(coded):
    _, tensors = coded[0.7]
    assert sum(error > 0 for error, _ in tensors.values()) == 13  # 12 matrices, the positions
    for name, (error, cosine) in tensors.items():
        assert error <= SLACK * RETENTION[0.7], name
        assert cosine >= 0.9925, name


def test_real_weights_lose_less_as_retention_rises(coded):
    sizes = [size for size, _ in coded.values()]
    assert sizes == sorted(set(sizes))
    for name, (error, _) in coded[0.5][1].items():
        errors = [error, coded[0.7][1][name][0], coded[0.9][1][name][0]]
        assert errors[0] > errors[1] > errors[2] or errors == [0, 0, 0], name
