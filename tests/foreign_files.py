"""The golden GPT-2 as other programs store it: Hugging Face folders and llm.c's files, written from their sources.

Nothing here comes from our readers, writers or model tables.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import safetensors.numpy

GOLDEN = Path(__file__).parent / "golden"
spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)

DIMS = make.CASES["gpt2"]["dims"]
OURS = {name: value.astype(np.float32) for name, value in make.weights(DIMS).items()}

CONFIG = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-05,
    "n_embd": DIMS["C"],
    "n_head": DIMS["H"],
    "n_layer": DIMS["L"],
    "n_positions": DIMS["S"],
    "n_inner": None,
    "vocab_size": DIMS["V"],
    "attn_pdrop": 0.1,
    "bos_token_id": 49,
    "task_specific_params": {"text-generation": {"do_sample": True}},
}
CONV1D = {"qkv": "attn.c_attn", "proj": "attn.c_proj", "fc": "mlp.c_fc", "down": "mlp.c_proj"}


def hf_tensors(prefix="transformer."):
    """The golden model as transformers stores a GPT-2: written from its source, not from our [hf] table."""
    tensors = {"wte.weight": OURS["wte.weight"], "wpe.weight": OURS["x0.weight"]}
    for name, value in OURS.items():
        if name.startswith("ln_f"):
            tensors[name] = value
        if name.startswith("h."):
            _, i, node, role = name.split(".")
            theirs = f"h.{i}.{CONV1D.get(node, node)}.{role}"
            tensors[theirs] = np.ascontiguousarray(value.T) if node in CONV1D and role == "weight" else value
    return {prefix + name: value for name, value in tensors.items()}


def hf_folder(path, tensors=None, config=None, shards=1):
    path.mkdir(parents=True, exist_ok=True)
    tensors = hf_tensors() if tensors is None else tensors
    (path / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    if shards == 1:
        safetensors.numpy.save_file(tensors, path / "model.safetensors")
        return path
    names = [f"model-{i + 1:05d}-of-{shards:05d}.safetensors" for i in range(shards)]
    where = {name: names[index % shards] for index, name in enumerate(tensors)}
    for file in names:
        safetensors.numpy.save_file({n: v for n, v in tensors.items() if where[n] == file}, path / file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return path


def bf16(values):
    """Rounded to bf16, nearest even: (the 16 bits, what they stand for in f32)."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    upper = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return upper, (upper.astype(np.uint32) << 16).view(np.float32)


ORDER = ("ln_1.weight", "ln_1.bias", "qkv.weight", "qkv.bias", "proj.weight", "proj.bias",
         "ln_2.weight", "ln_2.bias", "fc.weight", "fc.bias", "down.weight", "down.bias")  # fmt: skip


def llmc_file(path, version=3, padded=128, header=None, extra=b"", ours=OURS, L=DIMS["L"]):
    """A model of golden sizes as llm.c writes it: 256 int32, then the tensors, layers stacked."""
    C = DIMS["C"]
    numbers = np.zeros(256, "<i4")
    numbers[:8] = [20240326, version, DIMS["S"], DIMS["V"], L, DIMS["H"], C, padded]
    for place, value in (header or {}).items():
        numbers[place] = value
    wte = np.zeros((padded, C), np.float32)
    wte[: DIMS["V"]] = ours["wte.weight"]
    tensors = [wte, ours["x0.weight"]]
    tensors += [np.stack([ours[f"h.{i}.{name}"] for i in range(L)]) for name in ORDER]
    tensors += [ours["ln_f.weight"], ours["ln_f.bias"]]
    payload = b"".join((bf16(t)[0] if version == 5 else t.astype("<f4")).tobytes() for t in tensors)
    path.write_bytes(numbers.tobytes() + payload + extra)
    return path
