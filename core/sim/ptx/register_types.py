"""PTX's scalar types and the NumPy types that carry them.

A register holds raw bits: an unsigned integer of its width (a bool for a predicate). An instruction reads them
as the type in its own name, as the hardware does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

UNSIGNED: dict[int, np.dtype[Any]] = {
    8: np.dtype(np.uint8),
    16: np.dtype(np.uint16),
    32: np.dtype(np.uint32),
    64: np.dtype(np.uint64),
}
SIGNED: dict[int, np.dtype[Any]] = {
    8: np.dtype(np.int8),
    16: np.dtype(np.int16),
    32: np.dtype(np.int32),
    64: np.dtype(np.int64),
}
FLOAT: dict[int, np.dtype[Any]] = {16: np.dtype(np.float16), 32: np.dtype(np.float32), 64: np.dtype(np.float64)}
BOOL: np.dtype[Any] = np.dtype(np.bool_)
WIDE: dict[int, np.dtype[Any]] = {
    **UNSIGNED,
    128: np.dtype(np.complex128),
}  # the carrier of a 16-byte access; never computed with


@dataclass(frozen=True)
class Type:
    """A type suffix. `kind`: u unsigned, s signed, b bits, f IEEE float, h bfloat16 and packed halves, p predicate."""

    name: str
    kind: str
    bits: int

    @property
    def bytes(self) -> int:
        return self.bits // 8

    @property
    def raw(self) -> np.dtype[Any]:
        """The NumPy type that stores a register of this type."""
        return BOOL if self.kind == "p" else UNSIGNED[self.bits]

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy type of arithmetic in this type; bits for the types that NumPy lacks."""
        tables = {"s": SIGNED, "f": FLOAT, "p": {1: BOOL}}
        return tables.get(self.kind, UNSIGNED)[self.bits]


def _types() -> dict[str, Type]:
    table = {"pred": Type("pred", "p", 1)}
    for letter in "bus":
        table |= {f"{letter}{bits}": Type(f"{letter}{bits}", letter, bits) for bits in (8, 16, 32, 64)}
    table |= {f"f{bits}": Type(f"f{bits}", "f", bits) for bits in (16, 32, 64)}
    table |= {name: Type(name, "h", bits) for name, bits in (("bf16", 16), ("bf16x2", 32), ("f16x2", 32), ("tf32", 32))}
    table["f32x2"] = Type("f32x2", "h", 64)
    return table


TYPES: dict[str, Type] = _types()
