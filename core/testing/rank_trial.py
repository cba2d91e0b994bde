"""One rank of the check of a collective op: `mpiexec -n 2 python -m core.testing.rank_trial OP VARIANT DEVICE SEED`.

Every rank draws tensors from (seed, rank); the reference sums and gathers the same ones through the ranks' own group.
Tensors have guard bands; calls are made twice, as a graph where the device has graphs; slices are equal or not,
inside the flat tensor or apart from it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.device.protocol import Device
from core.dtypes import itemsize, resolve
from core.errors import CoreError
from core.loader import load_registry
from core.op import Op, Tensors, Variant
from core.ranks.group import Ranks
from core.ranks.joining import join
from core.ranks.launched import launched
from core.testing.compare import Array, bounds_of, round_to
from core.testing.on_ranks import MARK, TIMED

ROUNDS = 7  # of a timing
GUARD = 64  # elements before and after each tensor
Row = dict[str, Any]


@dataclass(frozen=True)
class Slicing:
    """How a flat tensor of n elements is divided: cuts, None for equal slices; inside: `part` is a slice of `flat`."""

    n: int
    cuts: tuple[int, ...] | None
    inside: bool

    @property
    def label(self) -> str:
        slices = "" if self.cuts is None else f", cuts={self.cuts}"
        return f"flat=({self.n},){slices}{', in place' if self.inside else ''}"


class RankTrial:
    """The variant on one rank. contents: of every tensor that this rank gives, by slicing and dtype."""

    def __init__(self, op: Op, variant: Variant, reference: Any, device: Device, ranks: Ranks, seed: int) -> None:
        self.op, self.variant, self.reference = op, variant, reference
        self.device, self.ranks, self.seed = device, ranks, seed

    def rows(self) -> Iterator[Row]:
        """The findings on every slicing and dtype that the variant can run on."""
        for slicing in slicings(self.op, self.ranks.size):
            for dtype in dtypes_of(self.op, self.variant):
                yield from self.row(slicing, dtype)

    def times(self) -> Iterator[Row]:
        """By bytes of the flat tensor, in f32: milliseconds of a call and of a copy of as many bytes, the least."""
        for n in (1 << 14, 1 << 18, 1 << 22, 1 << 24):
            flat = GuardedFlat(self.device, np.zeros(n, np.float32), "f32")
            target = GuardedFlat(self.device, np.zeros(n, np.float32), "f32").tensor
            t = self.tensors(self.variant, Slicing(n, None, True), flat.tensor)
            commands = self.device.captured(self.device.record(self.variant, "forward", t, None, None))
            copy, seconds, copied = self.device.copy(target, flat.tensor), [], []
            for _ in range(ROUNDS):
                self.ranks.wait()
                seconds.append(self.device.elapsed([commands])[0])
                copied.append(self.device.elapsed([copy])[0])
            took, once = self.ranks.agree([min(seconds), min(copied)], "max").tolist()
            yield {"bytes": 4 * n, "ms": 1e3 * took, "memcpys": took / once}

    def row(self, slicing: Slicing, dtype: str) -> Iterator[Row]:
        rng = np.random.default_rng([self.seed, self.ranks.rank, slicing.n])
        drawn = round_to(rng.standard_normal(slicing.n), dtype)
        expected, _ = self.call(self.reference, slicing, drawn, dtype, host=True)
        first, overrun = self.call(self.variant, slicing, drawn, dtype)
        again, _ = self.call(self.variant, slicing, drawn, dtype)
        bound = 0.0 if self.op.collective == "gather" else bounds_of(self.variant, dtype).norm
        error = float(np.linalg.norm(first - expected) / (np.linalg.norm(expected) or 1.0))
        same = np.array_equal(first, again) or not self.variant.repeatable
        who = f"rank {self.ranks.rank}"
        about = {"dtype": dtype, "example": slicing.label, "n": slicing.n}
        far = (
            "" if error <= bound else f"{who}: relative error {error:.1e} compared with the reference, over {bound:.0e}"
        )
        yield {"check": "forward", "error": error, "wrong": far, **about}
        yield {"check": "repeat", "error": 0.0, "wrong": "" if same else f"{who}: other bits in a second call", **about}
        yield {"check": "bounds", "error": 0.0, "wrong": f"{who}: {overrun}" if overrun else "", **about}

    def call(self, variant: Any, slicing: Slicing, drawn: Array, dtype: str, host: bool = False) -> tuple[Array, str]:
        """(the tensor that the op writes, the writes outside of the tensors)."""
        flat = GuardedFlat(None if host else self.device, drawn, dtype)
        mine = self.mine(slicing)
        separate = None if slicing.inside else GuardedFlat(flat.device, drawn[mine], dtype).tensor
        t = self.tensors(variant, slicing, flat.tensor, separate)
        if host:
            variant.forward(t)
        else:
            self.device.run(self.device.captured(self.device.record(variant, "forward", t, None, None)))
        return flat.read(getattr(t, self.op.mutates[0])), flat.overrun()

    def mine(self, slicing: Slicing) -> slice:
        """This rank's slice of the flat tensor."""
        if self.op.collective == "sum":
            return slice(0, 0)
        cuts = list(slicing.cuts or self.ranks.cuts(slicing.n))
        return slice(cuts[self.ranks.rank], cuts[self.ranks.rank + 1])

    def tensors(self, variant: Any, slicing: Slicing, flat: Any, part: Any = None) -> Tensors:
        """`t` of a call; without a part, the slice of flat."""
        mine = self.mine(slicing)
        parts = {} if self.op.collective == "sum" else {"part": flat[mine] if part is None else part}
        sizes = {"n": slicing.n, "m": mine.stop - mine.start, "cuts": list(slicing.cuts or [])}
        t = Tensors(flat=flat, **parts, **sizes, ranks=self.ranks, node="check", config={})
        t.config = next(iter(variant.configs(t)), {})
        return t


class GuardedFlat:
    """A tensor with contents between guard bands: on a device, or an array where `device` is None."""

    def __init__(self, device: Device | None, contents: Array, dtype: str) -> None:
        self.device, n = device, len(contents)
        held = np.full(n + 2 * GUARD, 7.0, contents.dtype)
        held[GUARD : GUARD + n] = contents
        self.whole = held
        if device is not None:
            self.whole = device.tensor(device.allocate(held.size * itemsize(dtype)), 0, (held.size,), dtype)
            device.upload(self.whole, held)
        self.tensor = self.whole[GUARD : GUARD + n]

    def read(self, tensor: Any) -> Array:
        return tensor.copy() if self.device is None else np.asarray(self.device.download(tensor))

    def overrun(self) -> str:
        """A sentence on the guard bands that are not as they were; "" for none."""
        whole = self.read(self.whole)
        touched = [
            where for where, band in (("before", whole[:GUARD]), ("behind", whole[-GUARD:])) if np.any(band != 7)
        ]
        return f"elements {' and '.join(touched)} flat were written" if touched else ""


def slicings(op: Op, ranks: int) -> list[Slicing]:
    """The flat tensors that are tried: short, long, with equal and with unequal slices."""
    if op.collective == "sum":
        return [Slicing(n, None, False) for n in (1, 191, 64 * 1031)]
    n = 64 * 1031 * ranks
    uneven = (0, *(n * rank // ranks + 64 * 7 for rank in range(1, ranks)), n)
    return [Slicing(size, cuts, inside) for inside in (True, False) for size, cuts in
            ((96 * ranks, None), (n, None), (n, uneven), (n, (0,) * ranks + (n,)))]  # fmt: skip


def dtypes_of(op: Op, variant: Variant) -> list[str]:
    """The dtypes of the flat tensor: the precisions', and of sums that of the loss, f64."""
    pattern = op.inputs["flat"].pattern
    kinds = [resolve(pattern.dtype, precision) for precision in variant.dtypes]
    return list(dict.fromkeys([*kinds, *(["f64"] if op.collective == "sum" else [])]))


def main(name: str, variant_name: str, device: str, seed: str, *plugins: str) -> None:
    said: Any
    try:
        registry = load_registry(plugins)
        kind = registry.device(device)
        ranks = join(registry.ranks, kind, launched())
        op, variant = registry.op(name), registry.variant(name, variant_name)
        opened = kind.open(ranks.local)
        t = Tensors(flat=None, part=None, cuts=[], n=ranks.size, m=1, ranks=ranks)
        why = opened.can_run(variant) or variant.why_not(t)
        trial = RankTrial(
            op, variant, registry.variant(name, "reference"), opened, ranks, int(seed.replace(TIMED, "0"))
        )
        if why or seed == TIMED:
            said = why or list(trial.times())
        else:
            own = json.dumps(list(trial.rows())).encode()
            said = [row for rows in ranks.gather(own) for row in json.loads(rows)]
        leads = ranks.leads
        ranks.finish()
    except CoreError as error:
        said, leads = error.message, launched().rank == 0
    if leads:
        print(f"{MARK}{json.dumps(said)}", flush=True)
    os._exit(0)  # without the departure of a command, which would end the other rank


if __name__ == "__main__":
    main(*sys.argv[1:])
