"""The ops: every variant passes the op check, kernels in the simulator; broken versions do not."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from core import BuildError, cli, sim
from core.testing import check_op, check_variant, load_registry

REGISTRY = load_registry(only=["llama"])
OPS = [name for name, op in REGISTRY.ops.items() if op.origin == "plugin llama"]
KERNELS = [f"{op}.{v.name}" for op in OPS for v in REGISTRY.variants[op].values() if v.device == "cuda"]
ROPE = Path(__file__).parent.parent / "cuda" / "rope.cu"

# Examples that are enough for kernels here, of the op's and then the variant's own; without an entry the op's second.
# Other frequencies are compiled again. All of them, for all architectures: `core check rope`.
ENOUGH = {
    "rmsnorm.naive": (1, -2),
    "rmsnorm.warp": (1, -2, -1),
    "rmsnorm.onepass": (-4, -3),
    "rope.naive": (1, 4),
    "rope.token": (3, -2, -1),
    "rope_attention.decode": (1, 3),
    "swiglu.vector": (1, -1),
}


@pytest.mark.parametrize("name", OPS)
def test_op_passes_the_check_on_the_cpu(name: str) -> None:
    check_op(name, device="cpu", registry=REGISTRY)


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_pass_the_check_in_the_simulator(name: str) -> None:
    op, _, variant = name.partition(".")
    how = {"examples": ENOUGH.get(name, (1,)), "archs": ()}
    report = check_variant(REGISTRY.op(op), REGISTRY.variant(op, variant), REGISTRY, "sim", **how)
    assert report.passed, report.describe_failures()


def test_a_sample_of_broken_versions_is_caught(capsys) -> None:
    assert cli.run(["mutants", *OPS, "--sample", "4", "--workers", "1"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("kernel", ["naive_turn", "token_turn"])
@pytest.mark.parametrize("position", [3, 131_071, 2_000_000_011])
def test_kernels_turn_by_exact_angles_however_far_a_text_goes(kernel: str, position: int) -> None:
    """Where position * frequency in f32 is off by radians."""
    w = 500_000.0 ** (-np.arange(4) / 4)
    steps = ",".join(f"{round(v / (2 * math.pi) * 2**64)}ull" for v in w.tolist())
    x = np.random.default_rng(0).standard_normal(8).astype(np.float32)
    y, start = np.zeros_like(x), np.array([position], np.int32)
    counts = [np.uint64(4)] if kernel == "naive_turn" else []
    sizes = [np.int32(1), np.int32(0), *counts, *(np.int32(1) for _ in range(3))]
    sim.run(ROPE, kernel, 1, 32, [y, x, start, *sizes], defines={"STEPS": f"{{{steps}}}"}, prelude=True)
    x1, x2, a = x[:4], x[4:], position * w
    turned = np.concatenate([x1 * np.cos(a) - x2 * np.sin(a), x2 * np.cos(a) + x1 * np.sin(a)])
    np.testing.assert_allclose(y, turned, atol=2e-6)


WRONG = {
    "heads of an odd width": ("rope", {"qkv": (1, 2, 9)}, {"heads": 1}, "heads of an even width"),
    "a width that heads do not divide": ("rope", {"qkv": (1, 2, 64)}, {"heads": 3}, "heads = 3"),
    "a factor that speeds up": ("rope", {"qkv": (1, 2, 6)}, {"heads": 1, "factor": 0.5}, "factor >= 1"),
    "an odd part of a head": ("rope", {"qkv": (1, 2, 18)}, {"heads": 1, "width": 3}, "even width of at most D = 6"),
    "a part beyond the head": ("rope", {"qkv": (1, 2, 18)}, {"heads": 1, "width": 8}, "even width of at most D = 6"),
    "an odd half of gelu": ("geglu", {"x": (1, 2, 7)}, {}, "x has 7 features; expected an even number of features"),
    "an odd half": ("swiglu", {"x": (2, 7)}, {}, "x has 7 features; expected an even number of features"),
}


@pytest.mark.parametrize("case", WRONG)
def test_sizes_that_cannot_be_are_refused_in_words(case: str) -> None:
    name, shapes, attrs, message = WRONG[case]
    op = REGISTRY.op(name)
    with pytest.raises(BuildError, match=message):
        op.solve(shapes, op.settle_attrs(attrs, {}, name), name)
