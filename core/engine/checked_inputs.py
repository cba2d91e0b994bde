"""Inputs of a model that a Python program gives: token ids, seeds of the loss terms, learning rates, each checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from core.engine.batch import Array
from core.errors import DataError, UsageError, did_you_mean


def as_arrays(batch: Mapping[str, Any]) -> dict[str, Array]:
    """The inputs of a batch by name, as arrays."""
    return {name: np.asarray(values) for name, values in batch.items()}


def checked_rate(lr: Any) -> float:
    """A learning rate. Raises UsageError unless it is a finite number >= 0."""
    if isinstance(lr, bool) or not isinstance(lr, int | float) or not math.isfinite(lr) or lr < 0:
        raise UsageError(f"lr is {lr!r}; expected a number >= 0")
    return float(lr)


def checked_ids(values: Any, name: str, bound: int | None, *, negative: bool) -> Array:
    """(B, T) i32. Raises DataError for another shape, no integers, or an id that the model does not know."""
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, OverflowError):
        array = np.empty(0, object)
    if array.dtype == object:
        raise DataError(f"{name} are not an array of integers: rows differ in length, or hold other values")
    if array.ndim not in (1, 2) or not array.size:
        raise DataError(f"{name} have shape {array.shape}; expected (B, T) or (T,), and at least one")
    if array.dtype.kind not in "iu":
        raise DataError(f"{name} are {array.dtype}; expected integers")
    array = np.atleast_2d(array)
    above = np.iinfo(np.int32).max + 1 if bound is None else bound
    wrong = (array >= above) if negative else (array >= above) | (array < 0)
    if wrong.any():
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        raise DataError(
            f"{name}[{row}, {column}] is {array[row, column]}; the model knows 0 to {above - 1}"
            + (", and negative numbers for ignored targets" if negative else "")
        )
    return np.clip(array, -1, None).astype(np.int32) if negative else array.astype(np.int32)


def checked_seeds(seeds: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Seeds of loss terms, f64, in the terms' shapes, such as (B, T). None gives none.

    Raises UsageError for seeds that are no mapping, DataError for a term that the loss does not have, or another shape
    than the term's.
    """
    table = {} if seeds is None else seeds
    if not isinstance(table, Mapping):
        raise UsageError(f"seeds are {type(seeds).__name__}; expected a loss term -> its numbers")
    own: dict[str, Array] = {}
    for name, values in table.items():
        if name not in shapes:
            terms = ", ".join(shapes)
            raise DataError(f'seeds: the loss has no term "{name}"{did_you_mean(name, shapes)} (it has {terms})')
        array = np.asarray(values)
        if array.dtype.kind not in "fiu" or array.shape != shapes[name]:
            raise DataError(f"seeds: {name} has {array.dtype} {array.shape}; expected numbers {shapes[name]}")
        own[name] = array.astype(np.float64)
    return own
