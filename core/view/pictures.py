"""A tensor as a picture: at most SIDE x SIDE cells, a histogram and statistics, as plain JSON.

A tensor is drawn as a matrix: its last axis across, all others down. A cell is a block of elements and has the
strongest of them, with its sign. A cell is one byte: 128 is zero, others a sign and the logarithm of the size below the
largest, over DECADES: a step of 7%. Cells that are elements, one each, have 16 bits: three digits over seven decades.
"""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np

from core.train.crash import statistics

Array = np.ndarray[Any, Any]
SIDE, SMALL_SIDE = 64, 32
DECADES = 3.5
LEVELS = 127  # of a sign
BINS = 32


def picture(array: Array, side: int = SIDE) -> dict[str, Any]:
    """A picture of a tensor of any shape, of floats or integers.

    shape, rows and columns of the matrix; `block`: elements of a cell, down and across; `bits` 8 or 16, and `cells` in
    base64, row by row; `largest`: the value of full strength; `histogram`: counts between `least` and `most`; and
    statistics: rms, mean, zeros, nan, inf.
    """
    matrix = as_matrix(array)
    rows, columns = matrix.shape
    block = [max(1, -(-rows // side)), max(1, -(-columns // side))]
    cells = strongest(matrix, *block)
    finite = cells[np.isfinite(cells)]
    largest = float(np.abs(finite).max(initial=0.0))
    whole = block == [1, 1]
    packed = halves(cells, largest) if whole else levels(cells, largest)
    numbers = statistics(array)
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "size": [rows, columns],
        "block": block,
        "bits": 16 if whole else 8,
        "cells": base64.b64encode(packed.tobytes()).decode(),
        "largest": largest,
        "histogram": histogram(matrix, numbers["min"], numbers["max"]),
        **{name: significant(numbers[name]) for name in ("rms", "mean", "min", "max", "zeros", "nan", "inf")},
    }


def as_matrix(array: Array) -> Array:
    """(rows, columns): the last axis across, all others down; a number is 1 by 1."""
    columns = array.shape[-1] if array.ndim else 1
    return array.reshape(-1, columns) if array.size else array.reshape(0, max(1, columns))


def strongest(matrix: Array, down: int, across: int) -> Array:
    """(rows / down, columns / across) f64: of each block the element that is largest without its sign; a NaN wins."""
    if not matrix.size:
        return np.zeros((0, 0))
    if (down, across) == (1, 1):
        return matrix.astype(np.float64)
    at_row, at_column = (np.arange(0, size, step) for size, step in zip(matrix.shape, (down, across), strict=True))
    most = np.maximum.reduceat(np.maximum.reduceat(matrix, at_row, axis=0), at_column, axis=1).astype(np.float64)
    least = np.minimum.reduceat(np.minimum.reduceat(matrix, at_row, axis=0), at_column, axis=1).astype(np.float64)
    return np.where(most >= -least, most, np.where(np.isnan(most), most, least))


def levels(cells: Array, largest: float) -> Array:
    """u8 for each cell: 128 zero, 129 to 255 positive, 127 to 1 negative, 0 for a number that is not finite."""
    size = np.abs(cells) / (largest or 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        level = np.ceil(LEVELS * (1 + np.log10(size) / DECADES))
    level = np.clip(np.nan_to_num(level, nan=0, neginf=0, posinf=0), 0, LEVELS)
    return np.where(np.isfinite(cells), 128 + np.sign(cells) * level, 0).astype(np.uint8)


def halves(cells: Array, largest: float) -> Array:
    """f16, little-endian, for each cell: its share of the largest; NaN for a number that is not finite."""
    shares = np.where(np.isfinite(cells), cells / (largest or 1.0), np.nan)
    return shares.astype("<f2")


def histogram(matrix: Array, least: float | None, most: float | None) -> list[int]:
    """BINS counts from the least to the largest finite element; one where all are equal, none where there are none."""
    if least is None or most is None:
        return []
    if least == most:
        return [int(np.isfinite(matrix).sum())]
    flat = matrix.reshape(-1)
    return [int(n) for n in np.histogram(flat[np.isfinite(flat)], BINS, (least, most))[0]]


def significant(value: Any, digits: int = 6) -> Any:
    """A float with this number of digits; None for one that is not finite; anything else as it is."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    return value
