"""Golden values of small GPT-2s, from PyTorch in f64: `python tests/golden/make.py` writes them beside itself.

The model below is written from the papers, in plain torch.nn.functional, and shares no line with the ops. Weights
and batches come from `numpy.random.RandomState`, whose streams NumPy has frozen, so the files hold results alone:
logits, loss and gradients of one batch, and losses and norms of ten AdamW steps of three micro-steps each; and those of
ten steps on the one batch of a text, for a run that starts from imported weights. Where PyTorch is installed, the tests
compute the same afresh. Importing this file needs NumPy only.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
SEED = 20240520
IGNORED = -1  # a target that does not count

# name -> model (of `core models`, or a file beside this one) and dims. T is shorter than S, the positions that there
# are; V is no multiple of anything; C / H is 6 and 8.
CASES = {
    "gpt2": {
        "model": "gpt2_124m",
        "dims": {"B": 2, "T": 11, "S": 16, "V": 50, "P": "pad(V, 64)", "C": 24, "H": 4, "L": 2},
    },
    "gqa": {
        "model": "gqa.toml",
        "dims": {"B": 2, "T": 9, "S": 9, "V": 37, "P": "pad(V, 64)", "C": 32, "H": 4, "K": 2, "L": 1},
    },
}
STEPS, MICRO_STEPS = 10, 3
OPTIMIZER = {"lr": 1e-2, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1, "clip": 1.0}
EPS = 1e-5  # of layernorm


def shapes(dims):
    """Parameter name -> shape; the rows of a weight are its outputs."""
    C, L = dims["C"], dims["L"]
    qkv = (dims["H"] + 2 * dims.get("K", dims["H"])) * (C // dims["H"])
    found = {"wte.weight": (dims["V"], C), "x0.weight": (dims["S"], C)}
    for i in range(L):
        for name, shape in {
            "ln_1.weight": (C,), "ln_1.bias": (C,), "qkv.weight": (qkv, C), "qkv.bias": (qkv,),
            "proj.weight": (C, C), "proj.bias": (C,), "ln_2.weight": (C,), "ln_2.bias": (C,),
            "fc.weight": (4 * C, C), "fc.bias": (4 * C,), "down.weight": (C, 4 * C), "down.bias": (C,),
        }.items():  # fmt: skip
            found[f"h.{i}.{name}"] = shape
    return {**found, "ln_f.weight": (C,), "ln_f.bias": (C,)}


def weights(dims):
    """Parameter name -> f64 array: normal(0, 0.25), a layernorm's weight around 1. Nothing is 0 and nothing equal."""
    drawn = {}
    for name, shape in shapes(dims).items():
        noise = 0.25 * np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
        drawn[name] = 1 + noise if ".ln_" in "." + name and name.endswith("weight") else noise
    return drawn


def batches(dims, count=MICRO_STEPS):
    """`count` batches {"tokens", "targets"} of (B, T) i32; in batch i, i + 1 of the targets do not count."""
    stream, shape = np.random.RandomState(SEED), (dims["B"], dims["T"])
    found = []
    for index in range(count):
        tokens, targets = (stream.randint(0, dims["V"], shape).astype(np.int32) for _ in range(2))
        targets.reshape(-1)[stream.permutation(targets.size)[: index + 1]] = IGNORED
        found.append({"tokens": tokens, "targets": targets})
    return found


def logits(p, tokens, dims):
    """(B, T, V) logits of tokens (B, T), with parameters `p` by name."""
    import torch
    from torch.nn.functional import embedding, gelu, layer_norm, linear

    H, D = dims["H"], dims["C"] // dims["H"]
    K = dims.get("K", H)
    B, T = tokens.shape
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    x = embedding(tokens, p["wte.weight"]) + p["x0.weight"][:T]
    for i in range(dims["L"]):
        own = {name.removeprefix(f"h.{i}."): value for name, value in p.items() if name.startswith(f"h.{i}.")}
        y = layer_norm(x, (dims["C"],), own["ln_1.weight"], own["ln_1.bias"], EPS)
        packed = linear(y, own["qkv.weight"], own["qkv.bias"]).view(B, T, H + 2 * K, D).transpose(1, 2)
        q, k, v = packed.split([H, K, K], dim=1)
        k, v = k.repeat_interleave(H // K, dim=1), v.repeat_interleave(H // K, dim=1)
        scores = (q @ k.transpose(-1, -2) / math.sqrt(D)).masked_fill(future, -math.inf)
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(B, T, H * D)
        x = x + linear(y, own["proj.weight"], own["proj.bias"])
        y = layer_norm(x, (dims["C"],), own["ln_2.weight"], own["ln_2.bias"], EPS)
        y = gelu(linear(y, own["fc.weight"], own["fc.bias"]), approximate="tanh")
        x = x + linear(y, own["down.weight"], own["down.bias"])
    return linear(layer_norm(x, (dims["C"],), p["ln_f.weight"], p["ln_f.bias"], EPS), p["wte.weight"])


def loss_sum(p, batch, dims):
    """Sum of the losses of the targets that count."""
    import torch
    from torch.nn.functional import cross_entropy

    tokens, targets = (torch.from_numpy(batch[n].astype(np.int64)) for n in ("tokens", "targets"))
    found = logits(p, tokens, dims)
    return cross_entropy(found.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")


def text_batch(dims):
    """{"tokens", "targets"} of a text's first B * T + 1 tokens: targets are the tokens that follow."""
    stream = text_tokens(dims)
    shape = dims["B"], dims["T"]
    return {"tokens": stream[:-1].reshape(shape), "targets": stream[1:].reshape(shape)}


def text_tokens(dims):
    """(B * T + 1,) i32."""
    return np.random.RandomState(SEED + 1).randint(0, dims["V"], dims["B"] * dims["T"] + 1).astype(np.int32)


def counted(batch):
    return int((batch["targets"] != IGNORED).sum())


def parameters(dims, dtype):
    import torch

    return {n: torch.tensor(w, dtype=getattr(torch, dtype), requires_grad=True) for n, w in weights(dims).items()}


def one_batch(dims, dtype="float64"):
    """{"logits", "loss", "d" + parameter: gradient} of the first batch."""
    import torch

    p, batch = parameters(dims, dtype), batches(dims)[0]
    loss = loss_sum(p, batch, dims) / counted(batch)
    loss.backward()
    with torch.no_grad():
        found = {"logits": logits(p, torch.from_numpy(batch["tokens"].astype(np.int64)), dims), "loss": loss}
    found |= {"d" + name: value.grad for name, value in p.items()}
    return {name: value.detach().numpy() for name, value in found.items()}


def ten_steps(dims, all_batches, dtype="float64"):
    """{"losses", "norms"}: (STEPS,) each. Matrices decay; the gradient is that of the mean over all micro-steps."""
    import torch

    p = parameters(dims, dtype)
    groups = [
        {"params": [w for w in p.values() if w.ndim == 2], "weight_decay": OPTIMIZER["weight_decay"]},
        {"params": [w for w in p.values() if w.ndim == 1], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=OPTIMIZER["lr"], betas=tuple(OPTIMIZER["betas"]), eps=OPTIMIZER["eps"])
    total = sum(counted(batch) for batch in all_batches)
    losses, norms = [], []
    for _ in range(STEPS):
        adamw.zero_grad()
        micro = [loss_sum(p, batch, dims) / total for batch in all_batches]
        for loss in micro:
            loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(list(p.values()), OPTIMIZER["clip"])))
        adamw.step()
        losses.append(sum(float(loss.detach()) for loss in micro))
    return {"losses": np.array(losses), "norms": np.array(norms)}


def compute(case):
    """Everything that the case's file holds, by PyTorch."""
    dims = CASES[case]["dims"]
    found = {**one_batch(dims), **ten_steps(dims, batches(dims))}
    return {name: np.array(value, np.float64) for name, value in found.items()}


def finetune():
    """{"losses", "norms"} of ten steps on the batch of a text, from the weights of the case "gpt2"."""
    dims = CASES["gpt2"]["dims"]
    return ten_steps(dims, [text_batch(dims)])


if __name__ == "__main__":
    import torch
    from safetensors.numpy import save_file

    for name, values in {**{case: compute(case) for case in CASES}, "finetune": finetune()}.items():
        path = FOLDER / f"{name}.safetensors"
        save_file(values, path, {"torch": torch.__version__, "numpy": np.__version__})
        print(f"{path.name}: {path.stat().st_size} bytes")
