"""The tokens of an example: the axis of each tensor that counts them, and parts of it, as each row's next token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from core.testing.compare import Array
from core.testing.trial import Trial


@dataclass(frozen=True)
class Tokens:
    """The axis of each input and output that counts tokens, their number, and the rows of the batch."""

    axes: Mapping[str, int]
    count: int
    rows: int

    def starts(self, at_once: int) -> list[Array]:
        """The positions at which the rows of the batch continue, for each call: all at 0, all at their last token, each
        at its own. With few tokens at once they are spread over all tokens, so that each row sees many cached ones."""
        rows, last = np.arange(self.rows, dtype=np.int32), self.count - 1
        staggered = last - rows * last // self.rows if at_once else rows % max(1, last)
        return [np.zeros_like(rows), np.full_like(rows, last), staggered.astype(np.int32)]

    def some(self, values: Mapping[str, Array | None], starts: Array, count: int) -> dict[str, Array | None]:
        """`values` with `count` tokens of each row, from the row's own start on."""
        return {n: v if v is None or n not in self.axes else self.cut(n, v, starts, count) for n, v in values.items()}

    def cut(self, name: str, value: Array, starts: Array, count: int) -> Array:
        """`count` tokens of each row of a tensor, from the row's own start on; after the last one, that one again."""
        axis = self.axes[name] - 1
        return np.stack(
            [value[b].take(range(s, s + count), axis=axis, mode="clip") for b, s in enumerate(starts.tolist())]
        )

    def mask(self, name: str, value: Array, counts: Array) -> Array:
        """Which elements of a tensor belong to the first `counts[b]` tokens of row b: bool, broadcast to the tensor."""
        axis, width = self.axes[name], value.shape[self.axes[name]]
        shape = (self.rows, *(width if a == axis else 1 for a in range(1, value.ndim)))
        return (np.arange(width) < counts[:, None]).reshape(shape)

    def causal(self, trial: Trial) -> bool:
        """Whether no token depends on later ones here, by the reference: else there is nothing to decode."""
        if self.count < 2 or not trial.op.sequential:
            return True
        truth, none = trial.truly(), np.zeros(self.rows, np.int32)
        values = self.some(truth.values, none, self.count - 1)
        shorter = truth.again(replace(trial.case, dims=trial.case.solve(values), extras={}), values).train().outputs
        whole = trial.truth().outputs
        return all(
            np.allclose(v, self.cut(n, whole[n], none, self.count - 1), rtol=1e-9, atol=1e-12)
            for n, v in shorter.items()
        )


def tokens_of(trial: Trial) -> Tokens | None:
    """The token axis of each tensor: "T" in the schema; of "...", the axis that T has in another tensor, or the last.

    None where nothing is decoded.
    """
    op, case = trial.op, trial.case
    inputs = [n for n in op.inputs if trial.values[n] is not None]
    if not op.gradient or "random" in op.uses or any(op.inputs[n].optional for n in inputs):
        return None
    axes: dict[str, int] = {}
    named = {name: case.axis(name, "T") for name in (*inputs, *op.outputs)}
    of_others = next((axis for axis in named.values() if axis is not None), len(case.dims.get("...", ())) - 1)
    for name, axis in named.items():
        if axis is None and case.pattern(name).leading:
            axis = of_others
        if axis is None or axis < 1:
            return None
        axes[name] = axis
    shape = case.spec(inputs[0], trial.dtype).shape
    return Tokens(axes, shape[axes[inputs[0]]], shape[0])
