"""The op passes its check, kernels in the simulator; two layers of gpt-oss's attention are transformers' own, forward,
gradients and decoding. LOSS and NORM are transformers' results, for machines without it."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

import core
from core.testing import check_op, check_variant, load_model, load_registry, shared_registry

LOSS, NORM = 6.846911731660454, 11.124620017458748
MODEL = """
requires = ["llama", "gptoss"]
inputs = { tokens = "B T : i32 < V", targets = "B T : i32 < V" }
logits = "logits"
loss = "loss"
[dims]
B = 2
T = 13
S = 64
V = 37
C = 16
[graph]
wte = { op = "embedding", in = "tokens", rows = "V", cols = "C" }
h = { block = "layer", in = "wte", repeat = 2 }
logits = { op = "matmul", in = "h", features = "V", bias = false }
loss = { op = "cross_entropy", in = ["logits", "targets"] }
[block.layer]
in = "x"
out = "y"
qkv = { op = "matmul", in = "x", features = "8 * 6" }
rope = { op = "rope", in = "qkv", heads = 4, kv_heads = 2, base = 150000.0, scaling = "yarn", factor = 32.0, high = 32.0, length = 24, truncate = false, gain = "0.1 * log(32) + 1" }
attn = { op = "sink_attention", in = "rope", heads = 4, kv_heads = 2, window = "0 if i % 2 else 5" }
proj = { op = "matmul", in = "attn", features = "C" }
y = { op = "add", in = ["x", "proj"] }
"""  # noqa: E501
HF = {
    "hidden_size": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "num_hidden_layers": 2,
    "vocab_size": 37,
    "sliding_window": 5,
    "max_position_embeddings": 64,
    "attention_dropout": 0.0,
    "layer_types": ["sliding_attention", "full_attention"],
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 150000.0,
        "factor": 32.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
    }
    | {"truncate": False, "original_max_position_embeddings": 24},
    "attn_implementation": "eager",
}


def test_the_op_passes_the_check_on_the_cpu():
    check_op("sink_attention", device="cpu", registry=load_registry(only=["gptoss"]))


def test_kernels_pass_the_check_in_the_simulator():
    registry = load_registry(only=["gptoss"])
    variant = registry.variant("sink_attention", "warp")
    report = check_variant(registry.op("sink_attention"), variant, registry, "sim", examples=(1, -1), archs=())
    assert report.passed, report.describe_failures()


@pytest.fixture(scope="module")
def batch():
    return np.random.RandomState(5).randint(0, 37, (2, 2, 13)).astype(np.int32)


@pytest.fixture
def ours(tmp_path):
    (tmp_path / "m.toml").write_text(MODEL)
    model = core.load(tmp_path / "m.toml", precision="f64")
    for name, weight in model.params.items():
        weight[...] = 0.4 * np.random.RandomState(zlib.crc32(name.encode())).standard_normal(weight.shape)
    return model


def theirs(params, tokens, targets):
    """Loss and gradients of transformers' attention between the same embedding and head, by our names."""
    torch = pytest.importorskip("torch")
    gptoss = pytest.importorskip("transformers.models.gpt_oss.modeling_gpt_oss")
    config = gptoss.GptOssConfig(**HF)
    tensors = {n: torch.tensor(w, dtype=torch.float64, requires_grad=True) for n, w in params.items()}
    x, at = tensors["wte.weight"][torch.tensor(tokens, dtype=torch.long)], torch.arange(13)
    turned = gptoss.GptOssRotaryEmbedding(config)(x.float(), at[None])
    turned = tuple(part.double() for part in turned)
    for i in range(2):
        layer, far = gptoss.GptOssAttention(config, i).double(), at[:, None] - at
        weights = torch.split(tensors[f"h.{i}.qkv.weight"], [24, 12, 12])
        biases = torch.split(tensors[f"h.{i}.qkv.bias"], [24, 12, 12])
        own = {f"{n}_proj.weight": w for n, w in zip("qkv", weights, strict=True)}
        own |= {f"{n}_proj.bias": b for n, b in zip("qkv", biases, strict=True)}
        own |= {f"o_proj.{part}": tensors[f"h.{i}.proj.{part}"] for part in ("weight", "bias")}
        own["sinks"] = tensors[f"h.{i}.attn.sink"]
        mask = torch.where((far >= 0) & (far < (13 if i else 5)), 0.0, -torch.inf).double()[None, None]
        x = x + torch.func.functional_call(layer, own, (x, turned, mask))[0]
    logits = x @ tensors["logits.weight"].T
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(targets, dtype=torch.long).flatten())
    loss.backward()
    return float(loss.detach()), {name: tensor.grad.numpy() for name, tensor in tensors.items()}


def test_loss_and_gradients_are_those_of_transformers_attention(ours, batch):
    loss, gradients = ours.loss(*batch), ours.gradients(*batch)
    norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
    assert abs(loss / LOSS - 1) < 1e-6 and abs(norm / NORM - 1) < 1e-5
    their_loss, wanted = theirs({n: np.array(w) for n, w in ours.params.items()}, *batch)
    assert abs(loss / their_loss - 1) < 1e-6  # their angles and softmax are in f32
    for name, gradient in gradients.items():
        assert np.linalg.norm(gradient - wanted[name]) < 1e-5 * np.linalg.norm(wanted[name]) + 1e-9, name


def test_it_decodes_through_its_cache_as_without(ours, batch):
    tokens = ours.generate(batch[0, :1, :4], max_new_tokens=9, temperature=0)
    for n in range(4, 13):
        assert ours.logits(tokens[:, :n])[0, -1].argmax() == tokens[0, n]


def test_the_shipped_model_has_windows_in_every_other_layer():
    graph = load_model("gptoss_125m", shared_registry()).build(shared_registry())
    assert [n.attrs["window"] for n in graph.find("h.*.attn")] == [128, 0] * 6
    assert sum(name.endswith(".sink") for name in graph.parameters) == 12
