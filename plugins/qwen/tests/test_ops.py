"""qk_norm: every variant passes the op check, kernels in the simulator; broken versions do not."""

from __future__ import annotations

import pytest

from core import BuildError, cli
from core.testing import check_op, check_variant, load_registry

REGISTRY = load_registry(only=["llama", "qwen"])
# examples that are enough for kernels here, of the op's and then the variant's own; for all: `core check qk_norm`
ENOUGH = {"naive": (1, 3), "warp": (1, 3, -2, -1)}


def test_the_cpu_variants_pass_the_check() -> None:
    check_op("qk_norm", device="cpu", registry=REGISTRY)


@pytest.mark.parametrize("variant", ["naive", "warp"])
def test_kernels_pass_the_check_in_the_simulator(variant: str) -> None:
    how = {"examples": ENOUGH[variant], "archs": ()}
    report = check_variant(REGISTRY.op("qk_norm"), REGISTRY.variant("qk_norm", variant), REGISTRY, "sim", **how)
    assert report.passed, report.describe_failures()


def test_a_sample_of_broken_versions_is_caught(capsys) -> None:
    assert cli.run(["mutants", "qk_norm", "--sample", "4", "--workers", "1"]) == 0, capsys.readouterr().out


def test_features_that_are_no_whole_heads_are_refused_in_words() -> None:
    op = REGISTRY.op("qk_norm")
    with pytest.raises(BuildError, match="qkv has 9 features, heads = 2, kv_heads = 2; expected whole heads"):
        op.solve({"qkv": (1, 2, 9)}, op.settle_attrs({"heads": 2}, {}, "qk"), "qk")
