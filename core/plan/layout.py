"""Parameter layout: one flat arena, the same element offsets for weights, gradients and moments.

Every parameter starts on a multiple of 64 elements; trainable ones come first, and among them those that decay
before those that do not. One byte per 64 elements has both flags, so that one launch updates all parameters.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.errors import UsageError, did_you_mean
from core.expr import cdiv, trim
from core.graph import Graph

GROUP = 64  # elements per group byte; a slice at a multiple of it is a shard
DECAYS, TRAINS = 1, 2  # bits of a group byte


@dataclass(frozen=True)
class Place:
    """A parameter's place in the flat arenas, in elements."""

    offset: int
    shape: tuple[int, ...]
    decay: bool
    trains: bool

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class ParameterLayout:
    """The places of all parameters of a graph. `freeze` are globs of parameters that do not train.

    Raises UsageError for a glob that matches nothing.
    """

    def __init__(self, graph: Graph, freeze: Sequence[str] = ()) -> None:
        for pattern in freeze:
            if not fnmatch.filter(graph.parameters, pattern):
                raise UsageError(
                    f'[train] freeze "{pattern}" matches no parameter{did_you_mean(pattern, graph.parameters)}'
                )
        frozen = {p for p in graph.parameters if any(fnmatch.fnmatchcase(p, f) for f in freeze)}
        order = sorted(graph.parameters.values(), key=lambda p: (p.name in frozen, not p.decay))  # stable
        self.places: dict[str, Place] = {}
        self.size = 0  # elements of the weights' arena
        self.trainable = 0  # elements of the gradients' and moments' arenas: the weights' first part
        for parameter in order:
            trains = parameter.name not in frozen
            place = Place(self.size, parameter.shape, parameter.decay, trains)
            self.places[parameter.name] = place
            self.size += cdiv(place.size, GROUP) * GROUP
            if trains:
                self.trainable = self.size

    def groups(self, first: int, last: int, without: Iterable[str] = ()) -> np.ndarray[Any, Any]:
        """One byte per 64 of the elements `first` to `last`, multiples of 64: DECAYS and TRAINS. without: parameters
        that are to have neither."""
        groups, none = np.zeros((last - first) // GROUP, np.uint8), set(without)
        for name, place in self.places.items():
            byte = (DECAYS if place.decay else 0) | (TRAINS if place.trains else 0)
            start, stop = place.offset - first, place.offset + place.size - first
            if stop > 0 and name not in none:
                groups[max(start, 0) // GROUP : cdiv(stop, GROUP)] = byte
        return groups


def trimmed(array: np.ndarray[Any, Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The part of `array` that is not padding; `shape` carries what was padded (core.expr.Padded)."""
    return array[tuple(slice(n) for n in trim(shape))]
