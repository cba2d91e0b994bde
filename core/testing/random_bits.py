"""Ops that use a random key: the key and the place settle everything, whatever the batch; without one, nothing is.

Recomputing, resuming and other numbers of devices rely on it. The key is (seed, node, step, first), and `first` counts
the rows (tokens) of the whole step that come before this batch.
"""

from __future__ import annotations

import math
from dataclasses import replace
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
        batch, *rest = trial.case.dims.get("...") or (1,)
        for row in range(1, batch):
            later = key + np.array([0, 0, 0, row * math.prod(rest)], np.uint32)
            for name, value in keyed(trial, later, row).items():
                same = value.tobytes() == np.ascontiguousarray(whole.outputs[name][row:]).tobytes()
                log.verdict("random", same, f"{name}: rows from {row} on differ when they are a batch of their own")


def keyed(trial: Trial, key: Array | None, row: int = 0) -> dict[str, Array]:
    """Forward under another key, of the batch from `row` on."""
    extras: dict[str, Any] = {**trial.case.extras, "key": key}
    dims = dict(trial.case.dims)
    if row:
        dims["..."] = (dims["..."][0] - row, *dims["..."][1:])
    values = {n: v if v is None or n in trial.op.params else v[row:] for n, v in trial.values.items()}
    return trial.again(replace(trial.case, extras=extras, dims=dims), values).train().outputs
