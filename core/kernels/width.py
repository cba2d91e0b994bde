"""The width of vector loads: elements that a thread loads at once. Kernels get it as the macro `WIDTH`."""

from __future__ import annotations

from typing import Any

WIDEST = {"f32": 4, "bf16": 8, "fp16": 8}  # elements in 16 bytes, the most that one instruction loads


def width(columns: int, tensor: Any) -> int:
    """16 bytes' worth of `tensor`'s elements where rows of `columns` keep every load aligned, else one element."""
    widest = WIDEST[tensor.dtype]
    return widest if columns % widest == 0 else 1


def defined(width: int) -> dict[str, str | int]:
    """The macros of a kernel that loads this number of elements; none where it is one, the sources' own default."""
    return {"WIDTH": width} if width > 1 else {}
