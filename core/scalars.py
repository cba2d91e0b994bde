"""A kernel's scalars with their C types: `i32(n)` for `int`, `u64(n)` for `u64`, `f32(eps)` for `float`.

A number within its type's range becomes a NumPy scalar; any other becomes `Unrepresentable`, which `launch` refuses
with the names of the kernel and of the parameter. No number wraps around or is truncated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

TYPES: dict[str, Any] = {
    "i32": np.int32, "u32": np.uint32, "i64": np.int64, "u64": np.uint64, "f32": np.float32, "f64": np.float64,
}  # fmt: skip


@dataclass(frozen=True)
class Unrepresentable:
    """A value outside the range of the type `kind`. Its text: core.kernels.unrepresentable."""

    kind: str
    value: Any


def as_whole(value: Any) -> int | None:
    """The value as an integer; None for a float and any other type."""
    return int(value) if isinstance(value, int | np.integer | np.bool_) else None


def i32(value: Any) -> Any:
    """An `int`: -2^31 to 2^31 - 1. For flags and sizes of one dimension; a count of elements is a u64."""
    return _integer("i32", value)


def u32(value: Any) -> Any:
    """A `u32`, or `unsigned`: 0 to 2^32 - 1."""
    return _integer("u32", value)


def i64(value: Any) -> Any:
    """A `long long`: -2^63 to 2^63 - 1."""
    return _integer("i64", value)


def u64(value: Any) -> Any:
    """A `u64`, or `unsigned long long`: 0 to 2^64 - 1. For counts of elements, rows and parameters."""
    return _integer("u64", value)


def f32(value: Any) -> Any:
    """A `float`. Infinities and NaN are passed on; a finite number beyond 3.4e38 does not fit."""
    return _float("f32", value)


def f64(value: Any) -> Any:
    """A `double`."""
    return _float("f64", value)


def _integer(kind: str, value: Any) -> Any:
    number, held = as_whole(value), np.iinfo(TYPES[kind])
    fits = number is not None and held.min <= number <= held.max
    return TYPES[kind](number) if fits else Unrepresentable(kind, value)


def _float(kind: str, value: Any) -> Any:
    if not isinstance(value, int | float | np.number | np.bool_) or isinstance(value, np.complexfloating):
        return Unrepresentable(kind, value)
    size: Any = abs(value)
    too_large = float(np.finfo(TYPES[kind]).max) < size != math.inf
    return Unrepresentable(kind, value) if too_large else TYPES[kind](value)
