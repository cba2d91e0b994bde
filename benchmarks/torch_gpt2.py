"""GPT-2 as one writes it in plain PyTorch: the peer that the benchmarks compare with. Not a golden model: tests/golden
has one that is written from the papers, with nothing fused.
"""

from __future__ import annotations


def gpt2_logits(p, tokens, heads):
    """(B, T, rows of wte) logits of tokens (B, T) i64; `p` has the parameters by the names of models/gpt2_124m.toml."""
    from torch.nn import functional as F

    (B, T), C = tokens.shape, p["wte.weight"].shape[1]
    x = F.embedding(tokens, p["wte.weight"]) + p["x0.weight"][:T]
    for i in range(sum(name.endswith(".qkv.weight") for name in p)):
        y = F.layer_norm(x, (C,), p[f"h.{i}.ln_1.weight"], p[f"h.{i}.ln_1.bias"])
        qkv = F.linear(y, p[f"h.{i}.qkv.weight"], p[f"h.{i}.qkv.bias"]).view(B, T, 3, heads, C // heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, C)
        x = x + F.linear(y, p[f"h.{i}.proj.weight"], p[f"h.{i}.proj.bias"])
        y = F.layer_norm(x, (C,), p[f"h.{i}.ln_2.weight"], p[f"h.{i}.ln_2.bias"])
        y = F.gelu(F.linear(y, p[f"h.{i}.fc.weight"], p[f"h.{i}.fc.bias"]), approximate="tanh")
        x = x + F.linear(y, p[f"h.{i}.down.weight"], p[f"h.{i}.down.bias"])
    return F.linear(F.layer_norm(x, (C,), p["ln_f.weight"], p["ln_f.bias"]), p["wte.weight"])
