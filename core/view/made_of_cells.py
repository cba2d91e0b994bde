"""Dependencies of an element in the form that a page evaluates: rows and columns of other tensors' matrices.

A reference's `parts` answers for one element. Tensors are drawn as matrices, the last axis across. For each tensor of
the answer there are boxes, each with `rows` and `columns`: "r" and "c" for the element's own row and column, "f" for
its number in the whole matrix, "*" for all, {"r": [...]} and {"c": [...]} for ranges by that row or column, in SIDE
equal pieces. Where no such rules describe a tensor there is a table instead: {"boxes": [[...], ...], "grid": [[...]]},
the number of a list of boxes for each of at most TABLE x TABLE pieces of the matrix, each with the parts of its middle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.op.parts import Ranges, boxes_of
from core.op.variant import Reference

SIDE, TABLE = 64, 32
PROBES, SCATTERED = 5, 40  # places of each axis at which a rule is tried, and others
Place = tuple[int, int]
Places = NDArray[np.int64]
Span = tuple[int, int]  # from and to, the end left out
Box = tuple[tuple[Span, ...], tuple[Span, ...]]  # rows, columns
Shapes = Mapping[str, tuple[int, ...]]


class Stated:
    """A reference's statements on a tensor's elements, by their places in its matrix."""

    def __init__(self, reference: Reference, t: Any, tensor: str, shapes: Shapes) -> None:
        self.reference, self.t, self.tensor, self.shapes = reference, t, tensor, shapes
        self.size = matrix_size(shapes[tensor])
        self.by_contents = any(np.issubdtype(getattr(value, "dtype", float), np.integer) for value in vars(t).values())
        self._answers: dict[Place, dict[str, list[Box]] | None] = {}

    def at(self, place: Place) -> dict[str, list[Box]] | None:
        """Tensor -> boxes; None where nothing is stated. Raises BuildError for a wrong answer."""
        if place not in self._answers:
            parts = self.reference.parts(self.t, self.tensor, unravelled(place, self.shapes[self.tensor]))
            boxes = {} if parts is None else boxes_of(parts, self.shapes)
            made = {name: [as_box(ranges, self.shapes[name]) for ranges in held] for name, held in boxes.items()}
            self._answers[place] = None if parts is None else made
        return self._answers[place]

    def probed(self) -> dict[Place, dict[str, list[Box]]]:
        """The answers at places all over the matrix; {} where one is None."""
        rows, columns = self.size
        places = [(i, j) for i in probes(rows) for j in probes(columns)]
        places += [(71 * k % rows, 43 * k % columns) for k in range(SCATTERED)]
        answers = {place: self.at(place) for place in places}
        complete = {place: held for place, held in answers.items() if held is not None}
        return complete if len(complete) == len(answers) else {}


def rules_of(reference: Reference, t: Any, tensor: str, shapes: Shapes) -> dict[str, Any]:
    """Tensor -> boxes, or a table, of its elements on which those of `tensor` depend; {} without a statement.

    There is no row either where contents decide and a piece of the table has several rows.

    t: the tensors of the launcher; shapes: of all of them, of the target too. Raises BuildError for a wrong answer.
    """
    stated = Stated(reference, t, tensor, shapes)
    if not all(stated.size):
        return {}
    answers = stated.probed()
    rules = {}
    for name in dict.fromkeys(name for held in answers.values() for name in held):
        made = rules_for(name, {place: held.get(name, []) for place, held in answers.items()}, stated)
        if made is None:
            return tables_of(stated)
        rules[name] = made
    return rules


def tables_of(stated: Stated) -> dict[str, Any]:
    """Tensor -> its table."""
    if stated.by_contents and max(stated.size) > TABLE:
        return {}
    middles = [middles_of(size, TABLE) for size in stated.size]
    answers = [[stated.at((i, j)) or {} for j in middles[1]] for i in middles[0]]
    tables: dict[str, Any] = {}
    for name in dict.fromkeys(name for row in answers for held in row for name in held):
        numbers: dict[tuple[Box, ...], int] = {}
        grid = [[numbers.setdefault(tuple(held.get(name, ())), len(numbers)) for held in row] for row in answers]
        boxes = [[{"rows": list(rows), "columns": list(columns)} for rows, columns in held] for held in numbers]
        tables[name] = {"boxes": boxes, "grid": grid}
    return tables


def middles_of(size: int, most: int) -> list[int]:
    """The middles of at most `most` equal pieces of an axis."""
    pieces = min(most, size)
    return [(2 * k + 1) * size // (2 * pieces) for k in range(pieces)]


def rules_for(name: str, boxes: Mapping[Place, Sequence[Box]], stated: Stated) -> list[dict[str, Any]] | None:
    """The rules of one tensor's boxes; None where some axis of some box follows none."""
    count = len(next(iter(boxes.values())))
    if any(len(held) != count for held in boxes.values()):
        return None
    size, rules = matrix_size(stated.shapes[name]), []
    for number in range(count):
        rule = {}
        for axis, label in enumerate(("rows", "columns")):
            spans = {place: held[number][axis] for place, held in boxes.items()}
            rule[label] = plain_rule(spans, size[axis], stated.size) or listed_rule(spans, (name, number, axis), stated)
        if None in rule.values():
            return None
        rules.append(rule)
    return rules


def plain_rule(spans: Mapping[Place, tuple[Span, ...]], size: int, target: Place) -> str | None:
    """ "*", "r", "c" or "f" where all spans follow it."""
    if all(held == ((0, size),) for held in spans.values()):
        return "*"
    for axis, label in enumerate("rc"):
        if target[axis] == size and all(held == ((p[axis], p[axis] + 1),) for p, held in spans.items()):
            return label
    if target[0] * target[1] == size and all(held == joined(flat(p, target)) for p, held in spans.items()):
        return "f"
    return None


def flat(place: Place, target: Place) -> Places:
    """The number of an element, (1,)."""
    return np.array([place[0] * target[1] + place[1]])


def listed_rule(
    spans: Mapping[Place, tuple[Span, ...]], which: tuple[str, int, int], stated: Stated
) -> dict[str, list[list[Span]]] | None:
    """The spans by row or by column, in SIDE pieces. Where contents decide, a piece has one row or column."""
    name, number, side = which
    for axis, label in enumerate("rc"):
        size = stated.size[axis]
        if not follows(spans, axis) or (stated.by_contents and size > SIDE):
            continue
        places = [(m, 0) if axis == 0 else (0, m) for m in middles_of(size, SIDE)]
        held = [(stated.at(place) or {}).get(name, []) for place in places]
        if all(len(boxes) > number for boxes in held):
            return {label: [list(boxes[number][side]) for boxes in held]}
    return None


def follows(spans: Mapping[Place, tuple[Span, ...]], axis: int) -> bool:
    """Whether spans depend on that coordinate of the place alone."""
    by: dict[int, tuple[Span, ...]] = {}
    return all(by.setdefault(place[axis], held) == held for place, held in spans.items())


# --- tensors as matrices -------------------------------------------------------------------------------------------


def matrix_size(shape: Sequence[int]) -> Place:
    """(rows, columns) of a tensor's matrix: the last axis across, all others down."""
    return math.prod(shape[:-1]), shape[-1] if shape else 1


def unravelled(place: Place, shape: Sequence[int]) -> tuple[int, ...]:
    """The index of the element at a place of the matrix."""
    if not shape:
        return ()
    row, index = place[0], [place[1]]
    for size in reversed(shape[:-1]):
        row, at = divmod(row, size)
        index.append(at)
    return tuple(reversed(index))


def probes(size: int) -> list[int]:
    """Places of an axis, the first and the last one among them."""
    return sorted({round(k * (size - 1) / (PROBES - 1)) for k in range(PROBES)})


def as_box(ranges: Ranges, shape: Sequence[int]) -> Box:
    """A box of a tensor as rows and columns of its matrix."""
    if not shape:
        return ((0, 1),), ((0, 1),)
    rows = np.zeros(1, np.int64)
    for size, axis in zip(shape[:-1], ranges[:-1], strict=True):
        rows = (rows[:, None] * size + np.arange(axis.start, axis.stop, axis.step)).reshape(-1)
    return joined(rows), joined(np.arange(ranges[-1].start, ranges[-1].stop, ranges[-1].step))


def joined(places: Places) -> tuple[Span, ...]:
    """Ascending places (n,) as spans."""
    edges = np.flatnonzero(np.diff(places) != 1)
    starts = places[np.concatenate([[0], edges + 1])]
    stops = places[np.concatenate([edges, [-1]])] + 1
    return tuple(zip(starts.tolist(), stops.tolist(), strict=True))
