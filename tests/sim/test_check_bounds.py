"""The op check's comparisons: projection, NaN, tolerances, bf16; and references that follow from formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checked_ops import REAL, RmsNormRows

from core.errors import BuildError
from core.op import Op, Variant
from core.testing import check_variant, derive_reference
from core.testing.compare import BOUNDS, bounds_of, difference, round_to

# --- bounds ------------------------------------------------------------------------------------------------------


def test_projection_sees_one_percent_where_the_norm_of_bf16_does_not() -> None:
    truth = np.random.default_rng(0).standard_normal(4096)
    rounded = difference(round_to(truth, "bf16"), truth)
    scaled = difference(round_to(truth * 1.008, "bf16"), truth)
    assert not rounded.exceeds(BOUNDS["bf16"])
    assert scaled.norm < BOUNDS["bf16"].norm and scaled.exceeds(BOUNDS["bf16"])


def test_nan_is_an_infinite_error_unless_the_truth_has_it() -> None:
    truth = np.array([1.0, np.nan, np.inf])
    assert difference(truth, truth).norm == 0
    assert difference(np.array([np.nan, np.nan, np.inf]), truth).exceeds(BOUNDS["f32"])


def test_looser_tolerance_needs_a_reason_and_has_an_end() -> None:
    def variant(**fields: Any) -> Variant:
        made: Variant = type("V", (RmsNormRows,), fields)()
        return made

    assert bounds_of(variant(tolerance={"f32": 1e-6}), "f32").norm == 1e-6
    assert bounds_of(variant(tolerance={"f32": 4e-5}, tolerance_why="exp by table"), "f32").norm == 4e-5
    with pytest.raises(BuildError, match="tolerance_why"):
        bounds_of(variant(tolerance={"f32": 2e-5}), "f32")
    with pytest.raises(BuildError, match="at most"):
        bounds_of(variant(tolerance={"f32": 5e-5}, tolerance_why="because"), "f32")


def test_bf16_rounds_to_nearest_even() -> None:
    assert round_to(np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-7]), "bf16").tolist() == [
        1.0, 1.0, 1 + 2**-6, -1 - 2**-7,
    ]  # fmt: skip


# --- fused ops ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n, op in REAL.ops.items() if op.replaces])
def test_derived_reference_is_differentiated_right(name: str) -> None:
    """At the op's first examples: the others are beyond the tiles of kernels."""
    op = REAL.op(name)
    report = check_variant(op, derive_reference(op, REAL), REAL, examples=range(min(3, len(op.examples))))
    assert not report.failures, report.describe_failures()


def test_value_that_two_statements_use_gets_both_gradients() -> None:
    op = Op("twice", inputs={"x": "... C"}, outputs={"y": "... C"}, replaces="g = gelu(x); y = add(g, x)",
            examples=[{"x": (3, 5)}])  # fmt: skip
    report = check_variant(op, derive_reference(op, REAL), REAL)
    assert report.passed and "gradient" in report.checks
