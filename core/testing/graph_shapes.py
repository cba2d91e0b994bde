"""Graph shapes that random models meet rarely, written by hand: what the rarer faults of the planner are shown.

Each is a model TOML with the settings that matter, held to everything that a random model is held to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tomli

from core.testing.graph_document import RandomModel

HEAD = """
inputs = { tokens = "B T : i32 < V", targets = "B T : i32 < V" }
logits = "y"
loss = "loss"
[dims]
B = 4
T = 3
V = 7
C = 4
[graph]
wte = { op = "embedding", in = "tokens", rows = "V", cols = "C" }
"""
TAIL = """
y = { op = "matmul", in = "x", features = "V", bias = false }
loss = { op = "cross_entropy", in = ["y", "targets"] }
"""

# name -> (nodes between the embedding and the head, settings of core.engine.Settings, micro-steps)
SHAPES: Mapping[str, tuple[str, Mapping[str, Any], int]] = {
    # add_layernorm's dr is its dx, and nobody needs dx: the residual is frozen
    "an alias source beside frozen values": (
        """
        r = { op = "matmul", in = "wte", features = "C", bias = false }
        s = { op = "add", in = ["wte", "r"] }
        n = { op = "layernorm", in = "s" }
        x = { op = "add", in = ["s", "n"] }
        """,
        {"freeze": ("wte.*",)},
        1,
    ),
    # da and db of the sum are one tensor; scale's gradient may lie over it, and b's consumer has yet to read it
    "a gradient in place of a shared one": (
        """
        a = { op = "matmul", in = "wte", features = "C" }
        b = { op = "scale", in = "wte", by = 3.0 }
        c = { op = "scale", in = "a", by = 0.5 }
        x = { op = "add", in = ["b", "c"] }
        """,
        {},
        1,
    ),
    # swiglu's dx may lie over f, which a sum reads when it is recomputed for gelu; the sum's own backward reads nothing
    "a gradient in place of a value that a recompute reads": (
        """
        f = { op = "matmul", in = "wte", features = "2*C" }
        g = { op = "matmul", in = "wte", features = "2*C" }
        s = { op = "add", in = ["f", "g"] }
        h = { op = "gelu", in = "s" }
        p = { op = "matmul", in = "h", features = "C" }
        z = { op = "swiglu", in = "f" }
        x = { op = "add", in = ["p", "z"] }
        """,
        {"recompute": ("add",)},
        1,
    ),
    # masks of a row for each of a token's experts
    "dropout of experts in micro-steps": (
        """
        gate = { op = "matmul", in = "wte", features = 4, bias = false }
        route = { op = "route", in = "gate", k = 2 }
        fc = { op = "expert_matmul", in = ["wte", "route.expert"], experts = 4, features = "C" }
        drop = { op = "dropout", in = "fc", p = 0.5 }
        x = { op = "combine", in = ["drop", "route"] }
        """,
        {},
        4,
    ),
    # both matrices of an MLP are one parameter: a node has a gradient for each of its own
    "parts of a fused op that share a parameter": (
        """
        f = { op = "matmul", in = "wte", features = "C", bias = false }
        a = { op = "gelu", in = "f" }
        d = { op = "matmul", in = "a", features = "C", bias = false, tie = { weight = "f.weight" } }
        x = { op = "add", in = ["wte", "d"] }
        """,
        {},
        2,
    ),
    # rope with two heads under attention with one
    "parts of a fused op with attributes that differ": (
        """
        qkv = { op = "matmul", in = "wte", features = "3*C" }
        r = { op = "rope", in = "qkv", heads = 2 }
        x = { op = "attention", in = "r", heads = 1 }
        """,
        {},
        1,
    ),
}


def shape_of(name: str) -> RandomModel:
    """The model of that name as core.testing.graphs takes one: all that the settings leave out is on."""
    nodes, settings, micro_steps = SHAPES[name]
    document = tomli.loads(HEAD + nodes + TAIL)
    plain: dict[str, Any] = {"alias": True, "in_place": True, "freeze": (), "recompute": (), "fusion": {}, "ops": {}}
    return RandomModel(0, document, {**plain, **settings}, micro_steps)
