"""The examples of every op reach beyond what a thread block, a warp or a tile has in each way, and are hard elsewhere.

A kernel that is right on small sizes alone, or on numbers near 1 alone, passes no check of an op whose examples do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from core.loader import load_registry
from core.op import SLOT, Op, Variant
from core.registry import Registry
from core.testing.case import make_case
from core.testing.check import check_variant
from core.verdicts import largest, sizes_of

REGISTRY = load_registry()
OPS = [name for name, op in REGISTRY.ops.items() if op.origin == "corelm" or op.origin.startswith("plugin ")]

BEYOND = 1024  # what a size is to be larger than: the threads of a thread block
# dim, or (op, dim), whose examples reach less far, or are to reach farther, and why
OTHERS: dict[Any, tuple[int, str]] = {
    "heads": (16, "heads are thread blocks or groups of them"),
    "kv_heads": (16, "as heads"),
    "D": (64, "a head's columns are a tile, compiled for its size"),
    "B": (1, "sequences are thread blocks; where kernels sweep them, `rows` or another dim counts them"),
    "k": (2, "experts of a token"),
    "experts": (16, "experts are thread blocks"),
    ("attention", "T"): (128, "time and memory grow with its square"),
    ("rope_attention", "T"): (128, "as attention"),
    ("sink_attention", "T"): (128, "as attention"),
    ("sink_attention", "S"): (128, "as attention"),
    ("sink_attention", "E"): (128, "as attention"),
    ("attention", "S"): (128, "T and a few more"),
    ("rope_attention", "S"): (128, "as attention"),
    ("attention", "E"): (128, "heads times D"),
    ("rope_attention", "E"): (128, "as attention"),
    ("causal_conv", "width"): (6, "tokens of a window, a loop of one thread; 4 in published models"),
    ("selective_scan", "N"): (1, "states are lanes of a warp"),
    ("selective_scan", "W"): (2, "twice N"),
    ("cross_entropy", "P"): (4096, "a vocabulary: several passes of a thread block"),
    ("head_loss", "features"): (4096, "as cross_entropy"),
}


@pytest.mark.parametrize("name", OPS)
def test_examples_reach_beyond_a_thread_block_in_every_way(name: str) -> None:
    op = REGISTRY.op(name)
    reached = largest(sizes_of(op, make_case(op, example).dims) for example in op.examples)
    short = {}
    for dim, size in reached.items():
        beyond, _ = OTHERS.get((name, dim)) or OTHERS.get(dim) or (BEYOND, "")
        if size <= beyond:
            short[dim] = f"{size}, which is to be more than {beyond}"
    assert not short, f"{name} needs an example that is large in: {short}"


def test_a_large_vocabulary_ends_in_padding_and_before_it() -> None:
    classes = [e.get("classes", 0) for name in ("cross_entropy", "head_loss") for e in REGISTRY.op(name).examples]
    assert sum(n > 4096 for n in classes) == 2


def test_every_other_reach_is_of_a_dim_that_an_op_has() -> None:
    dims = {(name, dim) for name in OPS for e in REGISTRY.op(name).examples
            for dim in sizes_of(REGISTRY.op(name), make_case(REGISTRY.op(name), e).dims)}  # fmt: skip
    names = {dim for _, dim in dims}
    assert [key for key in OTHERS if key not in (dims if isinstance(key, tuple) else names)] == []


# --- formulas that lose their digits ---------------------------------------------------------------------------------


class OnePass(Variant):
    """Variance as the mean of the squares less the square of the mean."""

    op, name, device, dtypes, base = "layernorm", "onepass", "cpu", ("f32",), "reference"

    def forward(self, t: Any, launch: Any) -> None:
        def run() -> None:
            t.mean[...] = t.x.mean(-1)
            t.rstd[...] = 1 / np.sqrt(np.maximum((t.x * t.x).mean(-1) - t.mean * t.mean, 0) + t.eps)
            t.y[...] = (t.x - t.mean[..., None]) * t.rstd[..., None] * t.weight + (0 if t.bias is None else t.bias)

        launch.call(run)


class NoLargest(Variant):
    """A softmax that does not subtract the largest."""

    op, name, device, dtypes, base = "cross_entropy", "nolargest", "cpu", ("f32",), "reference"

    def forward(self, t: Any, launch: Any) -> None:
        def run() -> None:
            z, target = t.logits.reshape(-1, t.P)[:, : t.classes], t.targets.reshape(-1)
            lse = np.log(np.exp(z).sum(-1))
            t.lse[...] = lse.reshape(t.lse.shape)
            loss = np.where(target < 0, 0, lse - z[np.arange(len(z)), np.maximum(target, 0)])
            t.loss[...] = loss.reshape(t.loss.shape)

        launch.call(run)


class NarrowSum(Variant):
    """A sum of squares in f32, whose range they leave."""

    op, name, device, dtypes = "global_norm", "narrow", "cpu", ("f32",)

    def forward(self, t: Any, launch: Any) -> None:
        def run() -> None:
            reference = REGISTRY.variant("global_norm", "reference")
            kept, t.grad = t.grad, np.sqrt(np.dot(t.grad, t.grad))[None]
            t.n, n = 1, t.n
            reference.forward(t)  # type: ignore[call-arg]
            t.grad, t.n = kept, n

        launch.call(run)


@pytest.mark.parametrize("wrong", [OnePass, NoLargest, NarrowSum], ids=lambda kind: kind.__name__)
def test_formulas_that_are_right_near_one_only_are_refused(wrong: type[Variant]) -> None:
    op = REGISTRY.op(wrong.op)
    held = Registry()
    held.ops |= REGISTRY.ops
    held.variants |= {name: dict(variants) for name, variants in REGISTRY.variants.items()}
    made = type(wrong.__name__, (wrong,), based(wrong))()
    report = check_variant(op, made, held)
    assert set(report.failed_checks()) & {"forward", "update"}, report.checks
    assert all("contents" in f.case for f in report.failures if f.check in ("forward", "update"))


def based(wrong: type[Variant]) -> dict[str, Any]:
    """What `base` stands for where nothing is registered: the reference's backward and declarations."""
    if not wrong.base:
        return {}
    reference = REGISTRY.variant(wrong.op, wrong.base)
    kept = {name: getattr(reference, name) for name in ("saved", "reads", "can_add")}

    def backward(self: Any, t: Any, launch: Any) -> None:
        launch.call(lambda: reference.backward(t))  # type: ignore[call-arg]

    return {**kept, "backward": backward, "base": ""}


def test_the_record_of_a_step_is_held_slot_by_slot() -> None:
    """A norm of 1e-24 is wrong by as much as any other, though the other slots are near 1."""
    op, reference = REGISTRY.op("global_norm"), REGISTRY.variant("global_norm", "reference")

    class Vanishing(type(reference)):  # type: ignore[misc]
        name = "vanishing"

        def forward(self, t: Any) -> None:
            super().forward(t)
            t.step[SLOT["norm"]] *= t.step[SLOT["norm"]] > 1e-10

    report = check_variant(op, Vanishing(), REGISTRY)
    assert report.failed_checks() == ["update"] and "t.step[norm]" in report.failures[0].message


def test_where_forward_has_no_derivative_the_gradient_is_not_held_to_one() -> None:
    """Of equal numbers the first is the largest; elsewhere the same wrong gradient is refused."""
    top = Op("top", inputs={"x": "... C"}, outputs={"y": "... 1"}, examples=[{"x": (3, 5)}])
    tied = Op("top", inputs={"x": "... C"}, outputs={"y": "... 1"}, examples=[{"x": np.ones((3, 5))}])
    for op, factor, passes in ((top, 1, True), (tied, 1, True), (top, 2, False)):
        report = check_variant(op, largest_of(factor), Registry(), reference=largest_of(factor), dtypes=("f64",))
        assert report.passed is passes, report.describe_failures()


def largest_of(factor: float) -> Any:
    from core.op import Reference

    class Top(Reference):
        op, reads = "top", ("x",)

        def forward(self, t: Any) -> None:
            t.y[...] = t.x.max(-1, keepdims=True)

        def backward(self, t: Any) -> None:
            first = np.arange(t.C) == t.x.argmax(-1, keepdims=True)
            t.add("dx", factor * first * t.dy)

    return Top()
