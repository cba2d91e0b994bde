"""How far the op check reaches: padding that an op claims, caches beyond a call's tokens, every tile at large sizes."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.loader import load_registry
from core.op import Op, Reference, Variant
from core.registry import Registry
from core.testing import check
from core.testing.check import check_variant
from core.testing.check_report import VariantReport
from core.testing.log import Log
from core.testing.model_sizes import Task, check_sizes
from core.testing.real_sizes import check_real_sizes
from core.testing.runner import CpuRunner
from core.testing.trials import reference_of, trials_of
from core.verdicts import largest, sizes_of

REAL = load_registry()
ROOT = Path(__file__).parents[2]


def checked(op: Op, *variants: Variant, **how: Any) -> VariantReport:
    """The check of the last of these variants; the first is the op's reference."""
    held = Registry()
    held.ops[op.name] = op
    held.variants[op.name] = {"reference": variants[0], **{v.name: v for v in variants[1:]}}
    return check_variant(op, variants[-1], held, **how)


# --- what an op claims of padding ------------------------------------------------------------------------------------


def elementwise(f: Any, df: Any) -> tuple[Op, Reference]:
    """An op y = f(x) of any shape that claims to be right with padding everywhere."""
    op = Op("each", inputs={"x": "..."}, outputs={"y": "..."}, padding=("...",), examples=[{"x": (3, 7)}, {"x": (9,)}])

    def forward(self: Any, t: Any) -> None:
        t.y[...] = f(t.x)

    def backward(self: Any, t: Any) -> None:
        t.add("dx", t.dy * df(t.x))

    methods = {"op": "each", "reads": ("x",), "forward": forward, "backward": backward}
    return op, type("Each", (Reference,), methods)()


def centred() -> tuple[Op, Reference]:
    """y = x - mean(x) over C, which padding of C changes although it may stay zero."""
    op = Op("each", inputs={"x": "... C"}, outputs={"y": "... C"}, padding=("C",), examples=[{"x": (3, 7)}])

    def forward(self: Any, t: Any) -> None:
        t.y[...] = np.where(t.x == 0, 0, t.x - t.x.mean(-1, keepdims=True))

    def backward(self: Any, t: Any) -> None:
        t.add("dx", np.where(t.x == 0, 0, t.dy - t.dy.mean(-1, keepdims=True)))

    methods = {"op": "each", "reads": ("x",), "forward": forward, "backward": backward}
    return op, type("Each", (Reference,), methods)()


CLAIMS: dict[str, tuple[Any, str]] = {
    "true": (lambda: elementwise(np.tanh, lambda x: 1 - np.tanh(x) ** 2), ""),
    "zeros do not stay zero": (lambda: elementwise(np.exp, np.exp), "y: 1 at [0, 7], which is padding, of [3, 7]"),
    "the rest changes": (centred, "y (with padding=('C',)): relative error"),
}


@pytest.mark.parametrize("what", CLAIMS)
def test_a_false_claim_of_padding_fails(what: str) -> None:
    make, says = CLAIMS[what]
    report = checked(*make())
    assert report.failed_checks() == ["padding"] * bool(says) and report.checks["padding"][0] > 0
    assert not says or says in report.first.message


def test_a_variant_that_writes_into_padding_fails() -> None:
    op, reference = elementwise(np.tanh, lambda x: 1 - np.tanh(x) ** 2)

    class Ones(Variant):
        op, name, device, dtypes, reads = "each", "ones", "cpu", ("f32",), ("x",)

        def forward(self, t: Any, launch: Any) -> None:
            launch.call(lambda: np.tanh(t.x, out=t.y))

        def backward(self, t: Any, launch: Any) -> None:
            launch.call(lambda: np.multiply(t.dy + (t.x == 0), 1 - np.tanh(t.x) ** 2, out=t.dx))

    report = checked(op, reference, Ones())
    assert "padding" in report.failed_checks()
    assert "dx: 1 at [0, 7], which is padding" in report.describe_failures()


def test_every_op_that_claims_padding_is_held_to_it() -> None:
    """No example of an op is such that its claim is looked at nowhere."""
    from core.testing.padded import padded_trial

    for op in (op for op in REAL.ops.values() if op.padding):
        trials, _ = trials_of(op, reference_of(op, REAL), REAL, dtypes=("f32",))
        assert [t for t in trials if t.case.longest < 512 and padded_trial(t) is not None], op.name


# --- caches that are longer than what a call may take ----------------------------------------------------------------


class Few(type(REAL.variant("attention", "reference"))):  # type: ignore[misc]
    """Attention that takes four tokens at once and is wrong behind 128 of them."""

    name, wrong = "few", True

    def why_not(self, t: Any) -> str | None:
        return "at most 4 tokens at once" if t.T > 4 else None

    def forward(self, t: Any) -> None:
        super().forward(t)
        if t.start is not None and self.wrong:
            t.y[t.start >= 128] += 1


@pytest.mark.parametrize("wrong", [False, True])
def test_a_kernel_for_few_tokens_is_held_to_caches_that_they_fill_in_pieces(wrong: bool) -> None:
    op, few = REAL.op("attention"), Few()
    few.wrong = wrong
    report = checked(op, REAL.variant("attention", "reference"), few, dtypes=("f32",))
    assert report.failed_checks() == (["decode"] if wrong else []), report.describe_failures()
    assert report.sizes["f32"]["S"] >= 131 and report.sizes["f32"]["T"] <= 4
    assert not wrong or "after [130] at once" in report.first.message


@pytest.mark.parametrize("wrong", [False, True])
def test_a_session_of_generation_has_its_decoding_checked_at_its_own_length(wrong: bool) -> None:
    few = Few()
    few.wrong = wrong
    held = Registry()
    held.ops["attention"] = REAL.op("attention")
    held.variants["attention"] = {**REAL.variants["attention"], "few": few}
    task = Task("attention", "few", "f32", {"qkv": (1, 150, 24), "heads": 1}, decode=True)
    found = check_sizes(task, held, CpuRunner(held))
    assert found.passed is not wrong and found.finding.startswith("decode: y (") is wrong
    assert wrong or found.sizes["S"] >= 150


# --- every tile at large sizes ---------------------------------------------------------------------------------------


class Slow(CpuRunner):
    """The cpu as a device that is slow, as the simulator is."""

    slow = True


def test_every_tile_candidate_is_held_to_large_examples_too(monkeypatch: pytest.MonkeyPatch) -> None:
    op = Op("each", inputs={"x": "... C"}, outputs={"y": "... C"}, examples=[{"x": (3, 7)}, {"x": (2, 600)}])
    _, reference = elementwise(np.tanh, lambda x: 1 - np.tanh(x) ** 2)

    class Tiles(Variant):
        op, name, device, dtypes, reads = "each", "tiles", "cpu", ("f32",), ("x",)

        def configs(self, t: Any) -> list[Mapping[str, int]]:
            return [{"TILE": 1}, {"TILE": 2}]

        def forward(self, t: Any, launch: Any) -> None:
            wrong = t.config["TILE"] == 2 and t.C > 512
            launch.call(lambda: np.tanh(t.x * (1 + wrong), out=t.y))

        def backward(self, t: Any, launch: Any) -> None:
            launch.call(lambda: np.multiply(t.dy, 1 - np.tanh(t.x) ** 2, out=t.dx))

    monkeypatch.setattr(check, "CpuRunner", Slow)
    report = checked(op, reference, Tiles())
    assert report.failed_checks() == ["configs"] and "{'TILE': 2}" in report.first.message


def test_every_tile_candidate_of_an_update_is_compared() -> None:
    op = Op("decay", inputs={"param": "n"}, gradient=False, mutates=("param",), examples=[{"param": (7,)}])

    class Halved(Reference):
        op = "decay"

        def forward(self, t: Any) -> None:
            t.param /= 2

    class Tiles(Variant):
        op, name, device, dtypes = "decay", "tiles", "cpu", ("f32",)

        def configs(self, t: Any) -> list[Mapping[str, int]]:
            return [{"TILE": 1}, {"TILE": 2}]

        def forward(self, t: Any, launch: Any) -> None:
            share = 0.5 if t.config["TILE"] == 1 else 0.75
            launch.call(lambda: np.multiply(t.param, share, out=t.param))

    report = checked(op, Halved(), Tiles())
    assert report.failed_checks() == ["update"] and "{'TILE': 2}" in report.first.message


# variants with several tile candidates -> dims that their kernels sweep, and the largest tile of any candidate there
TILES = {"rows": 128, "K": 64, "features": 128}
SWEPT = {
    "matmul.mma": TILES,
    "matmul_add.mma": TILES,
    "mlp_gelu.mma": {**TILES, "hidden": 128},
    "head_loss.mma": TILES,
    "expert_matmul.mma": {"T": 128, "K": 192, "features": 128},  # of K, three stages
    "muon_update.mma": {"A": 128, "B": 128},
    "attention.flash": {"T": 128, "D": 64},  # 16 rows times BLOCKS times WARPS_I; columns that are kept whole
    "rope_attention.decode": {"T": 32, "D": 32},  # keys and columns by lane; more keys while decoding: S
}


def tile_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a config's kernels are compiled with; the rest are sizes of a grid."""
    return {k: v for k, v in config.items() if k not in ("chunk", "slices")}


def sizes_by_tile(op: Op, variant: Variant) -> dict[str, dict[str, int]]:
    """Each tile candidate of a variant -> the largest size of each dim that it is held to."""
    found: dict[str, dict[str, int]] = {}
    for trial in trials_of(op, variant, REAL)[0]:
        for config in trial.configs:
            told = str(tile_of(config))
            found[told] = largest([found.get(told, {}), sizes_of(op, trial.case.dims)])
    return found


def test_every_tile_candidate_of_ours_is_held_beyond_itself_in_each_dim_that_is_swept() -> None:
    chosen = {type(v).configs for of in REAL.variants.values() for v in of.values()} - {Variant.configs}
    several = {
        f"{v.op}.{v.name}": sizes_by_tile(REAL.op(v.op), v)
        for of in REAL.variants.values()
        for v in of.values()
        if type(v).configs in chosen and v.sources and not v.library
    }
    assert set(several) == set(SWEPT) and all(len(found) > 1 for found in several.values())
    for name, found in several.items():
        for config, sizes in found.items():
            assert all(sizes[dim] > tile for dim, tile in SWEPT[name].items()), f"{name} {config}: {sizes}"
    for path in (p for folder in ("ops", "plugins") for p in (ROOT / folder).rglob("tuned.toml")):
        for choice in tomllib.loads(path.read_text("utf-8"))["choice"]:
            name = f"{choice['what'].split()[0]}.{choice['variant']}"
            assert not choice.get("config") or str(tile_of(choice["config"])) in several[name], choice


# --- kernels that are wrong only somewhere ---------------------------------------------------------------------------


def twisted(op: str, forward: Any = None, backward: Any = None) -> Variant:
    """A variant as the op's reference is, with something done to what each direction leaves."""
    base = type(REAL.variant(op, "reference"))

    def both(self: Any, t: Any) -> None:
        base.forward(self, t)
        if forward is not None:
            forward(t)

    def back(self: Any, t: Any) -> None:
        base.backward(self, t)
        if backward is not None and t.dx is not None:
            backward(t)

    methods = {"forward": both, **({"backward": back} if backward is not None else {})}
    return type("Twisted", (base,), {**methods, "name": "twisted", "dtypes": ("f32",), "tf32": False})()  # type: ignore[no-any-return]


def off(where: Callable[[Any], Any], tensor: str = "y") -> Callable[[Any], None]:
    """5 % more, and a little besides, in the elements of a tensor of t that `where` chooses."""

    def change(t: Any) -> None:
        held, chosen = getattr(t, tensor), where(t)
        held[...] = np.where(np.broadcast_to(chosen, held.shape), held * np.float32(1.05) + np.float32(0.01), held)

    return change


def columns(t: Any, first: int) -> Any:
    return np.arange(t.C) >= first


def tied(t: Any) -> Any:
    real = t.logits.reshape(-1, t.P)[:, : t.classes]
    return ((real == real.max(-1, keepdims=True)).sum(-1) > 1).reshape(t.loss.shape)


NORM = "layernorm"
TWINS: dict[str, Variant] = {
    "rows beyond 512": twisted(NORM, off(lambda t: t.rows > 512)),
    "the last row alone": twisted(NORM, off(lambda t: np.arange(t.rows).reshape(*t.x.shape[:-1], 1) == t.rows - 1)),
    "backward beyond 128 columns": twisted(NORM, backward=off(lambda t: columns(t, 128), "dx")),
    "backward beyond 1,024 rows": twisted(NORM, backward=off(lambda t: t.rows > 1024, "dx")),
    "columns beyond 1,024": twisted(NORM, off(lambda t: columns(t, 1024))),
    "negative numbers": twisted(NORM, off(lambda t: t.x < 0)),
    "far negative numbers": twisted(NORM, off(lambda t: t.x < -50)),
    "an odd number of columns": twisted(NORM, off(lambda t: t.C % 2 == 1)),
    "no multiple of 4": twisted(NORM, backward=off(lambda t: t.C % 4 != 0, "dx")),
    "where it is added": twisted(NORM, backward=off(lambda t: t.add_dx, "dx")),
    "where it is added to many rows": twisted(NORM, backward=off(lambda t: t.add_dx and t.rows > 512, "dx")),
    "without a bias": twisted(NORM, off(lambda t: t.bias is None)),
    "rows whose numbers are equal": twisted(NORM, off(lambda t: t.x.std(-1, keepdims=True) == 0)),
    "ties": twisted("cross_entropy", off(tied, "loss")),
    "classes beyond 4,096": twisted("cross_entropy", off(lambda t: t.classes > 4096, "loss")),
    "ignored targets": twisted("cross_entropy", off(lambda t: t.targets < 0, "loss")),
}


@pytest.mark.parametrize("what", TWINS)
def test_a_variant_that_is_wrong_only_for_some_sizes_or_contents_fails(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "CpuRunner", Slow)
    variant = TWINS[what]
    report = check_variant(REAL.op(variant.op), variant, REAL, whole=False)
    assert not report.passed and report.first.check != "schema"


BEYOND: dict[str, tuple[Variant, tuple[int, ...]]] = {
    "rows beyond 2,000": (twisted(NORM, off(lambda t: t.rows > 2000)), (4, 512, 16)),
    "columns beyond 2,000": (twisted(NORM, backward=off(lambda t: columns(t, 2000), "dx")), (8, 2048)),
    "many rows of many columns": (twisted(NORM, off(lambda t: t.rows > 512 and t.C > 512)), (1024, 520)),
    "rows that are no multiple of 4, many": (twisted(NORM, off(lambda t: t.rows > 1031 and t.rows % 4)), (1043, 16)),
}


@pytest.mark.parametrize("what", BEYOND)
def test_a_variant_that_is_right_at_all_examples_fails_at_the_sizes_that_it_is_trained_at(what: str) -> None:
    variant, shape = BEYOND[what]
    assert check_variant(REAL.op(NORM), variant, REAL, whole=False).passed
    held = Registry()
    held.ops[NORM], held.variants[NORM] = REAL.op(NORM), {**REAL.variants[NORM], "twisted": variant}
    found = check_sizes(Task(NORM, "twisted", "f32", {"x": shape}), held, CpuRunner(held))
    assert not found.passed and "relative error" in found.finding


def test_a_variant_that_is_wrong_beyond_its_examples_fails_at_sizes_of_practice() -> None:
    log, op = Log(), REAL.op(NORM)
    variant = twisted(NORM, off(lambda t: t.rows > 2000))
    check_real_sizes(log, op, variant, REAL, CpuRunner(REAL), reference_of(op, REAL), ("f32",))
    assert log.failures and log.failures[0].check == "forward"
