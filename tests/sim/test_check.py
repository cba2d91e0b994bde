"""The op check sees what it promises to see: one deliberately wrong variant for each sub-check."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checked_ops import REAL, RmsNormReference, RmsNormRows

from core.errors import CheckFailed
from core.expr import pad
from core.op import Op, Param, Reference
from core.pool import Pool, pool, using
from core.registry import Registry
from core.testing import check_op, check_variant
from core.testing.case import make_case

rmsnorm = Op(
    "rmsnorm",
    inputs={"x": "... C"},
    outputs={"y": "... C"},
    params={"weight": Param("C", init="ones", decay=False)},
    attrs={"eps": 1e-5},
    examples=[{"x": (4, 7, 64)}, {"x": (3, 33)}, {"x": (1, 1)}],
)


mix = Op(
    "mix",
    inputs={"a": "... C", "b": "... C"},
    outputs={"sum": "... C", "difference": "... C"},
    examples=[{"a": (2, 3, 5), "b": (2, 3, 5)}],
)


class MixReference(Reference):
    op, can_add = "mix", ("a", "b")

    def forward(self, t: Any) -> None:
        t.sum[...] = t.a + 2 * t.b
        t.difference[...] = t.a - t.b

    def backward(self, t: Any) -> None:
        first, second = (0 if g is None else g for g in (t.dsum, t.ddifference))
        t.add("da", first + second + np.zeros(t.da.shape) if t.da is not None else 0)
        t.add("db", 2 * first - second + np.zeros(t.db.shape) if t.db is not None else 0)


def registry_of(*pairs: tuple[Op, Any]) -> Registry:
    found = Registry()
    for op, variant in pairs:
        found.ops[op.name] = op
        found.variants.setdefault(op.name, {})[variant.name] = variant()
    return found


def failed(op: Op, reference: Any, variant: Any = None) -> list[str]:
    """The sub-checks that say no, checking `variant`, or the reference when there is none."""
    held = registry_of((op, reference), *([(op, variant)] if variant else []))
    return check_variant(op, held.variant(op.name, (variant or reference).name), held).failed_checks()


def test_right_variants_pass() -> None:
    held = registry_of((rmsnorm, RmsNormReference), (rmsnorm, RmsNormRows), (mix, MixReference))
    assert [v.name for v in check_op("rmsnorm", registry=held).variants] == ["rmsnorm.reference", "rmsnorm.rows"]
    assert check_op("mix", registry=held).passed


# --- a wrong reference -------------------------------------------------------------------------------------------


def broken(base: type, **methods: Any) -> type:
    return type(base.__name__, (base,), methods)


def test_wrong_factor_in_a_references_gradient_is_named_with_tensor_index_and_error() -> None:
    def backward(self: Any, t: Any) -> None:
        n = t.x * t.rstd[..., None]
        dx = t.rstd[..., None] * (t.dy * t.weight - n * np.mean(t.dy * t.weight * n, axis=-1, keepdims=True))
        dx[-1, ..., -1] *= 1.01  # one column of the last row
        t.add("dx", dx)
        t.add("dweight", (t.dy * n).reshape(-1, t.C).sum(0))

    held = registry_of((rmsnorm, broken(RmsNormReference, backward=backward)))
    with pytest.raises(CheckFailed) as raised:
        check_op("rmsnorm.reference", registry=held)
    message = str(raised.value)
    assert "gradient: dx is not the derivative" in message
    assert "[2, 32]" in message and "relative 1.00e-02" in message
    assert "in f64, example x=(3, 33)" in message
    assert raised.value.exit_code == 1


def test_gradient_that_forgets_a_parameter_is_caught() -> None:
    def backward(self: Any, t: Any) -> None:
        t.add("dx", 0 * t.x)
        t.add("dweight", np.zeros(t.C))

    assert "gradient" in failed(rmsnorm, broken(RmsNormReference, backward=backward))


def test_output_gradient_that_does_not_exist_is_tried() -> None:
    def backward(self: Any, t: Any) -> None:
        t.add("da", t.dsum + t.ddifference)
        t.add("db", 2 * t.dsum - t.ddifference)

    assert failed(mix, broken(MixReference, backward=backward)) == ["absent"]


# --- a wrong variant, one for each sub-check ---------------------------------------------------------------------


def on_rows(change: Any) -> type:
    """RmsNormRows with something done after its backward."""

    def backward(self: Any, t: Any, launch: Any) -> None:
        launch.call(lambda: RmsNormReference().backward(t))
        launch.call(lambda: change(t))

    return broken(RmsNormRows, backward=backward)


def forward_then(change: Any) -> type:
    def forward(self: Any, t: Any, launch: Any) -> None:
        RmsNormRows().forward(t, launch)
        launch.call(lambda: change(t))

    return broken(RmsNormRows, forward=forward)


def beyond(tensor: Any) -> None:
    """Write one element behind the end of a tensor."""
    np.lib.stride_tricks.as_strided(tensor.reshape(-1), (tensor.size + 1,))[-1] = 0


def lose_last_row(t: Any) -> None:
    if t.dx is not None:
        t.dx.reshape(-1, t.C)[-1].view(np.uint8)[...] = 0xFF


def overwrite_weight(t: Any) -> None:
    if t.dweight is not None and t.add_dweight:
        t.dweight[...] = (t.dy * t.x * t.rstd[..., None]).reshape(-1, t.C).sum(0)


BROKEN = {
    "forward": forward_then(lambda t: t.y.__imul__(1.0001)),
    "gradient": on_rows(lambda t: t.dx is None or t.dx.__imul__(-1)),
    "accumulate": on_rows(overwrite_weight),
    "absent": on_rows(lambda t: t.dx[0]),
    "unchanged": on_rows(lambda t: t.weight.__iadd__(1)),
    "bounds": forward_then(lambda t: beyond(t.y)),
    "written": on_rows(lose_last_row),
    "reads": on_rows(lambda t: t.y),
}


@pytest.mark.parametrize("check", BROKEN)
def test_fault_is_caught_by_its_sub_check(check: str) -> None:
    assert check in failed(rmsnorm, RmsNormReference, BROKEN[check])


def test_kept_reference_to_an_undeclared_tensor_is_poisoned() -> None:
    class Keeps(RmsNormRows):
        def forward(self, t: Any, launch: Any) -> None:
            super().forward(t, launch)
            self.y = t.y

        def backward(self, t: Any, launch: Any) -> None:
            super().backward(t, launch)
            launch.call(lambda: t.dx is None or t.dx.__iadd__(0 * self.y))

    assert "gradient" in failed(rmsnorm, RmsNormReference, Keeps)


def test_rows_that_need_an_order_are_caught() -> None:
    class Ordered(RmsNormRows):
        def forward(self, t: Any, launch: Any) -> None:
            super().forward(t, launch)
            total = [0.0]

            def rows(lo: int, hi: int) -> None:
                total[0] = total[0] * 0.5 + float(t.x.reshape(-1)[lo])
                t.y.reshape(-1)[lo] += 1e-7 * total[0] * abs(t.y.reshape(-1)[lo])

            launch.rows(t.rows, rows)

    assert "repeat" in failed(rmsnorm, RmsNormReference, Ordered)


def test_bits_that_follow_from_the_number_of_threads_are_caught() -> None:
    class Counting(RmsNormRows):
        def forward(self, t: Any, launch: Any) -> None:
            super().forward(t, launch)

            def shift() -> None:
                t.y[...] *= 1 + 2e-7 * (getattr(pool(), "workers", 1) == 3)

            launch.call(shift)

    with using(Pool(2)):
        assert "repeat" in failed(rmsnorm, RmsNormReference, Counting)


def test_examples_that_fit_one_block_are_refused() -> None:
    class OneBlock(RmsNormRows):
        def forward(self, t: Any, launch: Any) -> None:
            launch.rows(t.rows, lambda lo, hi: lo or RmsNormReference().forward(t), grain=1000)

    assert failed(rmsnorm, RmsNormReference, OneBlock) == ["blocks"]


def test_alias_that_is_not_the_gradient_is_caught() -> None:
    assert "alias" in failed(mix, broken(MixReference, alias={"da": "dsum"}))


def test_in_place_that_reads_what_it_overwrote_is_caught() -> None:
    def backward(self: Any, t: Any) -> None:
        shape = next(g.shape for g in (t.dsum, t.ddifference) if g is not None)
        first, second = (np.zeros(shape) if g is None else g for g in (t.dsum, t.ddifference))
        t.add("da", first + second)
        t.add("db", 2 * first - second)  # where da lies in it, dsum is gone by now

    wrong = broken(MixReference, name="inplace", inplace={"da": "dsum"}, backward=backward)
    assert failed(mix, MixReference, wrong) == ["in place"]


def test_zeros_must_be_exact() -> None:
    class Smeared(REAL.variant("cross_entropy", "reference").__class__):  # type: ignore[misc, name-defined]
        name = "smeared"

        def backward(self, t: Any) -> None:
            super().backward(t)
            t.dlogits[..., t.classes :] += 1e-12

    op = REAL.op("cross_entropy")
    assert failed(op, type(REAL.variant("cross_entropy", "reference")), Smeared) == ["zeros", "padding"]


def test_padding_is_drawn_as_zero_and_has_to_stay_zero() -> None:
    case = make_case(REAL.op("matmul"), {"x": (3, 4), "features": pad(5, 8)})
    assert case.dims["features"] == 8 and not case.values["weight"][5:].any() and case.values["weight"][:5].all()  # type: ignore[index]
    assert not case.gradients["dy"][:, 5:].any()


def test_op_that_mixes_tokens_without_saying_so_is_caught() -> None:
    shift = Op("shift", inputs={"x": "... C"}, outputs={"y": "... C"}, examples=[{"x": (2, 5, 3)}])

    class ShiftReference(Reference):
        op = "shift"

        def forward(self, t: Any) -> None:
            t.y[...] = t.x
            t.y[:, 1:] += t.x[:, :-1]

        def backward(self, t: Any) -> None:
            dx = t.dy.copy()
            dx[:, :-1] += t.dy[:, 1:]
            t.add("dx", dx)

    assert failed(shift, ShiftReference) == ["decode"]


def test_cache_that_reads_unwritten_rows_is_caught() -> None:
    kind = type(REAL.variant("attention", "reference"))

    class Reads(kind):  # type: ignore[misc, valid-type]
        name = "reads"

        def forward(self, t: Any) -> None:
            super().forward(t)
            if t.start is not None:
                t.y += 0 * t.k.sum()

    assert failed(REAL.op("attention"), kind, Reads) == ["decode"]


def test_random_bits_that_depend_on_the_batch_are_caught() -> None:
    kind = type(REAL.variant("dropout", "reference"))

    class Batch(kind):  # type: ignore[misc, valid-type]
        name = "batch"

        def forward(self, t: Any) -> None:
            t.key, key = None if t.key is None else t.key * np.array([1, 1, 1, 0], np.uint32), t.key
            super().forward(t)
            t.key = key

    assert "random" in failed(REAL.op("dropout"), kind, Batch)


def test_update_that_ignores_a_bad_step_is_caught() -> None:
    kind = type(REAL.variant("adamw_update", "reference"))

    class Eager(kind):  # type: ignore[misc, valid-type]
        name = "eager"

        def forward(self, t: Any) -> None:
            ok, t.step = t.step, t.step.copy()
            t.step[6] = 1.0
            super().forward(t)
            t.step = ok

    assert failed(REAL.op("adamw_update"), kind, Eager) == ["update"]
