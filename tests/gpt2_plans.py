"""Engines and plans of a small GPT-2, and models of a few lines."""

from __future__ import annotations

from functools import cache

import numpy as np

from core.engine import Engine, Settings
from core.graph import load_model
from core.loader import load_registry

TINY = {"B": 2, "T": 8, "S": 16, "V": 50, "C": 32, "H": 4, "L": 2}


@cache
def registry():
    return load_registry()


def engine(model="gpt2_124m", dims=None, **kwargs):
    source = load_model(str(model), registry())
    return Engine(source, registry(), Settings(dims=TINY if dims is None else dims, optimizer="adamw", **kwargs))


def train_plan(**kwargs):
    return engine(**kwargs).plan("train")


def steps_of(plan, kind, name=None):
    return [s for s in plan.steps if s.kind == kind and (name is None or (s.node and s.node.name == name))]


def model_file(tmp_path, graph, top='logits = "y"\nloss = "loss"', dims=""):
    """A model TOML of a few lines: tokens -> wte -> ... -> y -> loss."""
    path = tmp_path / "small.toml"
    path.write_text(
        f"""inputs = {{ tokens = "B T : i32 < V", targets = "B T : i32 < V" }}
{top}
[dims]
B = 2
T = 4
V = 11
C = 8
{dims}
[graph]
wte = {{ op = "embedding", in = "tokens", rows = "V", cols = "C" }}
{graph}
loss = {{ op = "cross_entropy", in = ["y", "targets"] }}
"""
    )
    return path


def random_batch(seed=0, vocabulary=11, shape=(2, 4)):
    rng = np.random.default_rng(seed)
    return {name: rng.integers(0, vocabulary, shape).astype(np.int32) for name in ("tokens", "targets")}


# --- fusion --------------------------------------------------------------------------------------------------------


def fused(plan):
    return {n.name: n.op.name for n in plan.nodes if n.op.replaces}
