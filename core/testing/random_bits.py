"""Ops that use a random key: key and place determine every bit, for any batch; without a key nothing is random.

Recomputing, resuming and other numbers of micro-steps rely on it. The key is (seed, node, step, first), and `first`
counts the rows of the op's first input (all its sizes but the last) in the part of the step before this batch. An op
that draws more than one row of numbers for a row of its first input repeats them from micro-step to micro-step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from core.testing.compare import Array
from core.testing.log import Log, compare, no_excuse, trained
from core.testing.trial import PLAIN, Trial


def check_random(log: Log, trial: Trial) -> None:
    """Without a key as the reference; under another key other bits; a part of the batch alone as in the whole."""
    key = trial.case.extras.get("key")
    whole = trained(log, "random", trial, PLAIN) if key is not None else None
    if key is None or whole is None:
        return
    with log.caught("random"):
        truth = keyed(trial.truly(), None)
        for name, value in keyed(trial, None).items():
            compare(log, "random", trial, name, value, truth[name], " (without a key)", no_excuse)
        if any(n.size > 99 and np.count_nonzero(n == 0) for n in whole.outputs.values()):
            other = keyed(trial, key + np.array([1, 0, 0, 0], np.uint32))
            same = all(v.tobytes() == whole.outputs[n].tobytes() for n, v in other.items())
            log.verdict("random", not same, "another seed in the key gives the same bits")
        batch = batch_of(trial)
        for row in range(1, batch.size):
            later = key + np.array([0, 0, 0, row * batch.rows], np.uint32)
            for name, value in keyed(trial, later, batch, row).items():
                if name not in batch.tensors:
                    continue
                same = value.tobytes() == np.ascontiguousarray(whole.outputs[name][row:]).tobytes()
                log.verdict(
                    "random",
                    same,
                    f"{name}: rows from {row} on differ when they are a batch of their own, {row * batch.rows} rows of "
                    f"{next(iter(trial.op.inputs))} later",
                )


@dataclass(frozen=True)
class BatchAxis:
    """The axis along which a batch can be divided. dim: its name, "..." for the first of the leading sizes. size: its
    length.
    rows: those of the op's first input in each. tensors: inputs and outputs that have it as their first axis."""

    dim: str = ""
    size: int = 1
    rows: int = 1
    tensors: frozenset[str] = frozenset()


def batch_of(trial: Trial) -> BatchAxis:
    """Along the first axis of the op's first input; nothing where that is no batch, or some tensor has it elsewhere."""
    patterns = {n: trial.case.pattern(n) for n in (*trial.op.inputs, *trial.op.outputs)}
    first = next(iter(trial.op.inputs), "")
    value, pattern = trial.values.get(first), patterns.get(first)
    if value is None or pattern is None or value.ndim < 2 or (pattern.leading and not trial.case.dims.get("...")):
        return BatchAxis()
    dim = "..." if pattern.leading else pattern.tokens[0]
    axes = {n: ("...", *p.tokens) if p.leading else p.tokens for n, p in patterns.items()}
    if not (dim == "..." or dim.isidentifier()) or any(dim in token for a in axes.values() for token in a[1:]):
        return BatchAxis()
    tensors = frozenset(n for n, a in axes.items() if a[:1] == (dim,))
    return BatchAxis(dim, value.shape[0], math.prod(value.shape[1:-1]), tensors)


def keyed(trial: Trial, key: Array | None, batch: BatchAxis | None = None, row: int = 0) -> dict[str, Array]:
    """Forward under another key, of the batch from `row` on."""
    extras: dict[str, Any] = {**trial.case.extras, "key": key}
    dims, values = dict(trial.case.dims), dict(trial.values)
    if batch is not None:
        size = batch.size - row
        dims[batch.dim] = (size, *dims["..."][1:]) if batch.dim == "..." else size
        values |= {n: v[row:] for n, v in values.items() if v is not None and n in batch.tensors}
    return trial.again(replace(trial.case, extras=extras, dims=dims), values).train().outputs
