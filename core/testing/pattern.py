"""Clues in wrong values, as text: their places, and their relation to the right ones.

A constant factor, the values of a different tensor, a transposed matrix, columns that were never written: the patterns
that an experienced eye looks for first. It compares arrays and knows no op; a clue is never a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.testing.compare import Array

NEAR = {"f64": 1e-7, "f32": 1e-3, "bf16": 5e-2, "fp16": 5e-3}  # relative, between elements that count as equal here
MOST = 0.7  # this share of the elements being wrong may be all: a few can be right by chance, or on a diagonal
FEWEST = 6  # elements below which a factor, or a tensor that looks like another, may be chance


@dataclass(frozen=True)
class Compared:
    """A tensor's values beside the right ones; `start` is its value before the addition."""

    got: Array
    want: Array
    start: Array | None = None


@dataclass(frozen=True)
class Scene:
    """All tensors of one run, by name. dims: the sizes by name; above: the output gradients."""

    tensors: Mapping[str, Compared]
    dims: Mapping[str, Any] = field(default_factory=dict)
    above: Mapping[str, Array] = field(default_factory=dict)
    dtype: str = "f32"

    def near(self, a: Array, b: Array) -> bool:
        """Whether two tensors agree, by their largest difference over the size of the second."""
        if a.shape != b.shape or b.size < FEWEST:
            return False
        with np.errstate(all="ignore"):
            scale = float(np.sqrt(np.mean(np.square(b.astype(np.float64)))))
            return bool(scale > 0 and np.max(np.abs(a.astype(np.float64) - b)) <= NEAR[self.dtype] * 4 * scale)

    def wrong(self, name: str) -> Array:
        """The mask of wrong elements of a tensor."""
        one = self.tensors[name]
        got, want = one.got.astype(np.float64), one.want.astype(np.float64)
        with np.errstate(all="ignore"):
            rms = float(np.sqrt(np.mean(np.square(np.where(np.isfinite(want), want, 0))))) if want.size else 0.0
            off = ~(np.abs(got - want) <= NEAR[self.dtype] * np.maximum(np.abs(want), rms))
        return np.asarray(off & ~((got == want) | (np.isnan(got) & np.isnan(want))))


def seen(scene: Scene, name: str) -> str:
    """The clue in the tensor `name`; "" without one."""
    one, off = scene.tensors[name], scene.wrong(name)
    if not off.any():
        return ""
    counts = (one.want != 0) | (one.got != 0)  # zeros that are right are no clue
    pattern = ""
    if off[counts].mean() > MOST or off.size < FEWEST:
        pattern = next(filter(None, (look(scene, name, one) for look in EVERYWHERE)), "")
    pattern = pattern or "; ".join(filter(None, (region(off), what_is_there(one, off))))
    right = [other for other in scene.tensors if other != name and not scene.wrong(other).any()]
    if right and len(scene.tensors) > 1:
        pattern = "; ".join(filter(None, (pattern, f"{listed(right)} {'is' if len(right) == 1 else 'are'} right")))
    return pattern


def listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# --- where ---------------------------------------------------------------------------------------------------------


def region(off: Array, fault: str = "wrong") -> str:
    """The rows or columns at fault, where they are one stretch of rows or of columns."""
    if off.ndim == 0:
        return ""
    flat = off.reshape(-1, off.shape[-1])
    columns = {"column" if off.ndim > 1 else "element": np.asarray(flat.any(0))}
    lines = {**columns, "row": np.asarray(flat.any(1))}
    return next((f"only {said} {fault}" for side, line in lines.items() if (said := stretch(line, side))), "")


def stretch(wrong: Array, one: str) -> str:
    """The places of a line as text: one, the first few, or all from one on; "" for others."""
    places, many = np.flatnonzero(wrong), one + "s"
    first, last, count = int(places[0]), int(places[-1]), len(wrong)
    if len(places) == count or len(places) != last - first + 1:
        return ""
    if len(places) == 1:
        return {0: f"the first {one} is", count - 1: f"the last {one} is"}.get(first, f"{one} {first} is")
    if last == count - 1:
        return f"{many} after the first are" if first == 1 else f"{many} from {first} on are"
    return f"{many} before {last + 1} are" if first == 0 else f"{many} {first} to {last} are"


def what_is_there(one: Compared, off: Array) -> str:
    """The contents of the wrong elements, where all of them are of one kind."""
    got = one.got[off].astype(np.float64)
    if np.isnan(got).all():
        return "there got is not a number"
    if not got.any():
        return "there got is 0"
    return ""


# --- values --------------------------------------------------------------------------------------------------------


def everywhere_nothing(scene: Scene, name: str, one: Compared) -> str:
    got = one.got.astype(np.float64)
    return "got is not a number anywhere" if np.isnan(got).all() else "got is 0 everywhere" if not got.any() else ""


def not_added(scene: Scene, name: str, one: Compared) -> str:
    """The fate of contents to which a launcher should have added."""
    if one.start is None:
        return ""
    if scene.near(one.got, one.want - one.start):
        return "the previous value is lost: the gradient is written where the plan adds it"
    return "got is the previous value: nothing was added" if scene.near(one.got, one.start) else ""


def exchanged(scene: Scene, name: str, one: Compared) -> str:
    """Whether it holds another tensor's values."""
    for other, with_it in scene.tensors.items():
        if other == name or not scene.near(one.got, with_it.want):
            continue
        both = scene.near(with_it.got, one.want)
        return f"{name} and {other} are exchanged" if both else f"it holds the values of {other}"
    return ""


def transposed(scene: Scene, name: str, one: Compared) -> str:
    """Whether it is the right tensor with two axes swapped."""
    want = one.want
    for a, b in ((-1, -2), (-2, -3), (-1, -3)):
        if want.ndim >= -min(a, b) and min(want.shape[a], want.shape[b]) > 1:
            turned = np.ascontiguousarray(want.swapaxes(a, b)).reshape(want.shape)
            if scene.near(one.got, turned):
                return f"it is transposed: axes {a} and {b} are swapped"
    return ""


def factor(scene: Scene, name: str, one: Compared) -> str:
    """A factor that is the same everywhere, by its name where a size of the op explains it."""
    ratio = same_factor(scene, one.got, one.want)
    if ratio is None:
        return ""
    if ratio == -1:
        return "got has the wrong sign everywhere"
    return f"got is {ratio:.5g} times the expected value, everywhere{named(ratio, scene)}"


def same_factor(scene: Scene, got: Array, want: Array) -> float | None:
    """got / want where that is one number, and not 1."""
    got, want = got.astype(np.float64).reshape(-1), want.astype(np.float64).reshape(-1)
    with np.errstate(all="ignore"):
        rms = np.sqrt(np.mean(np.square(want)))
        large = np.abs(want) > 0.05 * rms
        ratio = got[large] / want[large]
    if ratio.size < FEWEST or not np.isfinite(ratio).all():
        return None
    middle = float(np.median(ratio))
    noise = NEAR[scene.dtype] * 20 * abs(middle)
    if middle == 0 or np.max(np.abs(ratio - middle)) > noise or abs(middle - 1) < NEAR[scene.dtype] / 10:
        return None
    return round(middle) if abs(middle - round(middle)) < NEAR[scene.dtype] * abs(middle) else middle


def named(value: float, scene: Scene) -> str:
    """ ", which is sqrt(D)": the size of the op that explains a factor."""
    for size, formula in formulas(scene.dims):
        if abs(abs(value) - size) <= NEAR[scene.dtype] * size:
            return f", which is {'-' if value < 0 else ''}{formula}"
    return ""


def formulas(dims: Mapping[str, Any]) -> Iterator[tuple[float, str]]:
    sizes = {k: v for k, v in dims.items() if isinstance(v, int) and not isinstance(v, bool) and v > 2}
    if leading := dims.get("..."):
        sizes["rows"] = math.prod(leading)
    numbers = {k: v for k, v in dims.items() if isinstance(v, float) and v not in (0.0, 1.0)}
    for name, n in {**sizes, **numbers}.items():
        yield n, name
        yield 1 / n, f"1 / {name}"
    for name, n in sizes.items():
        yield math.sqrt(n), f"sqrt({name})"
        yield 1 / math.sqrt(n), f"1 / sqrt({name})"


def without_above(scene: Scene, name: str, one: Compared) -> str:
    """Whether the output's gradient was left out."""
    for above, value in scene.above.items():
        if value.shape == one.got.shape and scene.near(one.got * value, one.want):
            return f"{above} is not in it: got times {above} is the expected value"
    return ""


def constant(scene: Scene, name: str, one: Compared) -> str:
    """A difference that is the same everywhere."""
    with np.errstate(all="ignore"):
        differences = one.got.astype(np.float64) - one.want
        middle = float(np.median(differences))
        spread = float(np.max(np.abs(differences - middle)))
    if one.want.size < FEWEST or not np.isfinite(spread) or spread > 1e-3 * abs(middle):
        return ""
    return f"got is {middle:+.5g} from the expected value, everywhere"


def by_line(scene: Scene, name: str, one: Compared) -> str:
    """A factor that each row, or each column, has for itself."""
    if one.want.ndim < 2 or one.want.shape[-1] < 3:
        return ""
    got, want = (v.astype(np.float64).reshape(-1, v.shape[-1]) for v in (one.got, one.want))
    for side, a, b in (("row", got, want), ("column", got.T, want.T)):
        if len(a) < 2 or a.shape[1] < 3:
            continue
        with np.errstate(all="ignore"):
            along = (a * b).sum(1) / (b * b).sum(1)
        if np.isfinite(along).all() and np.ptp(along) > 0.01 and scene.near(a, along[:, None] * b):
            return f"each {side} is off by a factor of its own, {along.min():.3g} to {along.max():.3g}"
    return ""


Look = Callable[[Scene, str, Compared], str]
EVERYWHERE: tuple[Look, ...] = (
    everywhere_nothing, not_added, exchanged, transposed, factor, without_above, constant, by_line,
)  # fmt: skip
