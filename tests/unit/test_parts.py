"""Dependencies of an element: the table and the boxes, their test in the op check, and the shipped statements."""

from __future__ import annotations

import re
import tracemalloc
from functools import partial
from typing import Any

import numpy as np
import pytest

from core.errors import BuildError
from core.loader import load_registry
from core.op import Op, Param, Reference, Tensors
from core.op.parts import boxes_of, by_dims, pattern_in
from core.registry import Registry
from core.testing import check_variant
from core.testing.log import Log
from core.testing.made_of import check_parts, check_parts_matter
from core.testing.trials import trials_of

REAL = load_registry()
REFERENCES = sorted(op for op, held in REAL.variants.items() if "reference" in held)

norm = Op(
    "norm",
    inputs={"x": "... C"},
    outputs={"y": "... C"},
    params={"bias": Param("C", init="zeros")},
    examples=[{"x": (4, 7, 16)}, {"x": (3, 33)}, {"x": (1, 1)}],
)


class NormReference(Reference):
    op, saved, reads = "norm", {"total": "... : acc"}, ("x",)
    made_of = {"y": "x(C) bias", "total": "x", "dx": "dy(C) x(C) total", "dbias": "dy"}

    def forward(self, t: Any) -> None:
        t.total[...] = (t.x * t.x).sum(-1)
        t.y[...] = t.x * t.total[..., None] + t.bias

    def backward(self, t: Any) -> None:
        t.add("dx", t.dy * t.total[..., None] + 2 * t.x * (t.dy * t.x).sum(-1, keepdims=True))
        t.add("dbias", t.dy.reshape(-1, t.C).sum(0))


def found(**changes: Any) -> Any:
    """The report on the reference with other statements."""
    reference = type("Stated", (NormReference,), changes)()
    registry = Registry()
    registry.ops["norm"], registry.variants["norm"] = norm, {"reference": reference}
    return check_variant(norm, reference, registry)


def failures(**lines: str) -> list[str]:
    report = found(made_of={**NormReference.made_of, **lines})
    assert {failure.check for failure in report.failures} <= {"parts"}
    return [failure.message for failure in report.failures]


def test_right_statements_pass_and_are_counted() -> None:
    report = found()
    assert report.passed and report.checks["parts"][0] > 20
    assert "parts" not in found(made_of={}).checks, "a reference that states nothing is not asked"


def test_a_tensor_that_is_left_out_is_named_with_the_number_that_it_changes() -> None:
    messages = failures(y="x(C)")
    place = re.fullmatch(r"y at \[.*, (\d+)\] changes with bias at \[(\d+)\], which is not part of it", messages[0])
    assert place and place[1] == place[2]


def test_parts_that_are_too_narrow_are_found() -> None:
    assert re.search(r"changes with x at \[.*\], which is not part", failures(y="x bias")[0])
    assert "changes with total at [" in failures(dx="dy(C) x(C)")[0]


def test_parts_that_do_not_matter_or_are_much_too_wide_are_found() -> None:
    assert "total is declared to be made of bias, which changed it in 0 of" in failures(total="x bias")[0]
    assert "dbias is declared to be made of dy, which" in failures(dbias="dy(C)")[0]


def test_a_statement_that_names_nothing_of_the_op_is_refused() -> None:
    assert 'made_of names "gain"' in failures(y="x(C) gain")[0]
    assert "expected tensors" in failures(y="x(C) + bias")[0]


def test_boxes_that_do_not_fit_their_tensor_are_refused() -> None:
    def parts(self: Any, t: Any, tensor: str, index: Any) -> Any:
        return {"x": index[:-1]} if tensor == "total" else None

    assert "axes, and the tensor has the shape" in str(found(parts=parts).failures[0].message)
    with pytest.raises(BuildError, match="outside of a tensor"):
        boxes_of({"x": (3, 0)}, {"x": (3, 4)})
    with pytest.raises(BuildError, match='parts name "z"'):
        boxes_of({"z": (0,)}, {"x": (3,)})


def test_boxes_are_the_indices_of_each_axis_and_empty_ones_are_left_out() -> None:
    parts = {"x": [(np.int64(1), slice(None)), (0, slice(1, None, 2))], "none": [(0, slice(2, 2))], "all": (...,)}
    assert boxes_of(parts, {"x": (2, 5), "none": (1, 4), "all": (2, 3)}) == {
        "x": [(range(1, 2), range(5)), (range(1), range(1, 5, 2))],
        "all": [(range(2), range(3))],
    }


@pytest.mark.parametrize("name", REFERENCES)
def test_every_reference_that_ships_states_the_parts_of_everything_that_it_writes(name: str) -> None:
    op, reference = REAL.op(name), REAL.variant(name, "reference")
    assert isinstance(reference, Reference)
    log = Log()
    for trial in trials_of(op, reference, REAL, dtypes=("f64",))[0]:
        check_parts(log, trial)
    check_parts_matter(log)
    assert log.ran["parts"] and not log.failures
    if type(reference).parts is Reference.parts:
        gradients = [f"d{n}" for n, slot in op.inputs.items() if not slot.pattern.integer] + [
            f"d{n}" for n in op.params
        ]
        written = [*op.outputs, *reference.saved, *(gradients if op.gradient else [])]
        written = written or (op.mutates if op.collective else ["step"])
        assert set(written) == set(reference.made_of)


def test_a_row_and_a_column_light_up_for_a_linear_layers_gradient() -> None:
    matmul = REAL.variant("matmul", "reference")
    assert isinstance(matmul, Reference)
    t = Tensors(dy=np.zeros((2, 5, 3)), x=np.zeros((2, 5, 4)), weight=np.zeros((3, 4)), bias=None)
    assert matmul.parts(t, "dx", (1, 2, 3)) == {"dy": (1, 2, slice(None)), "weight": (slice(None), 3)}
    assert matmul.parts(t, "dweight", (0, 3)) == {"dy": (..., 0), "x": (..., 3)}
    assert by_dims("x(...) bias", "y", (1, 2, 0), partial(pattern_in, REAL.op("matmul"), {})) == {
        "x": (..., slice(None)),
        "bias": (0,),
    }
    assert matmul.parts(t, "y", (1, 2, 0)) == {"x": (1, 2, slice(None)), "weight": (0, slice(None))}


def test_an_attention_querys_parts_take_no_mask_of_all_pairs() -> None:
    """A page states parts of about a thousand elements; at T = 1024 a mask has a million bytes."""
    T, attention = 1024, REAL.variant("attention", "reference")
    assert isinstance(attention, Reference)
    t = Tensors(B=1, T=T, D=4, heads=1, kv_heads=1, causal=True, window=0, documents=None)
    tracemalloc.start()
    try:
        parts = attention.parts(t, "y", (0, T - 1, 2))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert parts is not None and (0, slice(0, T), slice(4, 8)) in parts["qkv"] and peak < T * T / 8
