"""The ops: every variant passes the op check, kernels in the simulator; broken versions do not."""

from __future__ import annotations

import numpy as np
import pytest

from core import BuildError, cli
from core.testing import check_op, check_variant, load_registry, make_tensors

REGISTRY = load_registry(only=["llama", "moe"])
OPS = [name for name, op in REGISTRY.ops.items() if op.origin == "plugin moe"]
KERNELS = [f"{op}.{v.name}" for op in OPS for v in REGISTRY.variants[op].values() if v.device == "cuda"]
# numbers of examples, of the op's and then the variant's own; without an entry the op's second one
ENOUGH = {"combine.vector": (1, -1), "expert_matmul.grouped": (1, -2), "route.naive": (0, 3)}


@pytest.mark.parametrize("name", OPS)
def test_op_passes_the_check_on_the_cpu(name: str) -> None:
    check_op(name, device="cpu", registry=REGISTRY)


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_pass_the_check_in_the_simulator(name: str) -> None:
    """With a sufficient part of their examples. All of them: `core check OP --device sim`."""
    op, _, variant = name.partition(".")
    how = {"examples": ENOUGH.get(name, (1,)), "archs": ()}
    report = check_variant(REGISTRY.op(op), REGISTRY.variant(op, variant), REGISTRY, "sim", **how)
    assert report.passed, report.describe_failures()


def test_a_sample_of_broken_versions_is_caught(capsys) -> None:
    assert cli.run(["mutants", *OPS, "--sample", "4", "--workers", "1"]) == 0, capsys.readouterr().out


def test_of_equal_logits_the_first_is_chosen() -> None:
    logits = np.array([[1.0, 3.0, 3.0, 1.0, 1.0]])
    share, expert = np.empty((1, 3)), np.empty((1, 3), np.int32)
    REGISTRY.variant("route", "reference").forward(
        make_tensors({"k": 3, "N": 5}, {"logits": logits, "share": share, "expert": expert})
    )
    assert expert.tolist() == [[1, 2, 0]]


def test_equal_loads_have_the_least_loss() -> None:
    """k, for any number of experts."""

    def loss(logits, expert):
        total, N = np.empty(()), logits.shape[1]
        outs = {"loss": total, "lse": np.empty(len(logits)), "load": np.empty(N)}
        tensors = make_tensors({"N": N, "...": (len(logits),)}, {"logits": logits, "expert": expert, **outs})
        REGISTRY.variant("balance", "reference").forward(tensors)
        return float(total)

    even, one = np.array([[0, 1], [2, 3]], np.int32), np.array([[0, 1], [0, 1]], np.int32)
    assert loss(np.zeros((2, 4)), even) == pytest.approx(2)
    preferred = np.array([[9.0, 9.0, 0.0, 0.0]] * 2)
    assert loss(preferred, one) == pytest.approx(4, rel=1e-3)


WRONG = {
    "more chosen than there are": ("route", {"logits": (2, 4)}, {"k": 5}, "k = 5 of 4 experts; expected 1 to 4"),
    "rows for neither tokens nor experts": (
        "expert_matmul", {"x": (2, 6, 8), "expert": (2, 3, 2)}, {"experts": 4, "features": 8},
        r"x has rows \(2, 6\) for \(2, 3\) tokens with 2 experts each",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_sizes_that_cannot_be_are_refused_in_words(case: str) -> None:
    name, shapes, attrs, message = WRONG[case]
    op = REGISTRY.op(name)
    with pytest.raises(BuildError, match=message):
        op.solve(shapes, op.settle_attrs(attrs, {}, name), name)
