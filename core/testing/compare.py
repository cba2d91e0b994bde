"""The distance of a result from the truth: two bounds per tensor, and the worst element.

The truth is the reference in f64 on the same rounded inputs. No bound on single elements separates an error of 1 %
from bf16's rounding; the projection of the error onto the truth does, because rounding averages out and a wrong
factor does not. So each tensor has to keep both: the relative 2-norm and the projection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from core.dtypes import arithmetic
from core.errors import BuildError
from core.op import Variant

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Bounds:
    """norm: |got - want| / |want|. projection: |<got - want, want>| / <want, want>."""

    norm: float
    projection: float


BOUNDS = {
    "f64": Bounds(1e-11, 1e-11), "f32": Bounds(1e-5, 1e-5), "tf32": Bounds(1e-3, 5e-4), "fp16": Bounds(1e-3, 5e-4),
    "bf16": Bounds(1e-2, 3e-3),
}  # fmt: skip
EPSILON = {
    "f64": 2.0**-53,
    "f32": 2.0**-24,
    "fp16": 2.0**-12,
    "bf16": 2.0**-9,
}  # half a unit in the last place, relative
LEAST = {"fp16": 2.0**-24}  # the step between the smallest numbers, below 2^-14, where a relative error is no measure
SLACK = 4.0  # times the reference's own rounding, which a variant may have too
UNITS = 64.0  # and never more than this many units in the last place of the largest tensor involved
LOOSEST = 4.0  # times the default: more than that is not rounding


def bounds_of(variant: Variant, dtype: str) -> Bounds:
    """The bounds of a variant's errors in `dtype`.

    `Variant.tolerance` may tighten the 2-norm freely, and loosen both up to LOOSEST times where `tolerance_why`
    has the reason. Raises BuildError for anything looser.
    """
    default = BOUNDS[arithmetic(dtype, variant.tf32)]
    stated = variant.tolerance.get(dtype, default.norm)
    if stated > default.norm and not variant.tolerance_why:
        raise BuildError(
            f"{variant.op}.{variant.name}: tolerance {stated:g} in {dtype} is looser than {default.norm:g}",
            hint="give the reason in `tolerance_why`; listings print it",
        )
    if not 0 < stated <= LOOSEST * default.norm:
        raise BuildError(
            f"{variant.op}.{variant.name}: tolerance {stated:g} in {dtype}; "
            f"expected more than 0 and at most {LOOSEST * default.norm:g}"
        )
    return Bounds(stated, default.projection * max(1.0, stated / default.norm))


FEW = 16  # elements whose rounding errors need not average out
ONE_ROUNDING = {"bf16": 2.0**-8, "fp16": 2.0**-11}  # the largest relative error of one rounding


def bounds_for(bounds: Bounds, dtype: str, size: int) -> Bounds:
    """The bounds for a tensor of that number of elements: of few, all may be rounded the same way."""
    if dtype not in ONE_ROUNDING or size >= FEW:
        return bounds
    return Bounds(bounds.norm, max(bounds.projection, ONE_ROUNDING[dtype]))


@dataclass(frozen=True)
class Worst:
    """The worst element: `relative` is |got - want| over the larger of |want| there and the root mean square of the
    tensor."""

    index: tuple[int, ...]
    got: float
    want: float
    relative: float


@dataclass(frozen=True)
class Difference:
    """norm and projection as in Bounds. find_worst: looks for the worst element, which only a failure names."""

    norm: float
    projection: float
    find_worst: Callable[[], Worst] = field(repr=False, compare=False)

    @cached_property
    def worst(self) -> Worst:
        return self.find_worst()

    def described(self, bounds: Bounds) -> str:
        """The error beside its bound, and the worst element."""
        worst = self.worst
        return (
            f"relative error {self.norm:.2e} (allowed {bounds.norm:.0e}), projection {self.projection:.1e} "
            f"(allowed {bounds.projection:.0e}); worst at {list(worst.index)}: got {worst.got:.9g}, "
            f"expected {worst.want:.9g}, relative {worst.relative:.2e}"
        )

    def exceeds(self, bounds: Bounds, excuse: float = 0.0) -> bool:
        """Whether a bound is broken. `excuse` is a relative 2-norm that rounding alone explains."""
        return not (self.norm <= max(bounds.norm, excuse) and self.projection <= max(bounds.projection, excuse))


def difference(got: Array, want: Array) -> Difference:
    """Compare two tensors of one shape. Not-a-number where the truth is a number is an infinite error."""
    a, b = np.asarray(got, np.float64).reshape(-1), np.asarray(want, np.float64).reshape(-1)
    with np.errstate(all="ignore"):
        error, truth = a - b, b
        squares = float(np.dot(error, error)), float(np.dot(b, b))
        if not np.isfinite(squares).all():
            error[(a == b) | (np.isnan(a) & np.isnan(b))] = 0.0  # infinities and NaN that the truth has too
            truth = np.where(np.isfinite(b), b, 0.0)
            squares = float(np.dot(error, error)), float(np.dot(truth, truth))
        distance, size = (float(np.sqrt(square)) for square in squares)
        along = abs(float(np.dot(error, truth)))
    return Difference(
        norm=_ratio(distance, size),
        projection=_ratio(along, size * size),
        find_worst=lambda: _worst(a, b, error, truth, np.shape(want)),
    )


def _worst(a: Array, b: Array, error: Array, truth: Array, shape: tuple[int, ...]) -> Worst:
    """The worst element of got `a` and wanted `b`, flat; truth: `b` with zeros for infinities and NaN."""
    if not a.size:
        return Worst((), 0.0, 0.0, 0.0)
    with np.errstate(all="ignore"):
        badness = np.where(np.isnan(error), np.inf, np.abs(error))
        worst = int(np.argmax(badness))
        scale = max(abs(truth[worst]), float(np.sqrt(np.dot(truth, truth) / truth.size)))
    index = tuple(int(i) for i in np.unravel_index(worst, shape))
    return Worst(index, float(a[worst]), float(b[worst]), _ratio(float(badness[worst]), float(scale)))


def rounding(want: Array, single: Array, largest: float, dtype: str) -> float:
    """The relative 2-norm of an error that rounding alone explains.

    want: the truth in f64; single: the same computed in f32. Where large terms cancel (a row of one element,
    normalised), the reference itself is that far from the truth; so are numbers that fp16 holds in coarse steps.
    largest: the root mean square of the largest tensor involved.
    """
    size = float(np.linalg.norm(want))
    if not size or not np.isfinite(size):
        return 0.0
    coarse = LEAST.get(dtype, 0.0) * float(np.sqrt(np.count_nonzero(want)))
    noise = SLACK * EPSILON[dtype] / EPSILON["f32"] * float(np.linalg.norm(single.astype(np.float64) - want))
    largest = max(largest, float(np.sqrt(np.mean(np.square(want)))))
    return max(coarse, min(noise, UNITS * EPSILON[dtype] * largest * float(np.sqrt(want.size)))) / size


def _ratio(part: float, whole: float) -> float:
    if not np.isfinite(part):
        return float("inf")
    if part == 0.0:
        return 0.0
    return part / whole if whole > 0.0 else float("inf")


def round_to(values: Array, dtype: str) -> Array:
    """`values` as `dtype` holds them: f64 for f64, else f32; bf16 and fp16 round to nearest even on the way."""
    if dtype == "f64":
        return np.asarray(values, np.float64)
    single = np.asarray(values, np.float32)
    if dtype == "f32":
        return single
    if dtype == "fp16":
        with np.errstate(over="ignore"):
            return single.astype(np.float16).astype(np.float32)
    bits = single.view(np.uint32).astype(np.uint64)
    nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return nearest.astype(np.uint32).view(np.float32)
