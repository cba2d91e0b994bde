"""The variant `host`: an op's reference on the host, for a device on which no kernel of the op is known.

Each launcher downloads its inputs, calls the reference in f32, and uploads its results. The device waits
meanwhile and CUDA graphs are split, so that it is taken by explicit choice only: `ops.NAME = "host"`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from core.dtypes import NARROW, NUMPY
from core.op import Op, Reference, Tensors, Variant
from core.step_record import StepRecord


class HostVariant(Variant):
    """A reference with copies both ways."""

    reference: ClassVar[Reference]
    name, source, priority = "host", (), -1

    @property
    def substitute(self) -> bool:
        """True: the variant is a substitute for kernels."""
        return True

    def forward(self, t: Any, launch: Any) -> None:
        """One call of the reference's forward."""
        op = self.reference.schema
        assert op is not None
        written = [*op.outputs, *self.saved, *op.mutates] or ["step"]
        self._record(t, launch, "forward", written, [*op.mutates, "step"])

    def backward(self, t: Any, launch: Any) -> None:
        """One call of the reference's backward."""
        op = self.reference.schema
        assert op is not None
        gradients = [f"d{name}" for name in (*op.inputs, *op.params)]
        added = [name for name in gradients if getattr(t, f"add_{name}", False)]
        self._record(t, launch, "backward", gradients, added)

    def _record(self, t: Any, launch: Any, method: str, results: Sequence[str], changed: Sequence[str]) -> None:
        """results: tensors that the reference writes; changed: those of them whose contents it starts from."""
        tensors = {
            name: value for name, value in vars(t).items() if hasattr(value, "nbytes") and hasattr(value, "dtype")
        }
        writes = {name: tensors[name] for name in results if name in tensors}
        reads = {name: value for name, value in tensors.items() if name not in writes or name in changed}
        reference, others = self.reference, {name: value for name, value in vars(t).items() if name not in tensors}

        def work(*arrays: Any) -> list[Any]:
            held = dict(zip(reads, arrays, strict=True))
            fresh = {n: np.zeros(w.shape, on_host(w.dtype)) for n, w in writes.items() if n not in held}
            named: dict[str, Any] = {**others, **fresh, **held}
            if "step" in held:
                named["step"] = held["step"].view(StepRecord)
            getattr(reference, method)(Tensors(**named))
            return [named[name] for name in writes]

        launch.on_host(work, list(reads.values()), list(writes.values()))


def on_host(dtype: str) -> Any:
    """The dtype of a tensor's array on the host: bf16 and fp16 are f32 there."""
    return np.dtype(np.float32) if dtype in NARROW else NUMPY[dtype]


def host_variant(op: Op, reference: Reference, runs: str) -> Variant:
    """The variant `host` of an op for devices that run variants of `runs`."""
    members: Mapping[str, Any] = {
        "op": op.name, "reference": reference, "device": runs, "saved": reference.saved, "reads": reference.reads,
        "can_add": reference.can_add, "alias": reference.alias, "partial": reference.partial,
    }  # fmt: skip
    without = {} if reference.has_backward else {"backward": None}
    made: Variant = type("HostVariant", (HostVariant,), {**members, **without})()
    return made
