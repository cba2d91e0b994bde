"""Statistics of tensors on any device: their definitions, and the description of a tensor to measure.

A row of `VALUES` numbers for each tensor, f64: sum, sum of squares, least and largest of the finite elements; how many
are zero, not finite, and finite but too small or too large for bf16, which rounds them to zero or to infinity. The sums
run in an order that follows from the tensor's size alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import BuildError
from core.expr import Padded, described, unpadded

VALUES = ("sum", "squares", "least", "largest", "zeros", "nonfinite", "underflows", "overflows")
TOO_SMALL = 2.0**-134  # up to here a number rounds to zero in bf16
TOO_LARGE = 2.0**128 - 2.0**119  # from here on it rounds to infinity


@dataclass(frozen=True)
class MeasuredTensor:
    """A tensor to take the statistics of. shape: with its padded sizes (core.expr.Padded), whose padding is left out.
    before: a tensor of the same shape that is subtracted, element by element; None: nothing is."""

    tensor: Any
    shape: tuple[int, ...]
    before: Any = None


def elements(shape: Sequence[int]) -> int:
    """Elements that are no padding."""
    return math.prod(map(unpadded, shape))


def three(shape: Sequence[int]) -> tuple[tuple[int, int, int], tuple[int, int]]:
    """A shape as three sizes without padding and the strides of the first two, in elements. BuildError for one with
    padding along more than two dims."""
    padded = [index for index, size in enumerate(shape) if isinstance(size, Padded)]
    if len(padded) > 2:
        raise BuildError(f"statistics of a tensor of {described(tuple(shape))}: expected at most two padded sizes")
    cut = padded[-1] if padded else 0  # from here on a stretch is contiguous
    first = padded[0] if padded else 0
    pitch, width = math.prod(map(int, shape[cut:])), elements(shape[cut:])
    return (
        (math.prod(map(int, shape[:first])), elements(shape[first:cut]), width),
        (math.prod(map(int, shape[first:cut])) * pitch, pitch),
    )
