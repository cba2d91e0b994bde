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
    """A value outside the range of the type `kind`."""

    kind: str
    value: Any

    @property
    def limits(self) -> str:
        """The range of the type, in words."""
        if self.kind.startswith("f"):
            return f"numbers up to {np.finfo(TYPES[self.kind]).max:.8g}"
        held = np.iinfo(TYPES[self.kind])
        return f"whole numbers from {held.min:,} to {held.max:,}"

    @property
    def problem(self) -> str:
        """In words, what was given and what the type holds."""
        return f"{self.kind}({self.value!r}), and {self.kind} holds {self.limits}"

    @property
    def hint(self) -> str:
        """The correction, as a hint."""
        number = as_whole(self.value)
        if self.kind.startswith("f"):
            return "a finite number that is within the type's range, or f64(x) for a `double`"
        if number is None:
            return f"convert it first: {self.kind}(int(x)), or {self.kind}(a // b) for a quotient"
        if number < 0:
            return "i32(n) and `int` hold negative numbers down to -2^31, i64(n) and `long long` down to -2^63"
        wide = "u64(n), and `u64 n` in the kernel"
        return f"{wide}; or a `why_not` that refuses such sizes in words" if number < 2**64 else "smaller sizes"


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
