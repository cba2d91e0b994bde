"""The problem of a kernel's scalar that its type does not hold."""

from __future__ import annotations

import numpy as np

from core.scalars import TYPES, Unrepresentable, as_whole


def limits_of(value: Unrepresentable) -> str:
    """The range of the type."""
    if value.kind.startswith("f"):
        return f"numbers up to {np.finfo(TYPES[value.kind]).max:.8g}"
    held = np.iinfo(TYPES[value.kind])
    return f"whole numbers from {held.min:,} to {held.max:,}"


def problem_of(value: Unrepresentable) -> str:
    """The given value and the range of the type."""
    return f"{value.kind}({value.value!r}), and {value.kind} holds {limits_of(value)}"


def hint_of(value: Unrepresentable) -> str:
    """The correction, as a hint."""
    number = as_whole(value.value)
    if value.kind.startswith("f"):
        return "a finite number that is within the type's range, or f64(x) for a `double`"
    if number is None:
        return f"convert it first: {value.kind}(int(x)), or {value.kind}(a // b) for a quotient"
    if number < 0:
        return "i32(n) and `int` hold negative numbers down to -2^31, i64(n) and `long long` down to -2^63"
    wide = "u64(n), and `u64 n` in the kernel"
    return f"{wide}; or a `why_not` that refuses such sizes with a reason" if number < 2**64 else "smaller sizes"
