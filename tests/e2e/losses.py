"""mkhct with loss, its report, and errors measured in double on what hct extract gives back."""

import json

import numpy as np
from helpers import HCT, MKHCT, random_tensor, run

# The definition of --retention, rounded: what keeping the fraction r of white noise leaves.
RETENTION = {0.5: 0.07133, 0.6: 0.03532, 0.7: 0.01459, 0.8: 0.00425, 0.9: 0.00052}

# How far the coder may miss a target that it only meets on average.
SLACK = 1.05


def read_tensors(path):
    """{name: (dtype, float64 array or bytes)} of a safetensors file."""
    blob = path.read_bytes()
    length = int.from_bytes(blob[:8], "little")
    tensors = {}
    for name, info in json.loads(blob[8 : 8 + length]).items():
        if name == "__metadata__":
            continue
        begin, end = info["data_offsets"]
        data = blob[8 + length + begin : 8 + length + end]
        tensors[name] = (info["dtype"], as_double(info["dtype"], data), data)
    return tensors


def as_double(dtype, data):
    if dtype == "BF16":
        wide = np.frombuffer(data, "<u2").astype("<u4") << 16
        return wide.view("<f4").astype(np.float64)
    if dtype in ("F16", "F32", "F64"):
        return np.frombuffer(data, {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]).astype(float)
    return None


def measure(source, bundle, tmp_path):
    """{name: (relative squared error, cosine)} between a source folder and its bundle; 0 and 1
    only for what is equal in every bit."""
    back = tmp_path / f"back-{bundle.name}"
    run(HCT, "extract", "-q", bundle, back)
    result = {}
    for path in sorted(source.glob("**/*.safetensors")):
        ours = read_tensors(back / path.relative_to(source))
        for name, (_, a, bytes_a) in read_tensors(path).items():
            _, b, bytes_b = ours[name]
            if bytes_a == bytes_b:
                result[name] = 0.0, 1.0
            elif a is None:
                result[name] = float("inf"), 0.0
            else:
                error = np.sum((a - b) ** 2) / np.sum(a * a)
                result[name] = error, np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b))
    return result


def report_of(bundle):
    """The report in the bundle, and its tensors by name."""
    report = json.loads((bundle / ".hct/report.json").read_text())
    return report, {t["name"]: t for f in report["files"] for t in f.get("tensor_list", [])}


def lossy(source, bundle, *options, env=None):
    run(MKHCT, "-q", *options, source, bundle, env=env)
    return bundle


def llama_tensors(layers=8, dtype="BF16", width=64):
    rng = np.random.default_rng(11)
    tensors = {"model.embed_tokens.weight": random_tensor(rng, dtype, (256, width))}
    for i in range(layers):
        at = f"model.layers.{i}"
        tensors[f"{at}.input_layernorm.weight"] = random_tensor(rng, dtype, (width,))
        for name in ("q", "k", "v", "o"):
            shape = (width + 8, width)
            tensors[f"{at}.self_attn.{name}_proj.weight"] = random_tensor(rng, dtype, shape)
        for name, shape in (("gate", (2 * width, width)), ("down", (width, 2 * width))):
            tensors[f"{at}.mlp.{name}_proj.weight"] = random_tensor(rng, dtype, shape)
    tensors["model.norm.weight"] = random_tensor(rng, dtype, (width,))
    tensors["lm_head.weight"] = random_tensor(rng, dtype, (256, width))
    return tensors
