"""Loading: parameters and optimizer state from arrays by name into the flat arenas of a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from core.dtypes import resolve
from core.engine.store import Array, ParameterStore
from core.errors import BuildError
from core.expr import trim
from core.kernels.tensors import check_range
from core.plan import trimmed


def load_parameters(store: ParameterStore, values: Mapping[str, Array]) -> None:
    """Set all parameters. Raises BuildError unless names and shapes are exactly ours, NumericsError for a weight that
    the store's precision has no number for."""
    _check(store, values, list(store.graph.parameters), f"parameters of {store.graph.name}")
    dtype = resolve(None, store.precision)
    for name in store.graph.parameters:
        value = values[name]
        check_range(value, dtype, f"parameter {name}")
        _write(store, store.weights, name, value)
    if store.master is not None:
        for name in store.trainable():
            _write_own(store, store.master, name, values)


def load_optimizer_state(store: ParameterStore, values: Mapping[str, Mapping[str, Array]]) -> None:
    """Set the optimizer's tensors. Raises BuildError unless states, names and shapes are exactly ours."""
    if set(values) != set(store.states):
        raise BuildError(f"optimizer state: expected {sorted(store.states)}, got {sorted(values)}")
    for state in store.states:
        _check(store, values[state], store.trainable(), f"optimizer state {state}")
    for state, flat in store.states.items():
        for name in store.trainable():
            _write_own(store, flat, name, values[state])


def load_gradients(store: ParameterStore, values: Mapping[str, Array]) -> None:
    """Set the gradients. Raises BuildError unless names and shapes are exactly those of the trainable parameters."""
    _check(store, values, store.trainable(), f"gradients of {store.graph.name}")
    for name in store.trainable():
        _write(store, store.grads, name, values[name])


def _write_own(store: ParameterStore, flat: Any, name: str, values: Mapping[str, Array]) -> None:
    """Write a parameter's elements into an arena that may have a slice of them, or none."""
    if not store.slices:
        _write(store, flat, name, values[name])
        return
    from core.engine.slice_pieces import write_piece  # of runs on several ranks

    write_piece(store, flat, name, values)


def _write(store: ParameterStore, flat: Any, name: str, values: Array) -> None:
    tensor, shape = store.place(flat, name), store.layout.places[name].shape
    if values.shape == shape:
        store.device.upload(tensor, values)
    elif isinstance(tensor, np.ndarray):
        trimmed(tensor, shape)[...] = values
    else:
        padded = np.zeros(shape, values.dtype)
        trimmed(padded, shape)[...] = values
        store.device.upload(tensor, padded)


def _check(store: ParameterStore, values: Mapping[str, Array], names: Sequence[str], action: str) -> None:
    missing, extra = sorted(set(names) - set(values)), sorted(set(values) - set(names))
    problems = [
        f"{label} {', '.join(differing[:5])}{' ...' if len(differing) > 5 else ''}"
        for label, differing in (("missing", missing), ("unexpected", extra))
        if differing
    ]
    if problems:
        raise BuildError(f"{action}: {'; '.join(problems)}")
    shapes = getattr(values, "shapes", None)  # known without reading
    for name in names:
        expected = trim(store.layout.places[name].shape)
        shape = tuple(shapes[name] if shapes is not None else values[name].shape)
        if shape != expected:
            raise BuildError(f"{action}: {name} has shape {shape}, expected {expected}")
