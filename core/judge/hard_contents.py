"""Contents that a standard normal tensor becomes, by name: numbers that are hard where a tensor's sizes are not.

In each function, `smallest` and `largest` are of the tensor's element type's normal numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


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
