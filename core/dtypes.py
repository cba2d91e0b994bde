"""Element types by their short names, and the types that a precision gives to a schema's tensors.

A schema names no precision: without a type after the colon a tensor has the activations' type; `acc` is the type of
statistics and parameter gradients. A run's precision determines both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from core.errors import UsageError, did_you_mean

# bf16 is stored as 16-bit integers on the host: NumPy has no bf16, and no kernel of the host computes in it or in fp16.
NUMPY: dict[str, np.dtype[Any]] = {
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "bf16": np.dtype(np.uint16),
    "fp16": np.dtype(np.float16),
    "i32": np.dtype(np.int32),
    "u32": np.dtype(np.uint32),
    "u8": np.dtype(np.uint8),
}

# precision: (activations and weights, statistics and parameter gradients)
PRECISIONS: dict[str, tuple[str, str]] = {
    "f32": ("f32", "f32"), "bf16": ("bf16", "f32"), "fp16": ("fp16", "f32"), "f64": ("f64", "f64")
}  # fmt: skip

# Dtypes that the host holds rounded and computes with as f32
NARROW = ("bf16", "fp16")

# Precisions whose gradients are multiplied by a loss scale: fp16 has none below 2^-24
SCALED = ("fp16",)

# The C type of an element in kernels, core/kernels/prelude.cuh
C_TYPES = {
    "f32": "float", "f64": "double", "bf16": "bf16", "fp16": "fp16", "i32": "int", "u32": "unsigned",
    "u8": "unsigned char",
}  # fmt: skip

INTEGERS = ("i32", "u32", "u8")


def resolve(dtype: str | None, precision: str) -> str:
    """The element type that a schema's `dtype` (None, "acc" or a name) has under `precision`."""
    activation, acc = PRECISIONS[check_precision(precision)]
    if dtype is None:
        return activation
    return acc if dtype == "acc" else dtype


def check_precision(precision: str) -> str:
    if precision not in PRECISIONS:
        raise UsageError(
            f'precision "{precision}" is not one of {", ".join(PRECISIONS)}{did_you_mean(precision, PRECISIONS)}'
        )
    return precision


def itemsize(dtype: str) -> int:
    """Bytes of one element."""
    return NUMPY[dtype].itemsize


def widest_first(dtypes: Iterable[str]) -> list[str]:
    """In the order in which a check tries dtypes: in a wide one the numbers are clearest."""
    return sorted(dtypes, key=lambda dtype: (itemsize(dtype), dtype), reverse=True)


TF32 = "tf32"  # no tensor's dtype: f32 with 10 bits of mantissa, as tensor cores multiply it


def arithmetic(dtype: str, tf32: bool) -> str:
    """The number format of a variant's products in `dtype`; tf32: whether tensors of f32 are multiplied in TF32."""
    return TF32 if tf32 and dtype == "f32" else dtype
