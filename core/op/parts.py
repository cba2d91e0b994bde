"""Dependencies of an element: the answers of `Reference.parts`, and the table `made_of` that most of them follow from.

An answer is a dictionary: tensor -> a box of its elements, or a list of boxes. A box has an index or a slice for each
axis, and may have `...` for whole axes, as in NumPy's indexing: `(3, slice(None))` is row 3 of a matrix. The element
does not depend on a tensor that is not in the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import EllipsisType
from typing import Any

from core.errors import BuildError
from core.op.definition import Op
from core.op.shape_pattern import Pattern

Index = tuple[int, ...]
Box = tuple[int | slice | EllipsisType, ...]
Parts = dict[str, Box | list[Box]]
Ranges = tuple[range, ...]  # a box in a tensor of a shape: the indices of each axis

SOURCE = re.compile(r"([A-Za-z_]\w*)(?:\(([^()]*)\))?")
LEADING = "..."


def sources_of(line: str) -> Iterator[tuple[str, frozenset[str]]]:
    """(tensor, the dims that are taken whole) for each word of a line of `made_of`: `"x(C) weight"`. Raises BuildError
    for anything else."""
    if SOURCE.sub("", line).strip():
        raise BuildError(f'made_of has "{line}"; expected tensors, with the dims that are taken whole: "x(C) weight"')
    for name, whole in SOURCE.findall(line):
        yield name, frozenset(whole.replace(",", " ").split())


def by_dims(line: str, tensor: str, index: Index, pattern_of: Callable[[str], Pattern]) -> Parts:
    """The parts of element `index` of `tensor`, by its line of `made_of`.

    A dim that a source shares with the tensor has the element's own index there. All other dims are taken whole, and so
    is a shared one that the line names after the source, `...` for the leading dims.
    """
    target = pattern_of(tensor)
    leading = len(index) - len(target.tokens)
    own = dict(zip(target.tokens, index[leading:], strict=True))
    parts: Parts = {}
    for name, whole in sources_of(line):
        pattern, box = pattern_of(name), list[int | slice | EllipsisType]()
        if pattern.leading:
            box += index[:leading] if target.leading and LEADING not in whole else [...]
        box += [slice(None) if token in whole else own.get(token, slice(None)) for token in pattern.tokens]
        parts[name] = tuple(box)
    return parts


def pattern_in(op: Op, saved: Mapping[str, str], name: str) -> Pattern:
    """The pattern of a tensor of an op's reference: of the schema, saved, or a gradient by its `d` name; no dims for
    `step`, the control record. Raises BuildError for any other name."""
    slots = {n: slot.pattern for n, slot in (*op.inputs.items(), *op.outputs.items())} | op.param_patterns
    for key in (name, name[1:] if name.startswith("d") else name):
        if key in slots:
            return slots[key]
    if name in saved:
        return Pattern.parse(saved[name], f"{op.name}, saved {name}")
    if name == "step" and name in op.uses:
        return Pattern.parse("")
    names = [*slots, *saved, *("d" + n for n in slots)]
    raise BuildError(f'{op.name}: made_of names "{name}", which is not a tensor of it; it has {", ".join(names)}')


def ranges_of(box: Sequence[Any], shape: tuple[int, ...]) -> Ranges:
    """A box as the indices of each axis of a tensor of `shape`. Raises BuildError where it does not fit."""
    box = tuple(box)
    at = next((place for place, axis in enumerate(box) if axis is ...), None)
    if at is not None:
        box = (*box[:at], *[slice(None)] * (len(shape) - len(box) + 1), *box[at + 1 :])
    if len(box) != len(shape):
        raise BuildError(f"the box {box} has {len(box)} axes, and the tensor has the shape {shape}")
    ranges = []
    for axis, size in zip(box, shape, strict=True):
        ranges.append(range(size)[axis] if isinstance(axis, slice) else range(int(axis), int(axis) + 1))
        if not isinstance(axis, slice) and not 0 <= axis < size:
            raise BuildError(f"the box {box} is outside of a tensor of the shape {shape}")
    return tuple(ranges)


def boxes_of(parts: Parts, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, list[Ranges]]:
    """Every tensor's boxes as indices of each axis; the empty ones are left out. Raises BuildError for a tensor that
    has no shape in `shapes`, and a box that does not fit its shape."""
    boxes: dict[str, list[Ranges]] = {}
    for name, answer in parts.items():
        if name not in shapes:
            raise BuildError(f'parts name "{name}", and there is {", ".join(shapes)}')
        ranges = [ranges_of(box, shapes[name]) for box in (answer if isinstance(answer, list) else [answer])]
        boxes[name] = [box for box in ranges if all(len(axis) for axis in box)]
    return {name: held for name, held in boxes.items() if held}
