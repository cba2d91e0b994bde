"""The ops: every variant passes the op check, kernels in the simulator; broken versions do not."""

from __future__ import annotations

import pytest

from core import cli
from core.testing import check_op, check_variant, load_registry

REGISTRY = load_registry(only=["llama", "gemma"])
OPS = [name for name, op in REGISTRY.ops.items() if op.origin == "plugin gemma"]
KERNELS = [f"{op}.{v.name}" for op in OPS for v in REGISTRY.variants[op].values() if v.device == "cuda"]


@pytest.mark.parametrize("name", OPS)
def test_op_passes_the_check_on_the_cpu(name: str) -> None:
    check_op(name, device="cpu", registry=REGISTRY)


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_pass_the_check_in_the_simulator(name: str) -> None:
    """With one width that is loaded whole and one that is not. All examples: `core check scale --device sim`."""
    op, _, variant = name.partition(".")
    how = {"examples": (0, 1), "archs": ()}
    report = check_variant(REGISTRY.op(op), REGISTRY.variant(op, variant), REGISTRY, "sim", **how)
    assert report.passed, report.describe_failures()


def test_a_sample_of_broken_versions_is_caught(capsys) -> None:
    assert cli.run(["mutants", *OPS, "--sample", "4", "--workers", "1"]) == 0, capsys.readouterr().out
