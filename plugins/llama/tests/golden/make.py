"""Golden values of small LLaMAs, from transformers: `python plugins/llama/tests/golden/make.py` writes them beside it.

LlamaForCausalLM computes them, which shares no line with our ops; which of its tensors is which of ours is said below,
once more than in the models' [hf] tables. Weights and batches come from `numpy.random.RandomState`, whose streams NumPy
has frozen, so the files hold results alone: logits, loss and gradients of one batch, and the losses of ten AdamW steps.
Importing this file needs NumPy only.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
SEED = 20230227
IGNORED = -1  # a target that does not count
STEPS = 10
OPTIMIZER = {"lr": 1e-2, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1}

SMALL = {"B": 2, "T": 13, "S": 64, "V": 37, "P": "pad(V, 64)", "C": 16, "H": 4, "K": 2, "F": 24, "L": 2}
# name -> our model, its dims, and what config.json says besides the sizes. `wide` has heads that are not C / H wide;
# of the pairs of `scaled`, with heads of 8 columns, one keeps its speed, one is between, and two are slowed down
CASES = {
    "tied": {"model": "llama_125m", "dims": {**SMALL, "K": 4}, "config": {"tie_word_embeddings": True}},
    "wide": {"model": "tinyllama_1b", "dims": {**SMALL, "D": 6}, "config": {"tie_word_embeddings": False}},
    "scaled": {
        "model": "llama3_1b",
        "dims": {**SMALL, "D": 8, "base": 50.0, "factor": 4.0, "low": 1.0, "high": 3.0, "length": 24},
        "config": {"tie_word_embeddings": True},
    },
}


def width(dims):
    return dims.get("D", dims["C"] // dims["H"])


def config(case):
    """What config.json holds, as transformers writes it."""
    dims = CASES[case]["dims"]
    rope = {"rope_type": "default", "rope_theta": dims.get("base", 10000.0)}
    if "factor" in dims:
        rope |= {"rope_type": "llama3", "factor": dims["factor"], "low_freq_factor": dims["low"]}
        rope |= {"high_freq_factor": dims["high"], "original_max_position_embeddings": dims["length"]}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": dims["C"],
        "intermediate_size": dims["F"],
        "num_hidden_layers": dims["L"],
        "num_attention_heads": dims["H"],
        "num_key_value_heads": dims["K"],
        "head_dim": width(dims),
        "vocab_size": dims["V"],
        "max_position_embeddings": dims["S"],
        "rms_norm_eps": 1e-5,
        "rope_parameters": rope,
        "attention_bias": False,
        "mlp_bias": False,
        **CASES[case]["config"],
    }


def theirs(case):
    """Our parameter -> their tensors, whose rows follow one another, each with its number of rows and columns."""
    dims = CASES[case]["dims"]
    C, F, D = dims["C"], dims["F"], width(dims)
    q, k = dims["H"] * D, dims["K"] * D
    found = {"wte.weight": {"model.embed_tokens.weight": (dims["V"], C)}}
    for i in range(dims["L"]):
        of, attn, mlp = f"model.layers.{i}", f"model.layers.{i}.self_attn", f"model.layers.{i}.mlp"
        projections = {f"{attn}.q_proj.weight": (q, C)}
        projections |= {f"{attn}.{name}_proj.weight": (k, C) for name in "kv"}
        found |= {
            f"h.{i}.norm_1.weight": {f"{of}.input_layernorm.weight": (C,)},
            f"h.{i}.qkv.weight": projections,
            f"h.{i}.proj.weight": {f"{attn}.o_proj.weight": (C, q)},
            f"h.{i}.norm_2.weight": {f"{of}.post_attention_layernorm.weight": (C,)},
            f"h.{i}.fc.weight": {f"{mlp}.gate_proj.weight": (F, C), f"{mlp}.up_proj.weight": (F, C)},
            f"h.{i}.down.weight": {f"{mlp}.down_proj.weight": (C, F)},
        }
    found["norm.weight"] = {"model.norm.weight": (C,)}
    if not CASES[case]["config"]["tie_word_embeddings"]:
        found["logits.weight"] = {"lm_head.weight": (dims["V"], C)}
    return found


def tensors(case):
    """Their tensors, f32: normal(0, 0.25), a norm's weight around 1. Nothing is 0 and nothing equal."""
    drawn = {}
    for parts in theirs(case).values():
        for name, shape in parts.items():
            noise = 0.25 * np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
            drawn[name] = (1 + noise if len(shape) == 1 else noise).astype(np.float32)
    return drawn


def ours(case, values):
    """Values by their names, put together by ours."""
    return {name: np.concatenate([values[part] for part in parts]) for name, parts in theirs(case).items()}


def batch(case):
    """{"tokens", "targets"} of (B, T) i32; three of the targets do not count."""
    dims = CASES[case]["dims"]
    stream, shape = np.random.RandomState(SEED), (dims["B"], dims["T"])
    tokens, targets = (stream.randint(0, dims["V"], shape).astype(np.int32) for _ in range(2))
    targets.reshape(-1)[stream.permutation(targets.size)[:3]] = IGNORED
    return {"tokens": tokens, "targets": targets}


def build(case):
    """LlamaForCausalLM with those weights. Sums are in f64 where it lets them be."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(**config(case), attn_implementation="eager"))
    missing, unexpected = model.load_state_dict({n: torch.tensor(v) for n, v in tensors(case).items()}, strict=False)
    assert set(missing) <= {"lm_head.weight"} and not unexpected
    model.tie_weights()
    return model.double()


def compute(case):
    """Everything that the case's file holds."""
    import torch
    from torch.nn.functional import cross_entropy

    model = build(case)
    tokens, targets = (torch.tensor(batch(case)[name], dtype=torch.long) for name in ("tokens", "targets"))

    def loss():
        return cross_entropy(model(tokens).logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)

    loss().backward()
    gradients = {name: p.grad.numpy().copy() for name, p in model.named_parameters()}
    found = {"logits": model(tokens).logits.detach().numpy(), "loss": loss().detach().numpy()}
    found |= {"d" + name: value for name, value in ours(case, gradients).items()}

    decay = [p for p in model.parameters() if p.ndim == 2], [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": p, "weight_decay": w} for p, w in zip(decay, (OPTIMIZER["weight_decay"], 0.0), strict=True)]
    how = {"lr": OPTIMIZER["lr"], "betas": tuple(OPTIMIZER["betas"]), "eps": OPTIMIZER["eps"]}
    adamw, losses = torch.optim.AdamW(groups, **how), []
    for _ in range(STEPS):
        adamw.zero_grad()
        now = loss()
        now.backward()
        adamw.step()
        losses.append(float(now.detach()))
    return {**{name: value.astype(np.float32) for name, value in found.items()}, "losses": np.array(losses)}


if __name__ == "__main__":
    import torch
    import transformers
    from safetensors.numpy import save_file

    for case in CASES:
        path = FOLDER / f"{case}.safetensors"
        save_file(compute(case), path, {"torch": torch.__version__, "transformers": transformers.__version__})
        print(f"{path.name}: {path.stat().st_size} bytes")
