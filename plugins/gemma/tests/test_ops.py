"""The ops: every variant passes the op check, kernels in the simulator; broken versions do not."""

from __future__ import annotations

from pathlib import Path

import pytest
from core.plugins.mutants.suite import BENCHES, Reviewed, chosen, run_mutants

from core.loader import load_registry
from core.testing import check_op
from core.testing.check import check_variant

REGISTRY = load_registry(only=["llama", "gemma"])
OPS = [name for name, op in REGISTRY.ops.items() if op.origin == "plugin gemma"]
KERNELS = [f"{op}.{v.name}" for op in OPS for v in REGISTRY.variants[op].values() if v.device == "cuda"]
REVIEWED = Reviewed.read(Path(__file__).with_name("mutants_equivalent.toml"))


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


@pytest.mark.parametrize("name", OPS)
def test_a_sample_of_broken_versions_is_caught(name: str) -> None:
    for result in run_mutants(REGISTRY, (name,), REVIEWED, sample=4):
        assert not result.survivors, "\n".join(m.key for m in result.survivors)


def test_reviewed_list_names_broken_versions_that_are_still_made() -> None:
    makers = [BENCHES[kind](op, v, REGISTRY) for kind in BENCHES for op, v in chosen(REGISTRY, OPS, kind)]
    assert REVIEWED.stale([mutant for maker in makers for mutant in maker.mutants]) == []
