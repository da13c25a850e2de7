"""Real loaders read real models through a mount: make check-loaders.

The loader is always the same for source and mount.  Of lossless bundles the results must be equal
to the bit; of lossy ones what a model does must be as near to its source as the target promises.
Tensors from safetensors map the file, which keeps the mount busy: each test loads in a
function of its own, so that they are gone when it returns.
"""

import contextlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import MKHCT, compress, mount, real_model, run
from python_tool import hctfs
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
)

pytestmark = pytest.mark.fuse

# The same order of sums in each run, and small models gain nothing from more.
torch.set_num_threads(1)

# The beginning of what stories260k tells, greedily, from an empty prompt.
STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
    "One day, she saw a big, red ball."
)
SENTENCES = ["A model goes in, a mount comes out.", "Ein kurzer Satz.", "weights " * 40]


def same_bits(a, b):
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))
    )


def compare_files(expected_path, found_path):
    """Every tensor of two safetensors files, loaded with torch."""
    expected, found = load_file(expected_path), load_file(found_path)
    assert set(found) == set(expected)
    assert all(same_bits(found[name], tensor) for name, tensor in expected.items())


def torch_dtype_known(file, name):
    """Whether torch has the tensor's dtype (it has none for the 6-bit ones)."""
    return not file.get_slice(name).get_dtype().startswith("F6_")


@pytest.fixture(scope="session")
def minilm():
    """The folder of all-MiniLM-L6-v2 that make check-loaders fetched."""
    folder = Path(os.environ.get("HCT_MINILM", "missing"))
    if not folder.is_dir():
        pytest.fail("HCT_MINILM names no folder: run make check-loaders", pytrace=False)
    return folder


@pytest.fixture(scope="session")
def minilm_bundle(minilm, tmp_path_factory):
    return compress(minilm, tmp_path_factory.mktemp("minilm") / "bundle.hct")


def test_safe_open_numpy(minilm, minilm_bundle):
    with mount(minilm_bundle) as mnt:
        with safe_open(mnt / "model.safetensors", "numpy") as found:
            with safe_open(minilm / "model.safetensors", "numpy") as expected:
                assert list(found.keys()) == list(expected.keys())
                assert found.metadata() == expected.metadata()
                for name in expected.keys():
                    a, b = expected.get_tensor(name), found.get_tensor(name)
                    assert (a.dtype, a.shape) == (b.dtype, b.shape), name
                    assert a.tobytes() == b.tobytes(), name


def compare_every_dtype(expected_path, found_path):
    with safe_open(found_path, "pt") as found, safe_open(expected_path, "pt") as expected:
        names = [n for n in expected.keys() if torch_dtype_known(expected, n)]
        assert len(names) >= len(list(expected.keys())) - 2
        for name in names:
            assert same_bits(expected.get_tensor(name), found.get_tensor(name)), name


def test_safe_open_torch_every_dtype(odd_model, odd_bundle):
    """Each dtype that torch has, NaN payloads, 0-d and empty tensors, odd names."""
    with mount(odd_bundle) as mnt:
        compare_every_dtype(odd_model / "model.safetensors", mnt / "model.safetensors")


def compare_slices(source, mnt):
    name = "embeddings.word_embeddings.weight"
    rng = np.random.default_rng(1)
    with safe_open(mnt / "model.safetensors", "pt") as found:
        with safe_open(source / "model.safetensors", "pt") as expected:
            a, b = expected.get_slice(name), found.get_slice(name)
            rows, columns = a.get_shape()
            for _ in range(50):
                top, bottom = sorted(rng.integers(0, rows, 2))
                left, right = sorted(rng.integers(0, columns, 2))
                assert same_bits(a[top:bottom], b[top:bottom])
                assert same_bits(a[top : top + 9, left:right], b[top : top + 9, left:right])


def test_slices(minilm, minilm_bundle):
    """Parts of a matrix, as tensor-parallel loaders read them."""
    with mount(minilm_bundle) as mnt:
        compare_slices(minilm, mnt)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_casts(minilm, dtype, tmp_path):
    """A model that torch itself cast and saved."""
    source = tmp_path / "source"
    source.mkdir()
    cast = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in load_file(minilm / "model.safetensors").items()
    }
    save_file(cast, source / "model.safetensors", metadata={"format": "pt"})
    with mount(compress(source, tmp_path / "bundle.hct")) as mnt:
        compare_files(source / "model.safetensors", mnt / "model.safetensors")


def embed(folder):
    """Mean-pooled sentence embeddings, as sentence-transformers computes them."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    batch = tokenizer(SENTENCES, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        states = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1))


def test_minilm_embeddings(minilm, minilm_bundle):
    expected = embed(minilm)
    assert expected.shape == (len(SENTENCES), 384)
    with mount(minilm_bundle) as mnt:
        assert same_bits(embed(mnt), expected)


def greedy(folder, tokens):
    """What the model says after its first token, as ids."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    start = torch.tensor([[model.config.bos_token_id]])
    with torch.inference_mode():
        return model.generate(
            start, attention_mask=torch.ones_like(start), max_new_tokens=tokens, do_sample=False
        )[0]


def test_stories_generation(tmp_path):
    source = real_model("stories260k")
    expected = greedy(source, 100)
    with mount(compress(source, tmp_path / "bundle.hct")) as mnt:
        compare_files(source / "model.safetensors", mnt / "model.safetensors")
        found = greedy(mnt, 100)
        text = AutoTokenizer.from_pretrained(mnt).decode(found, skip_special_tokens=True)
    assert torch.equal(found, expected)
    assert text.strip().startswith(STORY)


def test_sharded_generation(tmp_path):
    """A BF16 Llama that transformers saved in several shards."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=1000, hidden_size=256, intermediate_size=688, num_hidden_layers=4,
        num_attention_heads=8, num_key_value_heads=4, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    source = tmp_path / "source"
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(source, max_shard_size="2MB")
    assert len(list(source.glob("*.safetensors"))) > 1
    expected = greedy(source, 40)
    with mount(compress(source, tmp_path / "bundle.hct")) as mnt:
        for shard in source.glob("*.safetensors"):
            compare_files(shard, mnt / shard.name)
        assert torch.equal(greedy(mnt, 40), expected)


def interleave(source, mnt):
    shards = sorted(path.name for path in source.glob("*.safetensors"))
    with contextlib.ExitStack() as stack:
        expected, *readers = [
            [stack.enter_context(safe_open(folder / shard, "pt")) for shard in shards]
            for folder in (source, mnt, mnt)
        ]
        owner = {name: i for i, file in enumerate(expected) for name in file.keys()}
        for name in np.random.default_rng(1).permutation(sorted(owner)):
            tensor = expected[owner[name]].get_tensor(name)
            for files in readers:
                assert same_bits(files[owner[name]].get_tensor(name), tensor), name


def test_two_loaders_at_once(sharded_model, sharded_bundle):
    """Two readers of one mount, each with all shards open, tensors in random order."""
    with mount(sharded_bundle, "-o", "cache_size=32M,threads=2") as mnt:
        interleave(sharded_model, mnt)


def compress_lossy(source, bundle, *options):
    run(MKHCT, "-q", *options, source, bundle)
    return bundle


def named(value):
    """The options of a case as its name."""
    return " ".join(value) if isinstance(value, tuple) else ""


TEXT = (
    "Tom and his dog went to the beach. They were very happy and played with the sand all day."
)


def negative_log_likelihood(folder):
    """Nats a token of TEXT."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = AutoTokenizer.from_pretrained(folder)(TEXT, return_tensors="pt").input_ids
    if ids[0, 0] != model.config.bos_token_id:
        ids = torch.cat([torch.tensor([[model.config.bos_token_id]]), ids], dim=1)
    with torch.inference_mode():
        return float(model(ids, labels=ids).loss)


# Ratios are within 2% of what was measured.  A quarter of a million weights have little to spare:
# each of them counts.
@pytest.mark.parametrize(
    ("options", "ratio", "bound"),
    [
        (("--retention", ".6"), 6.95, 3.3),
        (("--retention", ".7"), 6.17, 2.2),
        (("--retention", ".8"), 5.3, 1.85),
        (("--retention", ".9"), 4.3, 1.58),
        (("--cosine", ".9995"), 4.4, 1.58),
        (("--retention", ".8", "--layers", "2"), 4.9, 1.85),
        (("--lossless",), 1.1, 1.4966),
    ],
    ids=named,
)
def test_stories_likelihood(options, ratio, bound, tmp_path):
    source = real_model("stories260k")
    bundle = compress_lossy(source, tmp_path / "bundle.hct", *options)
    name = "model.safetensors"
    stored = (bundle / (name + ".hct")).stat().st_size
    assert (source / name).stat().st_size >= ratio * stored
    with mount(bundle) as mnt:
        found = negative_log_likelihood(mnt)
    ratio = (source / name).stat().st_size / stored
    print(f"\nstories260k {' '.join(options)}: ratio {ratio:.2f}, NLL {found:.3f}")
    assert found < bound


@pytest.mark.parametrize(
    ("options", "ratio", "bound"),
    [
        (("--retention", ".7"), 10.14, 0.88),
        (("--retention", ".8"), 7.84, 0.95),
        (("--retention", ".9"), 5.7, 0.99),
        (("--snr", "30"), 6.1, 0.985),
        (("--bpw", "5"), 6.2, 0.985),
        (("--policy", "hybrid"), 4.3, 0.96),
    ],
    ids=named,
)
def test_minilm_lossy_embeddings(minilm, options, ratio, bound, tmp_path):
    """The cosine of each sentence's embedding to that of the source."""
    bundle = compress_lossy(minilm, tmp_path / "bundle.hct", *options)
    name = "model.safetensors"
    stored = (bundle / (name + ".hct")).stat().st_size
    assert (minilm / name).stat().st_size >= ratio * stored
    if options == ("--retention", ".7"):
        report = json.loads((bundle / ".hct/report.json").read_text())
        cosines = [t.get("cosine", 1) for f in report["files"] for t in f.get("tensor_list", [])]
        assert 0.9925 <= min(cosines) < 0.994
    with mount(bundle) as mnt:
        found = embed(mnt)
    worst = float((found * embed(minilm)).sum(1).min())
    ratio = (minilm / name).stat().st_size / stored
    print(f"\nMiniLM {' '.join(options)}: ratio {ratio:.2f}, worst cosine {worst:.4f}")
    assert worst >= bound


# contrib/python: without a mount -------------------------------------------------------

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch has no GPU here")
DEVICES = ["cpu", pytest.param("cuda:0", marks=GPU)]


@pytest.mark.parametrize("device", DEVICES)
def test_python_every_dtype(odd_model, odd_bundle, device):
    """What torch.load_file gives, F4 in pairs included; torch is what one gets without a word."""
    path = odd_bundle / "model.safetensors"
    with hctfs.safe_open(path, device=device) as found:
        with safe_open(odd_model / "model.safetensors", "pt", device) as expected:
            assert found.keys() == sorted(expected.keys())
            for name in found.keys():
                if torch_dtype_known(expected, name):
                    tensor = found.get_tensor(name)
                    assert same_bits(expected.get_tensor(name), tensor), name
                    assert tensor.is_contiguous() and str(tensor.device) == device
                else:
                    with pytest.raises(TypeError, match="torch .*no type for F6"):
                        found.get_tensor(name)


@pytest.mark.parametrize("device", DEVICES)
def test_python_load_file(minilm, minilm_bundle, device):
    found = hctfs.load_file(minilm_bundle, torch.device(device))
    expected = load_file(minilm / "model.safetensors", device)
    assert list(found) == list(expected)
    assert all(same_bits(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("device", DEVICES)
def test_python_slices(odd_model, odd_bundle, device):
    """Those that safetensors takes, too, and parts that do not keep the whole."""
    indexes = [
        np.s_[2:5], np.s_[-3:], np.s_[5:2], np.s_[3:99], np.s_[::2], 4, -1, np.s_[1:3, 0], (), ...,
        np.s_[..., 3:5], np.s_[:, 1:, :, 3:9], np.s_[None, 1:2], np.s_[[1, 2]], np.s_[0:2, [0, 1]],
    ]  # fmt: skip
    with hctfs.safe_open(odd_bundle / "model.safetensors", "pt", device) as found:
        with safe_open(odd_model / "model.safetensors", "pt", device) as expected:
            for name in ("odd.F32", "odd.BF16", "odd.I64"):
                for index in indexes:
                    a, b = expected.get_tensor(name)[index], found.get_slice(name)[index]
                    assert same_bits(a, b), (name, index)
                    assert b.untyped_storage().nbytes() == b.nbytes
            for index in (np.s_[2:5], np.s_[:, 3:7], np.s_[1]):
                a, b = expected.get_tensor("dtype.F4"), found.get_slice("dtype.F4")[index]
                assert torch.equal(a.view(torch.uint8)[index], b.view(torch.uint8))


@pytest.mark.parametrize("device", DEVICES)
def test_python_dlpack(odd_model, odd_bundle, device):
    """Tensors of libhct's memory, of all dtypes of whole bytes, which outlive what they are of."""
    path = odd_bundle / "model.safetensors"
    found = {
        name: torch.from_dlpack(tensor)
        for name, tensor in hctfs.load_file(path, device, "dlpack").items()
        if tensor.dtype[:2] not in ("F4", "F6")
    }
    for name, tensor in load_file_but_f6(odd_model / "model.safetensors", device).items():
        if name in found:
            assert same_bits(found[name], tensor), name
            found[name].reshape(-1).view(torch.uint8).fill_(1)  # theirs alone
    assert len(found) > 40


def load_file_but_f6(path, device):
    with safe_open(path, "pt", device) as file:
        return {n: file.get_tensor(n) for n in file.keys() if torch_dtype_known(file, n)}


def test_python_state_dict(tmp_path):
    """A model that never saw its files, from a bundle of several shards."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=500, hidden_size=128, intermediate_size=344, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    source = tmp_path / "source"
    model = LlamaForCausalLM(config).to(torch.bfloat16).eval()
    model.save_pretrained(source, max_shard_size="500KB")
    assert len(list(source.glob("*.safetensors"))) > 1
    bundle = compress(source, tmp_path / "bundle.hct")
    again = LlamaForCausalLM(config).to(torch.bfloat16).eval()
    again.load_state_dict(hctfs.load_file(bundle))
    tokens = torch.arange(60).reshape(2, 30)
    with torch.inference_mode():
        assert same_bits(model(tokens).logits, again(tokens).logits)
