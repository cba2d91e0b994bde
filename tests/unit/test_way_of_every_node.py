"""`core plan CONFIG NODE`: from each node to the kernels that run it, by name, file and line, on every device."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from core.config import resolve_config
from core.graph import load_model
from core.plan.way import way
from core.train.wiring import build_engine

ROOT = Path(__file__).parents[2]
SMALL = ["dims.L=1", "dims.C=64", "dims.H=4", "dims.B=2", "dims.T=64", "dims.V=260", "data.vocab_size=260"]
DIRECTIONS = {"forward", "backward", "forward_backward", "recompute"}
NOTHING_READ = ("ndarray.fill",)  # functions that only write


@pytest.mark.parametrize("device", ["cpu", "sim", "cuda"])
@pytest.mark.parametrize("model", ["gpt2_124m", "llama_125m", "moe_125m"])
def test_every_node_has_a_way_to_its_kernels_forward_and_backward(model: str, device: str) -> None:
    """Those that a fused node has taken, too. No GPU is needed for cuda."""
    overrides = [*SMALL, f"model={model}"]
    loaded, registry = resolve_config(str(ROOT / "configs/tiny.toml"), overrides=overrides, device=device)
    planned = registry.devices[device].planned("")
    engine = build_engine(loaded, registry, load_model(loaded.model, registry), None, planned)
    plan = engine.plan("train", (), 0)
    for node in engine.graph.nodes:
        rows = way(plan, node.name, engine.device, engine.chooser)
        kinds = [row["what"] for row in rows]
        assert {"forward", "forward_backward"} & set(kinds), f"{node.name}: {kinds}"
        assert {"backward", "forward_backward"} & set(kinds), f"{node.name}: {kinds}"
        for row, below in zip(rows, rows[1:], strict=False):
            if row["what"] in DIRECTIONS and re.search(r":\d+$", row["where"]):
                assert "name" in below, f"{node.name}: {row} launches nothing"
        for row in (row for row in rows if "name" in row):
            check_launch(row, device)


def check_launch(row: dict, device: str) -> None:
    """A kernel's or function's place exists and names it; there are sizes, and tensors read and written."""
    file, _, line = row["where"].rpartition(":")
    text = Path(file).read_text("utf-8").splitlines()[int(line) - 1]
    assert row["writes"] and (row["reads"] or row["name"] in NOTHING_READ), row
    if device == "cpu":
        assert row["what"] == "function" and text, row
    else:
        assert row["what"] == "kernel" and row["name"] in text and row["grid"] and row["block"], (row, text)
