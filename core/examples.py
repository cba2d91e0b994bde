"""Contents for the `examples` of ops: numbers that are hard where their sizes are not.

A formula that is right on standard normal numbers may lose every digit on others: the mean of the squares less the
square of the mean far from zero, an exponential of large numbers, a sum of tiny ones. Each function returns f64, which
an example takes in place of a shape: `examples=[{"x": far_rows(33)}]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def rows_of(columns: int, rows: Sequence[tuple[float, float]]) -> Array:
    """(len(rows), columns): for each (mean, scale), standard normal numbers times the scale plus the mean."""
    mean, scale = np.array(rows).T[..., None]
    drawn = np.random.default_rng(columns).standard_normal((len(rows), columns))
    return np.asarray(mean + scale * drawn)


def far_rows(columns: int) -> Array:
    """(3, columns): rows with a mean of 100, of -100 and of 0, all with a standard deviation of 1."""
    return rows_of(columns, ((100.0, 1.0), (-100.0, 1.0), (0.0, 1.0)))


def scaled_rows(columns: int) -> Array:
    """(3, columns): a row of large numbers (1e3), one of small ones (1e-3), one whose elements are all equal."""
    return rows_of(columns, ((0.0, 1e3), (0.0, 1e-3), (3.0, 0.0)))


def tied_rows(rows: int, columns: int) -> Array:
    """(rows, columns) of the numbers 0, 1 and 2, so that a row has its largest number several times."""
    return np.random.default_rng(columns).integers(0, 3, (rows, columns)).astype(np.float64)
