"""Contents for the `examples` of ops: numbers that are hard where their sizes are not.

A formula that is right on standard normal numbers may lose every digit on others: the mean of the squares less the
square of the mean far from zero, an exponential of large numbers, a sum of tiny ones. Each function returns f64, which
an example takes in place of a shape: `examples=[{"x": far_rows(33)}]`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


# --- contents that a standard normal tensor becomes; `smallest` and `largest` are of its element type's normal numbers


def one_nan(values: Array, rng: np.random.Generator, smallest: float, largest: float) -> Array:
    """One element is not a number."""
    return _placed(values, rng, [np.nan])


def infinities(values: Array, rng: np.random.Generator, smallest: float, largest: float) -> Array:
    """One element is infinite, and one minus infinite where there is room."""
    return _placed(values, rng, [np.inf, -np.inf])


def denormals(values: Array, rng: np.random.Generator, smallest: float, largest: float) -> Array:
    """All elements are below the smallest normal number."""
    return np.asarray(np.clip(values, -3, 3) * smallest / 16)


def zeros(values: Array, rng: np.random.Generator, smallest: float, largest: float) -> Array:
    """All elements are zero, half of them minus zero."""
    return np.asarray(np.copysign(0.0, values))


def huge(values: Array, rng: np.random.Generator, smallest: float, largest: float) -> Array:
    """One element is a quarter of the largest number: a second one could cancel it, and show the order of a sum."""
    return _placed(values, rng, [largest / 4])


def distant(values: Array, rng: np.random.Generator, smallest: float, largest: float) -> Array:
    """A mean of 100 and a standard deviation of 1: in f32 the square of the mean leaves few digits for the variance."""
    return np.asarray(values + 100.0)


def _placed(values: Array, rng: np.random.Generator, numbers: Sequence[float]) -> Array:
    placed = values.copy()
    places = rng.permutation(values.size)[: len(numbers)]
    placed.reshape(-1)[places] = numbers[: places.size]
    return placed


HARD: Mapping[str, Callable[[Array, np.random.Generator, float, float], Array]] = {
    "nan": one_nan, "inf": infinities, "denormal": denormals, "zero": zeros, "huge": huge, "distant": distant,
}  # fmt: skip
