"""Launches of kernels that sum columns in two steps: the grids of core/columns.cuh."""

from __future__ import annotations

from typing import Any

from core.expr import cdiv

WIDE = 32  # columns of a thread block of slice_sums
TALL = 8  # its rows at a time
THREADS = 128  # of a thread block of add_slices
FOLD = "for (int i = threadIdx.y; i < slices && c < columns; i += 32) sum += partials[i * stride + c];"


def by_slice(rows: int, columns: int, slice: int) -> dict[str, Any]:
    """grid and block of a kernel with slice_sums, for slices of `slice` rows."""
    return {"grid": (cdiv(columns, WIDE), cdiv(rows, slice)), "block": (WIDE, TALL)}


def by_column(columns: int) -> dict[str, Any]:
    """grid and block of a kernel with add_slices."""
    return {"grid": cdiv(columns, THREADS), "block": THREADS}


def by_fold(columns: int, outputs: int = 1) -> dict[str, Any]:
    """grid and block of a kernel with fold_slices, along y for several outputs."""
    return {"grid": (cdiv(columns, WIDE), outputs), "block": (WIDE, WIDE)}


def partial_bytes(rows: int, columns: int, slice: int, sums: int = 1) -> int:
    """Bytes of the partials between the two: (slices, sums, columns) floats."""
    return 4 * cdiv(rows, slice) * sums * columns
