"""Parameters and optimizer state in slices: the pieces that a rank has, by name and without padding.

A slice of the flat order may begin or end within a parameter. Such a piece is known by its range among the elements of
the parameter without padding, in their order; so files of any slices make up the whole again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.by_name import ByName
from core.engine.store import Array, ParameterStore
from core.errors import BuildError
from core.expr import trim
from core.op import Optimizer
from core.plan import ParameterLayout, Place, trimmed
from core.ranks.group import Ranks
from core.ranks.slices import Slices, cut_at_chunks, cut_between

BLOCK = 1 << 24  # elements that travel at a time


def slices_of(
    layout: ParameterLayout, optimizer: Optimizer, ranks: Ranks, collective: Callable[[str], str] | None
) -> Slices | None:
    """The slices of the trainable elements: at chunks, or between parameters for an optimizer that needs whole ones.
    None where nothing trains.

    collective: the op for "gather"; None where nothing runs. Raises BuildError where there are fewer slices than ranks.
    """
    if not layout.trainable:
        return None
    gather = collective("gather") if collective else ""
    try:
        if optimizer.whole:
            starts = sorted(place.offset for place in layout.places.values() if place.trains)
            return Slices(cut_between(starts, layout.trainable, ranks.size), ranks, gather)
        return Slices(cut_at_chunks(layout.trainable, ranks.size), ranks, gather)
    except BuildError as error:
        raise BuildError(
            f"[train] shard: {optimizer.name} cannot have a slice on each rank: {error.message}",
            hint="--set train.shard=false gives every rank all of the optimizer's state, or take fewer ranks",
        ) from None


class NotWhole(Sequence[Any]):
    """`p.parameters` where slices may cut parameters: an error for the optimizer that reads it."""

    def __init__(self, optimizer: str) -> None:
        self._error = BuildError(
            f"optimizer {optimizer} uses p.parameters, and the slices of this run may cut parameters",
            hint="`whole = True` in its class has them cut between parameters; --set train.shard=false cuts none",
        )

    def __len__(self) -> int:
        raise self._error

    def __getitem__(self, index: Any) -> Any:
        raise self._error


# --- pieces ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SlicePiece:
    """The part of a parameter within a slice.

    start, stop: its padded elements. first, last: the same without padding, where those before it are not counted.
    """

    place: Place
    start: int
    stop: int
    first: int
    last: int

    @property
    def whole(self) -> bool:
        """Whether it is all of the parameter."""
        return self.stop - self.start == self.place.size

    def unpadded(self, elements: Array) -> Array:
        """These padded elements, (stop - start,), without padding: (last - first,), or the parameter's shape."""
        if self.whole:
            return trimmed(elements.reshape(self.place.shape), self.place.shape)
        prefix = _prefix(self.place)
        if prefix is not None:
            return elements[: self.last - self.first]
        return elements[_real(self.place)[self.start : self.stop]]

    def padded(self, values: Array) -> Array:
        """The padded elements, (stop - start,), of a parameter's values in its shape without padding."""
        shape = self.place.shape
        if tuple(values.shape) != tuple(shape):
            real = np.zeros(shape, values.dtype)
            trimmed(real, shape)[...] = values
            values = real
        return np.ascontiguousarray(values).reshape(-1)[self.start : self.stop]


def _prefix(place: Place) -> int | None:
    """The number of elements without padding, where padding is after all of them; None where it is in between."""
    sizes = trim(place.shape)
    rest = tuple(place.shape[1:])
    return sizes[0] * int(np.prod(rest)) if place.shape and tuple(sizes[1:]) == rest else None


def _real(place: Place) -> Array:
    """(elements with padding,) bool: which are none."""
    real = np.zeros(place.shape, bool)
    trimmed(real, place.shape)[...] = True
    return real.reshape(-1)


def piece_of(place: Place, first: int, last: int) -> SlicePiece | None:
    """The part of a parameter within the elements `first` to `last` of the flat order; None without any."""
    start, stop = max(first - place.offset, 0), min(last - place.offset, place.size)
    if start >= stop:
        return None
    prefix = _prefix(place)
    if prefix is not None:
        return SlicePiece(place, start, stop, min(start, prefix), min(stop, prefix))
    real = _real(place)
    before = int(np.count_nonzero(real[:start]))
    return SlicePiece(place, start, stop, before, before + int(np.count_nonzero(real[start:stop])))


def own_pieces(store: ParameterStore) -> dict[str, SlicePiece]:
    """The pieces of this rank's slice by parameter, in the graph's order."""
    places = store.layout.places
    pieces = {name: piece_of(places[name], store.first, store.last) for name in store.trainable()}
    return {name: piece for name, piece in pieces.items() if piece is not None and piece.first < piece.last}


def _own(store: ParameterStore, flat: Any, piece: SlicePiece) -> Any:
    """The tensor of a piece within a flat slice."""
    at = piece.place.offset + piece.start - store.first
    return flat[at : at + piece.stop - piece.start]


def _download(store: ParameterStore, tensor: Any) -> Array:
    return tensor if isinstance(tensor, np.ndarray) else store.device.download(tensor)


def write_piece(store: ParameterStore, flat: Any, name: str, values: Mapping[str, Array]) -> None:
    """Write this rank's elements of a parameter, of which `values` has all, into a flat slice."""
    piece = piece_of(store.layout.places[name], store.first, store.last)
    if piece is not None:
        store.device.upload(_own(store, flat, piece), piece.padded(values[name]))


class SlicedStore(ParameterStore):
    """A store of which this rank updates a slice."""

    def optimizer_state(self) -> dict[str, Mapping[str, Array]]:
        """state -> parameter -> its elements that are here: (elements,), or the parameter's shape where all are."""
        pieces = own_pieces(self)

        def reader(flat: Any) -> Mapping[str, Array]:
            return ByName(pieces, lambda name: pieces[name].unpadded(_download(self, _own(self, flat, pieces[name]))))

        return {state: reader(flat) for state, flat in self.states.items()}

    def zero_gradients(self) -> list[str]:
        """Trainable parameters whose gradient, summed over ranks, is exactly zero. All ranks call it."""
        names, own = self.trainable(), own_pieces(self)
        spans = {name: piece.place.offset + piece.start for name, piece in own.items()}
        here = [n in own and self.any(spans[n], spans[n] + own[n].stop - own[n].start) for n in names]
        assert self.slices is not None
        anywhere = self.slices.ranks.agree([float(one) for one in here], "max")
        return [name for name, one in zip(names, anywhere, strict=True) if not one]


# --- master weights of all ranks -----------------------------------------------------------------------------------


class GatheredParameters(Mapping[str, Array]):
    """All parameters in full precision, unpadded, on rank 0, from the master weights of all ranks.

    A lookup of one that trains is made by all ranks together, once for each name and in order: the others call `serve`,
    and rank 0 `serve` too, once it has read enough. `shapes` is known without.
    """

    def __init__(self, store: ParameterStore) -> None:
        assert store.slices is not None
        self._store, self._ranks = store, store.slices.ranks
        self._waiting = [name for name in store.graph.parameters if self._cut(name)]
        self.shapes = {name: trim(store.layout.places[name].shape) for name in store.graph.parameters}

    def _cut(self, name: str) -> bool:
        return self._store.master is not None and self._store.layout.places[name].trains

    def __len__(self) -> int:
        return len(self.shapes)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __getitem__(self, name: str) -> Array:
        if not self._cut(name):
            return self._store.parameters()[name]
        if not self._waiting or self._waiting[0] != name:
            raise BuildError(f"{name} is read out of turn: parameters of several ranks are read once, in order")
        place = self._store.layout.places[self._waiting.pop(0)]
        whole = np.empty(place.size, np.float32)
        for start, parts in self._exchange(place):
            joined = np.frombuffer(b"".join(parts), np.float32)
            whole[start : start + joined.size] = joined
        return trimmed(whole.reshape(place.shape), place.shape)

    def outline(self, name: str) -> Array:
        """An array of a parameter's shape and dtype, without its contents."""
        return np.broadcast_to(np.float32(0), self.shapes[name]) if self._cut(name) else self[name]

    def serve(self) -> None:
        """Give the others the rest of their reads."""
        while self._waiting:
            for _ in self._exchange(self._store.layout.places[self._waiting.pop(0)]):
                pass

    def _exchange(self, place: Place) -> Iterator[tuple[int, list[bytes]]]:
        """(first element, each rank's elements from there) of a parameter, block by block."""
        store = self._store
        for start in range(0, place.size, BLOCK):
            stop = min(start + BLOCK, place.size)
            first, last = max(place.offset + start, store.first), min(place.offset + stop, store.last)
            own: Any = store.master
            own = own[first - store.first : last - store.first] if first < last else None
            yield start, self._ranks.gather(b"" if own is None else _download(store, own).tobytes())
