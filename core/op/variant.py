"""Variant, one way to compute an op, and Reference, the one in NumPy that the others are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from core.errors import BuildError
from core.op.definition import Op

if TYPE_CHECKING:
    from core.op.parts import Index, Parts


class Variant:
    """One way to compute an op, forward and backward together. docs/plugins.md explains every field.

    A subclass writes `op`, `name`, `forward`, `backward` and the tensors saved and read; the rest has defaults.
    Variants never allocate: outputs, saved tensors and workspace are given.
    """

    op: ClassVar[str] = ""
    name: ClassVar[str] = ""
    device: ClassVar[str] = "cuda"
    source: ClassVar[str | tuple[str, ...]] = ""  # a .cu beside the class, or several; "": <op>.cu, (): no kernels
    dtypes: ClassVar[tuple[str, ...]] = ("f32", "bf16", "fp16")
    tf32: ClassVar[bool] = False  # in f32 its products are of TF32, 10 bits of mantissa: only where a run allows it
    arch: ClassVar[str] = "sm_75+"
    library: ClassVar[str] = ""  # of the vendor, which it calls (`launch.call`): on a GPU only, never simulated
    priority: ClassVar[int] = 10  # the highest that can run is `auto`; negative is never automatic
    saved: ClassVar[Mapping[str, str]] = {}  # name -> pattern: written by forward, read by backward
    reads: ClassVar[tuple[str, ...]] = ()  # inputs, params, outputs that backward reads in addition to saved
    can_add: ClassVar[tuple[str, ...]] = ()  # inputs whose gradient it can add to instead of overwrite
    alias: ClassVar[Mapping[str, str]] = {}  # {"da": "dy"}: that gradient IS the other: no launch, no copy
    inplace: ClassVar[Mapping[str, str]] = {}  # {"dx": "dy"}: may share that tensor's memory
    partial: ClassVar[tuple[str, ...]] = ()  # parameters whose gradient it does not write whole
    base: ClassVar[str] = ""  # a variant of the same op, from which this class inherits
    repeatable: ClassVar[bool] = True  # False: bits may differ between runs; never automatic
    slices: ClassVar[bool] = False  # it joins the ranks' own numbers (`t.slices`), of ops that use slices
    tolerance: ClassVar[Mapping[str, float]] = {}  # dtype -> relative 2-norm allowed by the check
    tolerance_why: ClassVar[str] = ""  # needed to allow more than the default
    examples: ClassVar[Sequence[Mapping[str, Any]]] = ()  # checked in addition to the op's own
    uncovered: ClassVar[Mapping[str, str]] = {}  # a line of its kernels that no example reaches -> why that is right
    # stamped when registered:
    schema: Op | None = None  # the op's
    origin: str = ""  # the plugin that brought it
    folder: Path = Path()  # the folder of the class's file
    sources: Mapping[str, tuple[Path, ...]] = {}  # launcher -> its kernels' files; `base` may make them differ

    def forward(self, t: Any, launch: Any) -> None:
        """The launcher of forward: records the launches that compute the outputs `t.y` from the inputs `t.x`, each with
        the shape and dtype that the op's schema gives. BuildError unless the variant defines it."""
        raise BuildError(f"variant {self.op}.{self.name} defines no forward")

    def backward(self, t: Any, launch: Any) -> None:
        """The launcher of backward: from `t.dy` to the gradients `t.dx`. None in a variant without gradients, which is
        never chosen for training. BuildError unless the variant defines it."""
        raise BuildError(f"variant {self.op}.{self.name} defines no backward")

    def configs(self, t: Any) -> list[dict[str, Any]]:
        """Tile candidates, best guess first; the chosen one is `t.config`."""
        return [{}]

    def workspace(self, t: Any) -> int:
        """Scratch bytes, from shapes and `t.config` alone."""
        return 0

    def counters(self, t: Any) -> int:
        """u32 zeros of its own; a launch leaves them zero."""
        return 0

    def why_not(self, t: Any) -> str | None:
        """The reason why this variant cannot run on these shapes; None when it can."""
        return None

    @property
    def has_backward(self) -> bool:
        """Whether the class defines `backward`."""
        method = type(self).backward
        return method is not None and method is not Variant.backward

    @property
    def has_forward_backward(self) -> bool:
        """Whether it computes loss and gradients in one go (`forward_backward(t, launch)`), for loss ops."""
        return hasattr(self, "forward_backward")

    @property
    def substitute(self) -> bool:
        """Whether it is a reference with copies, a substitute for kernels where it is named."""
        return False

    def __repr__(self) -> str:
        return f"<{self.op}.{self.name} ({self.device})>"


class Reference(Variant):
    """The NumPy implementation that defines the op: `forward(self, t)` and `backward(self, t)`, no `launch`.

    Generic over f32 and f64; the gradient check runs in f64. Without a faster cpu variant, it trains.
    """

    name: ClassVar[str] = "reference"
    device: ClassVar[str] = "cpu"
    dtypes: ClassVar[tuple[str, ...]] = ("f32", "f64")
    priority: ClassVar[int] = 0
    made_of: ClassVar[Mapping[str, str]] = {}  # tensor that it writes -> the tensors it is made of: see `parts`

    def forward(self, t: Any) -> None:  # type: ignore[override]
        """Write the outputs `t.y` from the inputs `t.x`: arrays with the shapes of the op's schema, f32 or f64.
        BuildError unless the reference defines it."""
        raise BuildError(f"the reference of {self.op} defines no forward")

    def backward(self, t: Any) -> None:  # type: ignore[override]
        """Hand each gradient of an input or parameter, of its shape, to `t.add("dx", ...)`. BuildError unless the
        reference defines it."""
        raise BuildError(f"the reference of {self.op} defines no backward")

    @property
    def has_backward(self) -> bool:
        """Whether the class defines `backward`."""
        method = type(self).backward
        return method is not None and method is not Reference.backward

    def parts(self, t: Any, tensor: str, index: Index) -> Parts | None:
        """The numbers that one number is made of: element `index` of an output, a gradient or a saved tensor.

        The answer has, for each tensor that the launcher reads, the elements of it (`core.op.parts.Box`), as a box or a
        list of boxes: `{"x": (3, slice(None)), "bias": (5,)}`. None for a tensor of which nothing is stated. `t` has
        the tensors of the launcher that writes the number, forward's for outputs and saved tensors, backward's for
        gradients; contents may decide, as an embedding's ids do. `core check` perturbs everything else, and the number
        must keep its bits.

        This one follows from `made_of`, whose lines name tensors by their dims in the schema: in
        `{"y": "x(C) weight", "dweight": "dy x"}` each y is made of x in its own row, with the whole of C, and of the
        weight of its own column; each dweight of its own column of dy and x, since dims that it lacks are taken whole.
        Raises BuildError for names that the op does not have.
        """
        from core.op.parts import by_dims, pattern_in  # a run needs none

        if tensor not in self.made_of:
            return None
        schema = self.schema
        if schema is None:
            raise BuildError(f"the reference of {self.op} is not registered, so that its schema is not known")
        parts = by_dims(self.made_of[tensor], tensor, index, partial(pattern_in, schema, self.saved))
        return {name: box for name, box in parts.items() if getattr(t, name, None) is not None}

    def maps(self, t: Any) -> dict[str, np.ndarray[Any, Any]]:
        """The weights by which forward mixes tokens or experts, by name, f32 or f64; empty where it mixes none.

        (B, heads, T, T): how much each query takes of each key; (..., N): how much each token takes of N experts. Rows
        sum to 1, or to 0 where nothing is taken. `t` has forward's inputs and parameters.
        """
        return {}

    @staticmethod
    def runs(where: np.ndarray[Any, Any]) -> list[slice]:
        """The slices in which a bool array (n,) is true, for boxes of `parts`."""
        edges = np.flatnonzero(np.diff(where.astype(np.int8), prepend=0, append=0)).tolist()
        return [slice(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True)]

    @property
    def has_parts(self) -> bool:
        """Whether it states the dependencies of any of its numbers."""
        return bool(self.made_of) or type(self).parts is not Reference.parts

    @property
    def has_maps(self) -> bool:
        """Whether the class defines `maps`."""
        return type(self).maps is not Reference.maps
