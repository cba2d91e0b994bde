"""Parameter layout: one flat arena, the same element offsets for weights, gradients and moments.

Every parameter starts on a multiple of 64 elements; trainable ones are first, in stretches of one learning rate and
weight decay, and in each those that decay before those that do not. One byte per 64 elements has both flags, so that
one launch updates a whole stretch: all parameters, where the config makes no groups of them.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
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


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters by globs, with a learning rate or a weight decay of their own; None: that of all.

    lr_factor: of the step's learning rate.
    """

    match: tuple[str, ...]
    lr_factor: float | None = None
    weight_decay: float | None = None


@dataclass
class Stretch:
    """A range of the flat order, in elements, with one learning rate and one weight decay (None: the optimizer's)."""

    lr_factor: float
    weight_decay: float | None
    first: int
    last: int


class ParameterLayout:
    """The places of all parameters of a graph. `freeze` are globs of parameters that do not train; of several `groups`
    that match one, the last that gives a number decides.

    Raises UsageError for a glob that matches nothing, or nothing that trains.
    """

    def __init__(self, graph: Graph, freeze: Sequence[str] = (), groups: Sequence[ParameterGroup] = ()) -> None:
        frozen = {name for glob in freeze for name in matches(glob, graph.parameters, "[train] freeze")}
        trained = [name for name in graph.parameters if name not in frozen]
        own: dict[str, tuple[float, float | None]] = dict.fromkeys(graph.parameters, (1.0, None))
        for group in groups:
            for name in (n for glob in group.match for n in matches(glob, trained, "[[optimizer.groups]] match")):
                lr, decay = own[name]
                lr = lr if group.lr_factor is None else group.lr_factor
                own[name] = lr, decay if group.weight_decay is None else group.weight_decay
        rank = {pair: index for index, pair in enumerate(dict.fromkeys([(1.0, None), *own.values()]))}

        def decays(name: str) -> bool:
            decay = own[name][1]
            return graph.parameters[name].decay if decay is None else decay > 0

        def key(name: str) -> tuple[bool, int, bool]:
            return name in frozen, 0 if name in frozen else rank[own[name]], not decays(name)

        self.places: dict[str, Place] = {}
        self.stretches: list[Stretch] = []
        self.size = 0  # elements of the weights' arena
        self.trainable = 0  # elements of the gradients' and moments' arenas: the weights' first part
        for name in sorted(graph.parameters, key=key):  # stable
            place = Place(self.size, graph.parameters[name].shape, decays(name), name not in frozen)
            self.places[name] = place
            self.size += cdiv(place.size, GROUP) * GROUP
            if not place.trains:
                continue
            if not self.stretches or (self.stretches[-1].lr_factor, self.stretches[-1].weight_decay) != own[name]:
                self.stretches.append(Stretch(*own[name], self.trainable, self.trainable))
            self.trainable = self.stretches[-1].last = self.size

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


def matches(glob: str, names: Sequence[str] | Mapping[str, Any], where: str) -> list[str]:
    """The parameters that a glob matches; `*` crosses dots. UsageError for none."""
    matching = fnmatch.filter(names, glob)
    if not matching:
        what_trains = "" if isinstance(names, Mapping) else " that trains"
        raise UsageError(f'{where} "{glob}" matches no parameter{what_trains}{did_you_mean(glob, names)}')
    return matching


def trimmed(array: np.ndarray[Any, Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The part of `array` that is not padding; `shape` has the sizes before padding (core.expr.Padded)."""
    return array[tuple(slice(n) for n in trim(shape))]
