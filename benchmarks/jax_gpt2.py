"""GPT-2 and AdamW as one writes them in plain JAX, one compiled function a step: a peer of cpu.py."""

from __future__ import annotations


def train_step(heads, lr, betas, eps, decay, clip):
    """The compiled step: (p, m, v, k, tokens, targets) -> (loss, p, m, v); `p` by the names of gpt2_124m.toml."""
    import jax
    import jax.numpy as jnp

    def norm(x, weight, bias):
        x = x - x.mean(-1, keepdims=True)
        return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weight + bias

    def loss(p, tokens, targets):
        (B, T), C = tokens.shape, p["wte.weight"].shape[1]
        seen = jnp.tril(jnp.ones((T, T), bool))
        x = p["wte.weight"][tokens] + p["x0.weight"][:T]
        for i in range(sum(name.endswith(".qkv.weight") for name in p)):
            w = {name.removeprefix(f"h.{i}."): value for name, value in p.items() if name.startswith(f"h.{i}.")}
            qkv = norm(x, w["ln_1.weight"], w["ln_1.bias"]) @ w["qkv.weight"].T + w["qkv.bias"]
            q, k, v = jnp.moveaxis(qkv.reshape(B, T, 3, heads, C // heads), 2, 0).swapaxes(2, 3)
            s = jnp.where(seen, q @ k.swapaxes(-1, -2) / (C // heads) ** 0.5, -jnp.inf)
            y = (jax.nn.softmax(s) @ v).swapaxes(1, 2).reshape(B, T, C)
            x = x + y @ w["proj.weight"].T + w["proj.bias"]
            y = norm(x, w["ln_2.weight"], w["ln_2.bias"]) @ w["fc.weight"].T + w["fc.bias"]
            x = x + jax.nn.gelu(y, approximate=True) @ w["down.weight"].T + w["down.bias"]
        logits = norm(x, p["ln_f.weight"], p["ln_f.bias"]) @ p["wte.weight"].T
        picked = jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
        return (jax.nn.logsumexp(logits, -1) - picked).mean()

    def step(p, m, v, k, tokens, targets):
        value, g = jax.value_and_grad(loss)(p, tokens, targets)
        scale = jnp.minimum(1, clip / (jnp.sqrt(sum((x * x).sum() for x in g.values())) + 1e-6))
        g = {name: x * scale for name, x in g.items()}
        m = {name: betas[0] * m[name] + (1 - betas[0]) * x for name, x in g.items()}
        v = {name: betas[1] * v[name] + (1 - betas[1]) * x * x for name, x in g.items()}

        def updated(name, w):
            shrink = 1 - lr * decay if w.ndim == 2 else 1.0
            root = jnp.sqrt(v[name] / (1 - betas[1] ** k)) + eps
            return w * shrink - lr * m[name] / (1 - betas[0] ** k) / root

        return value, {name: updated(name, w) for name, w in p.items()}, m, v

    return jax.jit(step, donate_argnums=(0, 1, 2))
