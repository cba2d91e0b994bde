"""What the op check tells of a wrong variant: the cause first and alone, what can be seen, and the hint that helps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from core.cli.check import command
from core.errors import UsageError
from core.op import Op, Param, Reference
from core.registry import Registry
from core.testing.check import check_variant
from core.testing.check_report import VariantReport
from core.testing.pattern import Compared, Scene, region, seen

# --- what can be seen in values --------------------------------------------------------------------------------------

DRAWN = np.random.default_rng(0).standard_normal((3, 4, 8))
ROWS = np.linspace(0.5, 2, 12).reshape(3, 4, 1)


def with_nan(*places: Any) -> Any:
    made = DRAWN.copy()
    made[places] = np.nan
    return made


SEEN: dict[str, tuple[Any, str]] = {
    "a factor of a size": (DRAWN * np.sqrt(8), "got is 2.8284 times the expected value, everywhere, which is sqrt(D)"),
    "half": (DRAWN / 2, "got is 0.5 times the expected value, everywhere"),
    "the sign": (-DRAWN, "got has the wrong sign everywhere"),
    "one by the rows": (DRAWN / 12, "which is 1 / rows"),
    "a constant": (DRAWN + 0.25, "got is +0.25 from the expected value, everywhere"),
    "transposed": (DRAWN.swapaxes(-1, -2).reshape(DRAWN.shape), "it is transposed"),
    "nothing": (np.zeros_like(DRAWN), "got is 0 everywhere"),
    "a factor by row": (DRAWN * ROWS, "each row is off by a factor of its own, 0.5 to 2"),
    "late columns": (with_nan(..., slice(5, None)), "only columns from 5 on are wrong; there got is not a number"),
    "all but the first row": (with_nan(slice(1, None)), "only rows from 4 on are wrong"),
    "the last column": (DRAWN * (1 + (np.arange(8) == 7)), "only the last column is wrong"),
}


@pytest.mark.parametrize("what", SEEN)
def test_what_is_wrong_is_seen(what: str) -> None:
    got, says = SEEN[what]
    scene = Scene({"y": Compared(got, DRAWN)}, {"D": 8, "...": (3, 4)})
    assert says in seen(scene, "y")


def test_two_gradients_that_are_exchanged_and_a_third_that_is_right() -> None:
    other = np.random.default_rng(1).standard_normal(DRAWN.shape)
    scene = Scene({"dq": Compared(other, DRAWN), "dk": Compared(DRAWN, other), "dv": Compared(other, other)})
    assert seen(scene, "dq") == "dq and dk are exchanged; dv is right"
    assert seen(Scene({"dq": Compared(other, DRAWN), "dk": Compared(other, other)}), "dq").startswith("it holds the")
    assert seen(scene, "dv") == ""


def test_rounding_and_chance_are_no_clue() -> None:
    noise = np.random.default_rng(2).standard_normal(DRAWN.shape)
    assert seen(Scene({"y": Compared(noise, DRAWN)}), "y") == ""
    assert seen(Scene({"y": Compared(DRAWN * (1 + 1e-7 * noise), DRAWN)}), "y") == ""
    assert region(np.array([True, False, True])) == ""


# --- the first cause, and its hint -----------------------------------------------------------------------------------

rms = Op(
    "rms",
    inputs={"x": "... C"},
    outputs={"y": "... C"},
    params={"weight": Param("C", init="ones", decay=False)},
    attrs={"eps": 1e-5},
    examples=[{"x": (3, 33)}, {"x": (4, 7, 16)}, {"x": (1, 1)}],
)


class Rms(Reference):
    op, saved, reads = "rms", {"rstd": "... : acc"}, ("x", "weight")

    def forward(self, t: Any) -> None:
        t.rstd[...] = 1 / np.sqrt(np.mean(t.x * t.x, axis=-1) + t.eps)
        t.y[...] = t.x * t.rstd[..., None] * t.weight

    def backward(self, t: Any) -> None:
        n, dn = t.x * t.rstd[..., None], t.dy * t.weight
        t.add("dx", t.rstd[..., None] * (dn - n * np.mean(dn * n, axis=-1, keepdims=True)))
        t.add("dweight", (t.dy * n).reshape(-1, t.C).sum(0))


def checked(reference: type[Reference], op: Op = rms, **how: Any) -> VariantReport:
    held = Registry()
    held.ops[op.name], held.variants[op.name] = op, {"reference": reference()}
    return check_variant(op, held.variant(op.name, "reference"), held, **how)


def replaces_y(self: Any, t: Any) -> None:
    t.rstd[...] = 1 / np.sqrt(np.mean(t.x * t.x, axis=-1) + t.eps)
    t.y = t.x * t.rstd[..., None] * t.weight


def returns_y(self: Any, t: Any) -> Any:
    t.rstd[...] = 1 / np.sqrt(np.mean(t.x * t.x, axis=-1) + t.eps)
    return t.x * t.rstd[..., None] * t.weight


def forgets_rstd(self: Any, t: Any) -> None:
    t.y[...] = t.x / np.sqrt(np.mean(t.x * t.x, axis=-1, keepdims=True) + t.eps) * t.weight


def gradient(write: Callable[[Any, Any], Any]) -> Callable[[Any, Any], None]:
    def backward(self: Any, t: Any) -> None:
        n, dn = t.x * t.rstd[..., None], t.dy * t.weight
        t.add("dweight", (t.dy * n).reshape(-1, t.C).sum(0))
        write(t, t.rstd[..., None] * (dn - n * np.mean(dn * n, axis=-1, keepdims=True)))

    return backward


def replaces_dx(t: Any, dx: Any) -> None:
    t.dx = dx


def writes_dx(t: Any, dx: Any) -> None:
    t.dx[...] = dx


def returns_dx(self: Any, t: Any) -> Any:
    t.add("dweight", (t.dy * t.x * t.rstd[..., None]).reshape(-1, t.C).sum(0))
    return t.dy


HINTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "t.y = ...": ({"forward": replaces_y}, "written", "t.y = ... gives the name to another array"),
    "return y": ({"forward": returns_y}, "written", "what forward returns is dropped"),
    "a saved tensor": ({"forward": forgets_rstd}, "written", "`saved` declares rstd, so that forward has to fill it"),
    "t.dx = ...": ({"backward": gradient(replaces_dx)}, "written", "t.dx = ... gives the name to another array"),
    "t.dx[...] = ...": ({"backward": gradient(writes_dx)}, "absent", "dx is None when no gradient is needed: t.add("),
    "return dx": ({"backward": returns_dx}, "written", "what backward returns is dropped"),
    "no t.add": ({"backward": gradient(lambda t, dx: None)}, "written", 'backward has to give dx: t.add("dx", ...)'),
}


@pytest.mark.parametrize("what", HINTS)
def test_a_common_mistake_is_the_first_thing_said_with_the_way_out(what: str) -> None:
    methods, check, hint = HINTS[what]
    report = checked(type("Wrong", (Rms,), methods))
    assert report.first.check == check and hint in report.first.hint, report.describe_first()


def test_a_reference_that_is_right_has_nothing_to_say() -> None:
    report = checked(Rms)
    assert report.passed and not report.notes and not report.gaps


def wrong_by_a_size(self: Any, t: Any) -> None:
    n, dn = t.x * t.rstd[..., None], t.dy * t.weight
    t.add("dx", t.rstd[..., None] * (dn - n * np.mean(dn * n, axis=-1, keepdims=True)))
    t.add("dweight", (t.dy * n).reshape(-1, t.C).mean(0))


def test_a_numeric_derivative_shows_the_factor_that_is_missing() -> None:
    report = checked(type("Mean", (Rms,), {"backward": wrong_by_a_size}))
    assert "everywhere, which is 1 / rows; dx is right" in report.first.seen


def test_a_gradient_that_is_written_where_it_is_to_be_added_is_told_so() -> None:
    class Writes(Rms):
        can_add = ("x",)

        def backward(self, t: Any) -> None:
            gradient(lambda t, dx: t.dx is None or t.dx.__setitem__(..., dx))(self, t)

    first = checked(Writes).first
    assert first.check == "accumulate" and "the previous value is lost" in first.seen


def test_the_first_failure_keeps_other_sub_checks_waiting() -> None:
    wrong = type("Wrong", (Rms,), {"forward": replaces_y})
    alone, whole = checked(wrong, whole=False), checked(wrong)
    assert "gradient" in alone.waiting and "decode" in alone.waiting and not whole.waiting
    assert len(alone.describe_first().splitlines()) <= 5 and "wait for it; -v" in alone.describe_first()
    assert "gradient" in whole.failed_checks() and len(whole.failures) > len(alone.failures)


def test_a_zero_is_held_to_an_absolute_bound() -> None:
    """One class: the loss is 0, and rounding leaves a little of it; a tenth is no rounding."""
    one = Op("one", inputs={"x": "... C"}, outputs={"y": "..."}, examples=[{"x": (4, 1)}])

    def forward_of(extra: float) -> Any:
        def forward(self: Any, t: Any) -> None:
            t.y[...] = t.x.sum(-1) - t.x[..., 0] + extra * (t.x.dtype == np.float32)

        return forward

    for extra, passes in ((1e-7, True), (0.1, False)):
        methods = {
            "op": "one",
            "reads": ("x",),
            "forward": forward_of(extra),
            "backward": lambda self, t: t.add("dx", 0 * t.x),
        }
        report = checked(type("One", (Reference,), methods), one)
        assert ("forward" not in report.failed_checks()) is passes, report.describe_failures()


# --- outputs of integers, and what is said in words ------------------------------------------------------------------

shift = Op("shift", inputs={"targets": "B T : i32"}, outputs={"y": "B T : i32"}, examples=[{"targets": (2, 5)}],
           uses=("start",), why_no_decode=lambda dims: "it looks ahead")  # fmt: skip


@pytest.mark.parametrize("last", [-1, -100, int(np.int32(-0x5A5A5A5B)), 0])
def test_an_integer_output_may_hold_any_value(last: int) -> None:
    class Shift(Reference):
        op, reads = "shift", ()

        def forward(self, t: Any) -> None:
            t.y[:, :-1] = t.targets[:, 1:]
            t.y[:, -1] = last

        def backward(self, t: Any) -> None:
            pass

    assert checked(Shift, shift).passed


def test_an_integer_output_that_is_not_written_is_seen() -> None:
    class Shift(Reference):
        op = "shift"

        def forward(self, t: Any) -> None:
            t.y[:, :-1] = t.targets[:, 1:]

        def backward(self, t: Any) -> None:
            pass

    first = checked(Shift, shift).first
    assert first.check == "written" and "2 of 10 elements" in first.message
    assert first.seen == "only the last column is not written"


def test_an_init_that_there_is_not_is_refused_by_the_check() -> None:
    op = Op("rms", inputs={"x": "... C"}, outputs={"y": "... C"}, params={"weight": Param("C", init="one")},
            attrs={"eps": 1e-5}, examples=[{"x": (3, 33)}])  # fmt: skip
    first = checked(Rms, op).first
    assert first.check == "schema" and 'init "one"' in first.message and "ones" in first.message


def test_a_reference_without_backward_says_what_that_means() -> None:
    class Forward(Rms):
        backward = None  # type: ignore[assignment]

    (note,) = checked(Forward).notes
    assert note == "the reference has no backward: nothing that uses this op can train with it"


# --- the command -----------------------------------------------------------------------------------------------------

PLUGIN = """
import numpy as np
from core import Op, Param, Reference
rms = Op("rms", inputs={"x": "... C"}, outputs={"y": "... C"}, params={"weight": Param("C", init="ones", decay=False)},
         attrs={"eps": 1e-5}, examples=[{"x": (4, 7, 64)}, {"x": (3, 33)}, {"x": (1, 1)}, {"x": (2, 700)}])
class RmsReference(Reference):
    op, saved, reads = "rms", {"rstd": "... : acc"}, ("x", "weight")
    def forward(self, t):
        t.rstd[...] = 1 / np.sqrt(np.mean(t.x * t.x, axis=-1) + EPS)
        t.y[...] = t.x * t.rstd[..., None] * t.weight
    def backward(self, t):
        n, dn = t.x * t.rstd[..., None], t.dy * t.weight
        t.add("dx", t.rstd[..., None] * (dn - n * np.mean(dn * n, axis=-1, keepdims=True)))
        t.add("dweight", (t.dy * n).reshape(-1, t.C).sum(0))
def core_ops():
    return [rms]
def core_variants():
    return [RmsReference]
"""


def run(*arguments: str) -> Any:
    return CliRunner().invoke(command, [*arguments, "--no-time"])


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    monkeypatch.setenv("CORELM_CACHE", str(tmp_path / "cache"))

    def write(eps: str) -> str:
        path = tmp_path / f"mine_{len(eps)}.py"
        path.write_text(PLUGIN.replace("EPS", eps))
        return str(path)

    return write


def test_another_ops_variant_says_what_is_right(plugin: Callable[[str], str]) -> None:
    """A wrong forward with the backward that belongs to it is right by itself, and wrong by another's truth."""
    right, wrong = plugin("t.eps"), "--against"
    assert run("rms", "--plugin", right).exit_code == 0
    assert run("rms", "--plugin", right, wrong, "rmsnorm.reference").exit_code == 0
    path = plugin("1.0")
    assert run("rms", "--plugin", path).exit_code == 0
    result = run("rms", "--plugin", path, "--against", "rmsnorm")
    assert result.exit_code == 1 and "forward      FAILED  y: relative error" in result.output
    refused = run("rms", "--plugin", path, "--against", "gelu")
    assert isinstance(refused.exception, UsageError) and "cannot be the truth for rms" in str(refused.exception)


def test_a_quick_check_is_of_few_examples_and_no_verdict(plugin: Callable[[str], str], tmp_path: Path) -> None:
    path = plugin("t.eps")
    quick, whole = (run("rms", "--plugin", path, *more).output for more in (("--quick",), ()))
    runs = [int(line.split()[3].rstrip("x")) for text in (quick, whole) for line in text.splitlines()
            if line.startswith("  forward")]  # fmt: skip
    assert runs == [3, 8]
    assert len(list((tmp_path / "cache").rglob("*.json"))) == 1


def test_what_waits_is_shown_with_v(plugin: Callable[[str], str]) -> None:
    path = plugin("t.eps")
    text = Path(path).read_text().replace("t.y[...] =", "t.y =")
    Path(path).write_text(text)
    short, long = (run("rms", "--plugin", path, *more).output for more in ((), ("-v",)))
    assert len(short.splitlines()) <= 8 and "written      FAILED  y: " in short and "hint: t.y = ..." in short
    assert "gradient     FAILED" in long and len(long.splitlines()) > 20
