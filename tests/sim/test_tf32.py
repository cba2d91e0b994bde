"""f32 on tensor cores: as TF32, with operands rounded to nearest, and only where `[train] tf32` allows it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from core.config import RunConfig, load_config
from core.device.planned import PlannedDevice
from core.device.simulated import SimDevice
from core.engine import Engine
from core.errors import BuildError
from core.graph import load_model
from core.loader import load_registry
from core.op import make_tensors
from core.plan import TRAIN
from core.testing.check import check_variant
from core.train.announce import variants_record
from core.train.wiring import build_engine

REGISTRY = load_registry(only=())
SIZES = ("dims.V=61", "dims.C=64", "dims.H=2", "dims.L=1", "dims.S=64", "dims.T=64", "dims.B=2")


def planned(*overrides: str) -> tuple[Engine, RunConfig]:
    """Of training in f32 on a GPU that is not there, with matmuls of 128 rows."""
    sets = [*SIZES, "precision='f32'", "train.tokens_per_step=128", *overrides]
    config = load_config("configs/gpt2_124m.toml", overrides=sets, device="cuda")
    device = PlannedDevice("sm_90a")
    return build_engine(config, REGISTRY, load_model(config.model, REGISTRY), None, device), config


def chosen(*overrides: str) -> dict[str, Any]:
    """Node -> its variant."""
    engine, _ = planned(*overrides)
    return {node: choice.variant.name for node, choice in engine.plan(TRAIN).choices.items()}


def test_f32_is_multiplied_as_tf32_only_where_the_config_allows_it() -> None:
    assert chosen()["h.0.qkv"] == "register"
    allowed = chosen("train.tf32=true")
    assert {allowed["h.0.qkv"], allowed["h.0.r"], allowed["h.0.y"]} == {"mma"}


def test_without_it_a_variant_that_needs_it_is_refused_by_name_too() -> None:
    with pytest.raises(BuildError, match=r"mma: it multiplies f32 as TF32.*only \[train\] tf32 = true allows"):
        chosen("ops.matmul='mma'")


def to_tf32(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """10 bits of mantissa, to nearest, halves away from zero; by arithmetic instead of bits."""
    fraction, exponent = np.frexp(values.astype(np.float64))  # fraction in [0.5, 1): 11 bits with the leading one
    return np.ldexp(np.sign(fraction) * np.floor(np.abs(fraction) * 2**11 + 0.5), exponent - 11)


def test_products_are_of_operands_rounded_to_nearest() -> None:
    """So near to that as f32's sums are, which operands that are cut off, or not rounded at all, are not."""
    M, N, K = 37, 20, 44
    device, rng = SimDevice(), np.random.default_rng(0)
    shapes = {"x": (M, K), "weight": (N, K), "dy": (M, N), "y": (M, N), "dx": (M, K), "dweight": (N, K)}
    held = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    t = make_tensors(
        {"...": (M,), "K": K, "features": N},
        {name: device.tensor(device.allocate(4 * array.size), 0, array.shape, "f32") for name, array in held.items()},
        bias=None, dbias=None, add_dx=False, add_dweight=False, add_dbias=False,
    )  # fmt: skip
    variant = REGISTRY.variant("matmul", "mma")
    t.config = variant.configs(t)[0]
    for name, array in held.items():
        device.upload(getattr(t, name), array)
    for method in ("forward", "backward"):
        device.run(device.record(variant, method, t, None, None))
    x, weight, dy = (to_tf32(held[name]) for name in ("x", "weight", "dy"))
    truths = {"y": x @ weight.T, "dx": dy @ weight, "dweight": dy.T @ x}
    plain = held["x"].astype(np.float64) @ held["weight"].T
    for name, truth in truths.items():
        assert np.abs(device.download(getattr(t, name)) - truth).max() < 2e-6 * np.abs(truth).max(), name
    assert np.abs(truths["y"] - plain).max() > 1e-4 * np.abs(plain).max()


def test_matmul_passes_the_op_check_in_f32() -> None:
    """The fused ops have the same kernels. All of them, and every tile: `core check OP.mma --device sim`."""
    op, variant = REGISTRY.op("matmul"), REGISTRY.variant("matmul", "mma")
    report = check_variant(op, variant, REGISTRY, "sim", examples=(1,), archs=(), dtypes=("f32",))
    assert report.passed, report.describe_failures()
    assert 1e-5 < report.checks["gradient"][1] < 1e-3, "TF32 is neither f32 nor bf16"


def test_a_run_records_whether_it_was_allowed() -> None:
    for allowed in (False, True):
        engine, config = planned(f"train.tf32={str(allowed).lower()}")
        assert variants_record(config, REGISTRY, engine, engine.plan(TRAIN), [])["tf32"] is allowed
