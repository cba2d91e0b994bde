"""The ops pass the op check, kernels in the simulator: those that follow from formulas, those of concat and split."""

from __future__ import annotations

import pytest

from core.testing import check_op, check_variant, load_registry

REGISTRY = load_registry(only=["rowwise"])
OPS = [name for name, op in REGISTRY.ops.items() if op.origin == "plugin rowwise"]
WRITTEN = ("concat", "split")  # ops with kernels of their own, not of a formula


@pytest.mark.parametrize("name", OPS)
def test_op_passes_the_check_on_the_cpu(name: str) -> None:
    check_op(name, device="cpu", registry=REGISTRY)


@pytest.mark.parametrize("name", OPS)
def test_kernels_pass_the_check_in_the_simulator(name: str) -> None:
    variant = REGISTRY.variant(name, "naive" if name in WRITTEN else "generated")
    report = check_variant(REGISTRY.op(name), variant, REGISTRY, "sim", examples=(1,), archs=())
    assert report.passed, report.describe_failures()
