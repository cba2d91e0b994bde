"""`core plan CONFIG NODE`: from each node to the kernels that run it, by name, file and line, on every device.

Every shipped config is planned, and models that have the other ops of the shipped plugins.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from gpt2_plans import registry as shipped

from core.config import load_config
from core.engine import Engine
from core.graph import load_model
from core.plan.way import way
from core.train.wiring import build_engine

ROOT = Path(__file__).parents[2]
SMALL = {"L": 1, "C": 64, "H": 4, "B": 2, "T": 64, "V": 260}
# model -> its dims in the config of `tiny`, for ops that no shipped config has
MODELS = {
    "gemma2_2b": {**SMALL, "K": 2, "D": 16, "Q": 16, "F": 128},
    "nanochat_d20": SMALL,
    "gptoss_125m": SMALL,
    "olmo_1b": {**SMALL, "F": 128},
}
CASES: dict[str, tuple[str, list[str]]] = {
    **{path.stem: (path.stem, ["dims.L=1"]) for path in sorted((ROOT / "configs").glob("*.toml"))},
    **{
        name: ("tiny", [f"model={name}", "data.vocab_size=260", *(f"dims.{dim}={n}" for dim, n in dims.items())])
        for name, dims in MODELS.items()
    },
}
DIRECTIONS = {"forward", "backward", "forward_backward", "recompute"}
NOTHING_READ = ("ndarray.fill",)  # functions that only write


def engine_of(case: str, device: str) -> Engine:
    """The engine of a case. No memory is allocated; cuda needs no GPU."""
    config, overrides = CASES[case]
    loaded = load_config(str(ROOT / f"configs/{config}.toml"), overrides=overrides, device=device)
    planned: Any = shipped().devices[device].planned
    return build_engine(loaded, shipped(), load_model(loaded.model, shipped()), None, planned(""))


@pytest.mark.parametrize("device", ["cpu", "sim", "cuda"])
@pytest.mark.parametrize("case", CASES)
def test_every_node_has_a_way_to_its_kernels_forward_and_backward(case: str, device: str) -> None:
    """Those that a fused node has taken, too."""
    engine = engine_of(case, device)
    plan = engine.plan("train")
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


def check_launch(row: dict[str, Any], device: str) -> None:
    """A kernel's or function's place exists and names it; there are sizes, and tensors read and written."""
    file, _, line = row["where"].rpartition(":")
    text = Path(file).read_text("utf-8").splitlines()[int(line) - 1]
    assert row["writes"] and (row["reads"] or row["name"] in NOTHING_READ), row
    if device == "cpu":
        assert row["what"] == "function" and text, row
    else:
        assert row["what"] == "kernel" and row["name"] in text and row["grid"] and row["block"], (row, text)


def test_the_cases_have_every_op_of_every_shipped_model() -> None:
    """A model's ops are those of its TOML file; what it takes from `extends` is in another shipped file."""
    op = re.compile(r'\bop = "(\w+)"')
    in_models = {name for file in shipped().models.values() for name in op.findall(file.path.read_text("utf-8"))}
    cases = {node.op.name for case in CASES for node in engine_of(case, "cpu").graph.nodes}
    assert len(in_models) > 20 and not in_models - cases
