"""Optimizer state of a checkpoint that several ranks wrote: a file of each rank, read as one.

    optimizer-00001-of-00002.safetensors   "<state>.<parameter>", of the slice of rank 0: in the parameter's shape, or
                                           (elements,) where the slice has a part of it
    __metadata__                           of such a part, under the tensor's name: "first:last", its range among the
                                           parameter's elements

The ranges of a parameter follow one another, so that any number of ranks reads the files of any other number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.by_name import ByName
from core.checkpoint.tensor_file import TensorFile
from core.errors import CheckpointError

Array = np.ndarray[Any, Any]
RANGE = re.compile(r"(\d{1,18}):(\d{1,18})")


@dataclass(frozen=True)
class Part:
    """A tensor of a file, with the elements first to last of a parameter."""

    file: TensorFile
    tensor: str
    first: int
    last: int


def joined(parts: Mapping[str, Sequence[Part]], shapes: Mapping[str, tuple[int, ...]]) -> ByName:
    """One state of all parameters, each of its shape, joined at its use."""

    def read(name: str) -> Array:
        arrays = [part.file[part.tensor].reshape(-1) for part in parts[name]]
        return (arrays[0] if len(arrays) == 1 else np.concatenate(arrays)).reshape(shapes[name])

    return ByName(parts, read)


def join(files: Sequence[TensorFile], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Mapping[str, Array]]:
    """state -> parameter -> array, of all files. shapes: of the parameters. CheckpointError where parts are missing or
    are there twice, and for a parameter that the model does not have."""
    states: dict[str, dict[str, list[Part]]] = {}
    for file in files:
        for tensor in file:
            state, dot, name = tensor.partition(".")
            if not dot:
                raise CheckpointError(f'{file.path}: tensor "{tensor:.100}" is not named <state>.<parameter>')
            if name not in shapes:
                raise CheckpointError(f'{file.path}: tensor "{tensor:.100}" is of no parameter of the model')
            states.setdefault(state, {}).setdefault(name, []).append(_part(file, tensor, shapes[name]))
    for tensors in states.values():
        for name, parts in tensors.items():
            parts.sort(key=lambda part: part.first)
            _check_cover(parts, shapes[name])
    return {state: joined(tensors, shapes) for state, tensors in states.items()}


def _part(file: TensorFile, tensor: str, shape: tuple[int, ...]) -> Part:
    text = file.metadata.get(tensor)
    if text is None:
        if file.shapes[tensor] != tuple(shape):
            raise CheckpointError(
                f'{file.path}: tensor "{tensor:.100}" has shape {list(file.shapes[tensor])}, and its parameter has '
                f"{list(shape)}"
            )
        return Part(file, tensor, 0, math.prod(shape))
    match = RANGE.fullmatch(text)
    first, last = (int(match[1]), int(match[2])) if match else (0, -1)
    if file.shapes[tensor] != (last - first,):
        raise CheckpointError(
            f'{file.path}: tensor "{tensor:.100}" of shape {list(file.shapes[tensor])} has the range {text!r:.100}; '
            "expected first:last of as many elements"
        )
    return Part(file, tensor, first, last)


def _check_cover(parts: Sequence[Part], shape: tuple[int, ...]) -> None:
    at = 0
    for part in parts:
        if part.first != at:
            raise CheckpointError(
                f'{part.file.path}: tensor "{part.tensor:.100}" begins at element {part.first:,}, expected {at:,}: '
                "the files of all ranks make up each parameter once"
            )
        at = part.last
    if at != math.prod(shape):
        last = parts[-1]
        raise CheckpointError(
            f'{last.file.path}: tensor "{last.tensor:.100}" ends at element {at:,}, and its parameter has '
            f"{math.prod(shape):,}"
        )
