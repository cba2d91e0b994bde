"""A model whose table splits and stacks rows of a folder's tensors."""

from __future__ import annotations

import numpy as np
import pytest
from read_weights import CONV1D, hf_folder, plugin_with, same

import core

SPLIT = """
extends = "gpt2_124m"
llmc = false
[dims]
B = 1
T = 4
S = 8
V = 50
P = "pad(V, 8)"
C = 12
H = 2
L = 2
[block.layer]
ln_1 = { op = "layernorm", in = "x" }
[hf]
architectures = ["SplitModel"]
prefix = ["", "m."]
expect = { model_type = ["split"], activation_function = ["absent"], layer_norm_epsilon = ["absent"] }
ignore = ["extra.*"]
dims = { C = "sizes.width", H = "sizes.heads", L = "sizes.layers", S = "sizes.positions", V = "sizes.vocabulary" }
tied = {}
[hf.params]
"h.{i}.qkv.weight" = ["h.{i}.q", "h.{i}.k", "h.{i}.v"]
"h.{i}.qkv.bias" = { rows = ["h.{i}.qb", "h.{i}.kb", "h.{i}.vb"] }
"x0.weight" = { stack = "e", rows = ["pos.{e}.a", "pos.{e}.b"] }
"""
SPLIT_CONFIG = {"architectures": ["SplitModel"], "model_type": "split", "extra": {"x": 1},
                "sizes": {"width": 12, "heads": 2, "layers": 2, "positions": 8, "vocabulary": 50}}  # fmt: skip


@pytest.fixture
def split(tmp_path):
    """A plugin with a model whose tensors are split, a folder of its weights, and what they are."""
    plugin = plugin_with(tmp_path / "split", SPLIT)
    params = {k: np.array(v) for k, v in core.load("split", plugins=[plugin]).params.items()}
    tensors = {}
    for name, value in params.items():
        if name.endswith("qkv.weight"):
            tensors |= dict(zip((f"m.{name[:4]}{part}" for part in "qkv"), np.split(value, 3), strict=True))
        elif name.endswith("qkv.bias"):
            tensors |= dict(zip((f"{name[:4]}{part}b" for part in "qkv"), np.split(value, 3), strict=True))
        elif name == "x0.weight":  # (8, 12): eight times 6 + 6 rows of one number
            for e, row in enumerate(value):
                tensors |= dict(zip((f"pos.{e}.a", f"pos.{e}.b"), np.split(row, 2), strict=True))
        else:
            node, role = name.split(".")[-2:]
            theirs = name.replace(f".{node}.", f".{CONV1D.get(node, node)}.")
            tensors[theirs] = value.T if node in CONV1D and role == "weight" else value
    folder = hf_folder(tmp_path / "folder", {k: np.ascontiguousarray(v) for k, v in tensors.items()}, SPLIT_CONFIG)
    return plugin, folder, params


def test_rows_are_stacked_and_counted_tensors_too(split):
    plugin, folder, params = split
    model = core.load(folder, plugins=[plugin])
    same(model.params, params)
    assert model.names("hf")["h.1.qkv.weight"] == ("h.1.q", "h.1.k", "h.1.v")
