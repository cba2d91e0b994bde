"""A model of a few nodes between an embedding and a loss, as TOML; its engine and its batches."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np

from core.engine import Engine, Settings
from core.graph import load_model
from core.loader import load_registry

BATCH = {"B": 4, "T": 3, "V": 11}


@cache
def shipped():
    return load_registry()


def with_ops(*pairs):
    """The shipped registry with more ops, each an (Op, class of its reference)."""
    real = shipped()
    ops, variants = dict(real.ops), dict(real.variants)
    for op, reference in pairs:
        ops[op.name], variants[op.name] = op, {"reference": reference()}
    return dataclasses.replace(real, ops=ops, variants=variants)


def toml(graph, *, sizes=BATCH, dims="C = 8", inputs="", top='logits = "y"\nloss = "loss"', wte=True):
    """A model: tokens -> wte -> `graph` -> y -> loss."""
    listed = "\n".join(f"{k} = {v}" for k, v in sizes.items())
    return (
        f'inputs = {{ tokens = "B T : i32 < V", targets = "B T : i32 < V"{inputs} }}\n{top}\n[dims]\n{listed}\n{dims}\n'
        "[graph]\n"
        + ('wte = { op = "embedding", in = "tokens", rows = "V", cols = "C" }\n' if wte else "")
        + graph
        + '\nloss = { op = "cross_entropy", in = ["y", "targets"] }\n'
    )


def model(folder, graph, **tables):
    """The path of `toml(graph, ...)` in a folder."""
    path = folder / "small.toml"
    path.write_text(toml(graph, **tables))
    return path


def engine(path, registry=None, **kwargs):
    registry = registry or shipped()
    built = Engine(
        load_model(str(path), registry),
        registry,
        Settings(**{"precision": "f64", "optimizer": "adamw", "options": {"clip": 0.0}, **kwargs}),
    )
    built.initialize(3)
    for array in built.parameters().values():
        array += 0.3 * np.random.default_rng(array.size).standard_normal(array.shape)
    return built


def batch(seed=0, rows=BATCH["B"], vocabulary=BATCH["V"]):
    rng = np.random.default_rng(seed)
    return {n: rng.integers(0, vocabulary, (rows, BATCH["T"])).astype(np.int32) for n in ("tokens", "targets")}


def halves(whole, count):
    return [
        dict(zip(whole, parts, strict=True))
        for parts in zip(*(np.split(v, count) for v in whole.values()), strict=True)
    ]


HEAD = 'y = { op = "matmul", in = "x", features = "V", bias = false }'
PADDED_HEAD = 'y = {{ op = "matmul", in = "wte", features = "P", bias = false{0} }}'
PAD = 'C = 8\nP = "pad(V, 16)"'
