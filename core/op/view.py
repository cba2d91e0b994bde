"""`t`, the first argument of a launcher: tensors by schema name, dims, attributes and flags."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.dtypes import NUMPY
from core.errors import did_you_mean
from core.step_record import MASKS, StepRecord, mask


class Tensors:
    """`t`: tensors and parameters by schema name, gradients with `d`, saved ones, attrs, dims and flags.

    On the cpu the tensors are NumPy arrays. `t.rows` is the product of `...`. Only tensors that the variant declared
    are here: backward sees its saved tensors, its `reads`, and gradients, so that nothing can be read by accident.

    On the cpu an update's `t.step` is a StepRecord, and with an input `group` it has `t.trains` and `t.decays`: a bool
    for each of the n elements.
    """

    config: dict[str, Any]  # the tile candidate that was chosen
    slices: Any = None  # of the flat arenas, for an op that uses them in an update over several ranks

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in MASKS and "group" in self.__dict__:
            return mask(self.group, name, self.n)
        visible = sorted(n for n in self.__dict__ if n != "...")
        raise AttributeError(
            f"t has no {name!r} here{did_you_mean(name, visible)}; it has {', '.join(visible)}. "
            "Backward sees saved tensors, gradients, and the variant's `reads`."
        )

    def add(self, name: str, value: Any) -> None:
        """Write `value` into the gradient `name`, or add to it, or drop it, by the plan; once for each gradient.

        Raises ValueError for a value of another number of elements.
        """
        target = getattr(self, name)
        if target is None:
            return
        value = np.asarray(value)
        if value.size != target.size:
            raise ValueError(f"{name} has the shape {target.shape}, and the value that is added {value.shape}")
        if getattr(self, "add_" + name, False):
            target += value.reshape(target.shape)
        else:
            target[...] = value.reshape(target.shape)


def make_tensors(dims: Mapping[str, Any], tensors: Mapping[str, Any], **flags: Any) -> Tensors:
    """`t` from a node's dims and attrs, its tensors by name, and flags such as `add_dx`."""
    visible = {k: v for k, v in dims.items() if k != "..."}
    if "..." in dims:
        visible["rows"] = math.prod(dims["..."])
    if isinstance(step := tensors.get("step"), np.ndarray):
        tensors = {**tensors, "step": step.view(StepRecord)}
    return Tensors(**{"config": {}, **visible, **flags, **tensors})


@dataclass(frozen=True)
class TensorSpec:
    """A tensor before it has memory, as `workspace`, `configs` and `why_not` see it. dtype is a core.dtypes name."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        return self.size * NUMPY[self.dtype].itemsize
