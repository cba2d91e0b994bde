"""What a rank of N holds, by the plan alone: nothing is allocated and no rank runs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from gpt2_plans import registry as shipped

from core.cli import run as core_command
from core.device.planned import PlannedDevice
from core.engine import Engine, Settings
from core.errors import DeviceError
from core.graph import load_model
from core.kernels.chips import GPUS
from core.plan.figures import check_fit, scratch
from core.plan.fit import RESERVE, needed
from core.plan.ranks_needed import GB, bytes_on, fewest, figures_on_ranks, gpu_rows
from core.plan.report import PlanReport
from core.ranks.planned_ranks import PlannedRanks

GPU_BYTES = 80 * GB
DIMS = {"B": 1, "T": 64, "L": 1}


def report(ranks: int, model: str = "llama3_8b", free: int = 0, /, **settings: Any) -> PlanReport:
    device = PlannedDevice("sm_90a")
    if free:
        device.memory = lambda: (free, GPU_BYTES)  # type: ignore[method-assign]
    registry = shipped()
    made = {"device": "cuda", "precision": "bf16", "dims": {"B": 1, "T": 64}, "optimizer": "adamw", **settings}
    engine = Engine(load_model(model, registry), registry, Settings(**made), device, PlannedRanks(ranks))
    return engine.report(engine.plan("train"))


def state(of: PlanReport) -> float:
    memory = of.memory()
    return sum(memory[part] for part in ("parameters", "gradients", "optimizer")) / GB


def test_8b_on_8_ranks_holds_60_gb_each_in_place_of_145() -> None:
    """2 + 4 bytes a parameter for weights and gradients, and 12 for master weights and two moments."""
    assert state(report(1)) == pytest.approx(18 * 8.03026, rel=1e-4)
    assert state(report(8)) == pytest.approx(60.23, rel=1e-3)


def test_a_run_fits_where_a_slice_of_the_state_does() -> None:
    """Weights and master weights are allocated before the check, and count once."""
    whole, slices = (report(8, "gpt2_124m", dims=DIMS, shard=shard).memory() for shard in (False, True))
    assert state(report(8, "gpt2_124m", dims=DIMS, shard=False)) == state(report(1, "gpt2_124m", dims=DIMS))
    allocated = slices["parameters"] + slices["optimizer"] // 3
    free = needed(slices) + scratch(report(8, "gpt2_124m", dims=DIMS)).get("scratch", 0) + RESERVE - allocated
    check_fit(report(8, "gpt2_124m", free, dims=DIMS))
    with pytest.raises(DeviceError, match="does not fit into memory"):
        check_fit(report(8, "gpt2_124m", free - 1, dims=DIMS))
    with pytest.raises(DeviceError, match="does not fit into memory"):
        check_fit(report(8, "gpt2_124m", free + whole["optimizer"] // 2, dims=DIMS, shard=False))


def test_an_optimizer_of_whole_matrices_has_slices_of_them() -> None:
    muon = report(8, "gpt2_124m", optimizer="muon")
    assert muon.slices is not None and len(muon.slices.cuts) == 9
    starts = {place.offset for place in muon.layout.places.values() if place.trains}
    assert set(muon.slices.cuts[:-1]) <= starts
    assert muon.slices.largest < muon.layout.trainable / 3  # wte alone is 31 % of it


def test_the_fewest_gpus_are_those_whose_memory_holds_a_slice() -> None:
    memory = {"parameters": 20 * GB, "gradients": 40 * GB, "optimizer": 120 * GB, "activations": 10 * GB}
    assert bytes_on(memory, 4) == 100 * GB and bytes_on(memory, 4, ("optimizer", "gradients")) == 70 * GB
    assert fewest(memory, 191 * GB, ("optimizer",)) == 1 and fewest(memory, 101 * GB, ("optimizer",)) == 4
    assert fewest(memory, 70 * GB, ("optimizer",)) is None
    rows = {row["gpus"][0]: row for row in gpu_rows(memory, "bf16")}
    assert (rows["H200"]["ranks"], rows["B200"]["ranks"], rows["A100-SXM4-80GB"]["ranks"]) == (2, 2, 16)
    assert rows["L40S"]["ranks"] is None and rows["L40S"]["all_cut"] == 8
    assert "Tesla T4" not in {name for row in rows.values() for name in row["gpus"]}  # no bf16
    assert all(gpu.size for gpu in GPUS.values())


def test_gpt3_13b_needs_4_gpus_of_141_gb_and_175b_more_than_any_has() -> None:
    fitted = figures_on_ranks(report(8, "gpt3_13b", dims={"B": 1, "T": 2048}), 8)
    ranks = {row["gpus"][0]: row["ranks"] for row in fitted["gpus"]}
    assert (ranks["B200"], ranks["H200"], ranks["A100-SXM4-80GB"]) == (2, 4, None)
    registry = shipped()
    counts = {n: load_model(n, registry).build(registry).parameter_count for n in ("gpt3_13b", "gpt3_175b")}
    assert counts == {"gpt3_13b": 12_853_386_240, "gpt3_175b": 174_604_259_328}
    held = {
        part: width * counts["gpt3_175b"] for part, width in (("parameters", 2), ("gradients", 4), ("optimizer", 12))
    }
    rows = gpu_rows(held, "bf16")
    assert not any(row["ranks"] for row in rows) and rows[0]["all_cut"] == 32  # 3.1 TB in 32 slices of 98 GB


def test_core_plan_says_what_each_rank_holds(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "configs/tiny.toml", "--device", "cpu", "--set", "dims.L=1", "--set", "dims.C=64"]
    assert core_command([*words, "--ranks", "4", "--json"]) == 0
    four = json.loads(capsys.readouterr().out)
    assert core_command([*words, "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert four["ranks"] == 4 and four["sharded"] and four["gpus"] == [] and "ranks" not in one
    assert one["bytes"]["optimizer"] * 0.25 <= four["bytes"]["optimizer"] < one["bytes"]["optimizer"] * 0.4
    assert four["bytes"]["gradients"] == one["bytes"]["gradients"]
    assert core_command([*words, "--ranks", "4"]) == 0
    assert "each of 4 ranks: weights, gradients and a slice of the optimizer's state" in capsys.readouterr().out
