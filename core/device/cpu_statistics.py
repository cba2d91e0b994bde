"""Statistics of tensors on the cpu: one pass by pieces that stay in a core's cache, summed in order.

The rows are those of core.device.measured. Within a piece the sums are in the tensor's own type, where its numbers
allow, and in f64 over the pieces: mean and rms are good to some six digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from core.device.measured import TOO_LARGE, TOO_SMALL, VALUES, MeasuredTensor, elements, three
from core.expr import cdiv
from core.op import CpuLaunch

Array = np.ndarray[Any, Any]
PIECE = 1 << 16  # elements
SAFE = 1e-15, 1e15  # magnitudes whose squares are summed in f32
COUNT = len(VALUES)


def workspace_bytes(shapes: Sequence[Sequence[int]]) -> int:
    """Bytes for the pieces' rows."""
    return sum(8 * COUNT * _pieces(shape) for shape in shapes)


def record(measured: Sequence[MeasuredTensor], out: Array, workspace: Array, launch: CpuLaunch) -> None:
    """Record the writer of a row of `out`, (tensors, 8) f64, for each tensor; `workspace`: `workspace_bytes` of u8."""
    rows, first = workspace[: workspace_bytes([m.shape for m in measured])].view(np.float64).reshape(-1, COUNT), 0
    for m, row in zip(measured, out, strict=True):
        parts = rows[first : first + _pieces(m.shape)]
        first += len(parts)
        _, count, grain = _stretches(m.shape)
        width = elements(m.shape) // count if count else 0
        launch.rows(count, _piece(m, parts, grain), grain, 2 * grain * width * m.tensor.itemsize)
        launch.call(_in_order(parts, row))


def _stretches(shape: Sequence[int]) -> tuple[bool, int, int]:
    """(whether a tensor has no gaps, its elements or the stretches between its gaps, how many of them are a piece)."""
    (outer, rows, width), (stride, pitch) = three(shape)
    if (rows == 1 or pitch == width) and (outer == 1 or stride == rows * width):
        return True, outer * rows * width, PIECE
    return False, outer * rows, max(1, PIECE // max(width, 1))


def _pieces(shape: Sequence[int]) -> int:
    _, count, grain = _stretches(shape)
    return max(1, cdiv(count, grain))


def _piece(m: MeasuredTensor, parts: Array, grain: int) -> Callable[[int, int, Array], None]:
    """f(lo, hi, scratch): the row of one piece, into `parts`."""
    (outer, rows, width), strides = three(m.shape)
    whole, count, _ = _stretches(m.shape)
    shape, steps = ((count,), (1,)) if whole else ((outer, rows, width), (*strides, 1))

    def view(tensor: Array) -> Array:
        bytes_of = tuple(step * tensor.itemsize for step in steps)
        return np.lib.stride_tricks.as_strided(tensor.reshape(-1), shape, bytes_of, writeable=False)

    now, before = view(m.tensor), None if m.before is None else view(m.before)

    def piece(lo: int, hi: int, scratch: Array) -> None:
        size = (hi - lo) * (1 if whole else width)
        held, spare = (scratch[i * size * now.itemsize :][: size * now.itemsize].view(now.dtype) for i in (0, 1))
        if before is not None:
            np.subtract(_part(now, lo, hi, held), _part(before, lo, hi, spare), out=held)
            part = held
        else:
            part = _part(now, lo, hi, held)
        parts[lo // grain] = _row(part, spare)

    return piece


def _part(view: Array, lo: int, hi: int, into: Array) -> Array:
    """Elements, or stretches, lo to hi of a view, in one row: a view where there are no gaps, else copied."""
    if view.ndim == 1:
        return view[lo:hi]
    for index, row in enumerate(range(lo, hi)):
        width = view.shape[2]
        into[index * width : (index + 1) * width] = view[row // view.shape[1], row % view.shape[1]]
    return into


def _row(part: Array, spare: Array) -> tuple[float, ...]:
    """The statistics of one piece; `spare` is overwritten."""
    if not part.size:
        return 0.0, 0.0, math.inf, -math.inf, 0, 0, 0, 0
    least, largest = float(part.min()), float(part.max())
    top = max(-least, largest)
    if not top < SAFE[1] or 0 < top < SAFE[0]:  # a NaN too
        return _exact_row(part.astype(np.float64))
    np.abs(part, out=spare)
    zeros = underflows = 0
    if float(spare.min()) <= TOO_SMALL:
        zeros = part.size - int(np.count_nonzero(part))
        underflows = int(np.count_nonzero(spare <= TOO_SMALL)) - zeros
    return float(part.sum()), float(np.dot(part, part)), least, largest, zeros, 0, underflows, 0


def _exact_row(part: Array) -> tuple[float, ...]:
    """The same in f64, with numbers that are not finite left out."""
    finite = part[np.isfinite(part)]
    size = np.abs(finite)
    zeros = int(np.count_nonzero(size == 0))
    least, largest = float(finite.min(initial=math.inf)), float(finite.max(initial=-math.inf))
    small, large = int(np.count_nonzero(size <= TOO_SMALL)) - zeros, int(np.count_nonzero(size >= TOO_LARGE))
    sums = float(finite.sum()), float(np.dot(finite, finite))
    return *sums, least, largest, zeros, part.size - finite.size, small, large


def _in_order(parts: Array, row: Array) -> Callable[[], None]:
    """Sums, extremes and counts of the pieces, into the tensor's row."""

    def combine() -> None:
        row[:] = parts.sum(axis=0)
        row[2], row[3] = parts[:, 2].min(), parts[:, 3].max()

    return combine
