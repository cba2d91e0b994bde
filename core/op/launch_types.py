"""Launch, the second argument of a launcher: the calls that a variant, or an optimizer's step, may make on a device.

A launcher runs once, while a plan is bound: each call records work on tensors with fixed memory, and a step replays the
records. Nothing is computed, compiled or read while recording. docs/launch.md explains each method.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Launch(Protocol):
    """The calls that every device records: work of other ops. An optimizer's `step(p, launch)` has these and no
    more."""

    def op(self, name: str, method: str = "forward", /, **values: Any) -> None:
        """Launch the variant that this run chose for another op.

        method: "forward" or "backward". values: the op's inputs and params by name, whose shapes give its dims; its
        outputs; gradients by their `d` names, None or left out for those that are not needed, with `add_dNAME=True`
        for one that is added to; its attributes. Anything else is a tensor that the variant saves in forward and reads
        in backward: the caller keeps it in between, and gives it to both.

        Raises BuildError for an unknown op, shapes that do not fit its schema, and where no variant can do it.
        """
        ...


class CpuLaunch(Launch, Protocol):
    """The launch of a variant whose device has NumPy arrays for tensors: rows on threads, products, Python calls.

    workspace: the variant's scratch, (workspace(t),) u8, without contents; None where its size is 0.
    """

    workspace: Any

    def rows(self, n: int, f: Callable[..., None], grain: int = 1, scratch: int = 0) -> None:
        """Run `f(lo, hi)` over ranges of `grain` rows of [0, n), on several threads, in any order.

        scratch: bytes for each thread; with scratch > 0 the call is `f(lo, hi, bytes)`, (scratch,) u8 without contents.
        Neither `grain` nor the order of a sum may follow from the number of threads: the bits would too.
        """
        ...

    def product(self, a: Any, b: Any, out: Any, add: bool = False) -> None:
        """out = a b, or out += a b with `add`, on several threads: a (rows, inner), b (inner, columns), out (rows,
        columns), all f32 or all f64. Raises BuildError for shapes that do not fit."""
        ...

    def call(self, f: Callable[[], None]) -> None:
        """Run `f()` once, on the thread of the step."""
        ...
