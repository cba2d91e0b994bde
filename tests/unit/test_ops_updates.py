"""Norm, AdamW, schedules, and the functions that ops stand on: each against its definition or a peer."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from core.device.cpu import record
from core.kernels.nvrtc import prelude_file
from core.op import Op, Variant, make_tensors
from core.step_record import CONTROL, SLOT, StepRecord, mask, stretches

ops = pytest.importorskip("core.ops")
OPS: dict[str, Op] = {op.name: op for op in ops.core_ops()}
VARIANTS: list[Variant] = [v() for v in ops.core_variants("cpu") if v.device == "cpu"]
NORMS = [v for v in VARIANTS if v.op == "global_norm"]
UPDATES = [v for v in VARIANTS if v.op == "adamw_update"]
SCHEDULES = {s.name: s() for s in ops.core_schedules()}


NO_LIMITS = {"loss_limit": math.inf, "norm_limit": math.inf}


def control(**values: float) -> Any:
    record = np.zeros(len(CONTROL))
    for name, value in {"scale": 1.0, "ok": 1.0, "loss_scale": 1.0, **NO_LIMITS, **values}.items():
        record[SLOT[name]] = value
    return record


def run(variant: Variant, step: Any, attrs: dict[str, Any], **tensors: Any) -> None:
    op = OPS[variant.op]
    shapes = {k: v.shape for k, v in tensors.items() if v is not None}
    dims = op.solve(shapes, op.settle_attrs(attrs, {}, op.name), op.name)
    for command in record(variant, "forward", make_tensors(dims, {**tensors, "step": step})):
        command()


def norm_of(variant: Variant, grad: Any, clip: float = 0.0, **values: float) -> Any:
    step = control(**{"scale": math.nan, "ok": math.nan, **values})
    before = grad.copy()
    run(variant, step, {"clip": clip}, grad=grad)
    assert np.array_equal(grad, before, equal_nan=True)
    return {name: step[SLOT[name]] for name in CONTROL}


@pytest.mark.parametrize("variant", NORMS, ids=repr)
@pytest.mark.parametrize("n", [1, 64, 8192, 8192 * 3 + 64, 100_001])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_norm_is_the_2_norm_of_all_elements(variant: Variant, n: int, dtype: Any) -> None:
    grad = np.random.default_rng(0).standard_normal(n).astype(dtype)
    expected = math.sqrt(math.fsum(float(g) ** 2 for g in grad))
    got = norm_of(variant, grad, step=4)
    assert got["norm"] == pytest.approx(expected, rel=1e-6 if dtype == np.float32 else 1e-13)
    assert (got["ok"], got["scale"], got["step"], got["halted"]) == (1, 1, 5, 0)


@pytest.mark.parametrize("variant", NORMS, ids=repr)
def test_clipping_is_torchs(variant: Variant) -> None:
    torch = pytest.importorskip("torch")
    for size in (0.1, 1.0, 30.0):
        grad = np.random.default_rng(0).standard_normal(640) * size
        parameter = torch.zeros(640, dtype=torch.float64)
        parameter.grad = torch.tensor(grad)
        norm = torch.nn.utils.clip_grad_norm_([parameter], 1.0)
        got = norm_of(variant, grad, clip=1.0)
        assert got["norm"] == pytest.approx(norm.item(), rel=1e-13)
        np.testing.assert_allclose(grad * got["scale"], parameter.grad.numpy(), rtol=1e-13)


@pytest.mark.parametrize("variant", NORMS, ids=repr)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["gradient", "last gradient", "loss", "lr"])
def test_what_is_not_finite_halts_for_good(variant: Variant, bad: float, where: str) -> None:
    grad = np.ones(8192 + 64, np.float32)
    if "gradient" in where:
        grad[{"gradient": 5, "last gradient": -1}[where]] = bad
    record = {"loss": 1.0, "lr": 0.1, **({where: bad} if "gradient" not in where else {})}
    got = norm_of(variant, grad, clip=1.0, step=7, **record)
    assert (got["ok"], got["halted"], got["step"]) == (0, 1, 7)
    later = norm_of(variant, np.ones(64), step=7, halted=1)
    assert (later["ok"], later["halted"], later["step"]) == (0, 1, 7)


@pytest.mark.parametrize("variant", NORMS, ids=repr)
@pytest.mark.parametrize("limit", ["loss_limit", "norm_limit"])
def test_what_is_above_a_limit_skips_its_own_step_only(variant: Variant, limit: str) -> None:
    grad = np.ones(64, np.float32)
    for value, ok in ((8.0, 1), (7.999, 0)):
        got = norm_of(variant, grad, step=7, loss=8.0, **{limit: value})
        assert (got["ok"], got["halted"], got["step"]) == (ok, 0, 7 + ok)


SCALING = {"loss_scale": 32.0, "growth_steps": 3.0, "good_steps": 1.0, "least_scale": 8.0}


@pytest.mark.parametrize("variant", NORMS, ids=repr)
def test_the_update_sees_gradients_without_their_loss_scale(variant: Variant) -> None:
    grad = np.full(64, 4.0)  # a norm of 32, and of 1 without the scale
    got = norm_of(variant, grad, clip=0.5, loss=2.0, step=7, **SCALING)
    assert (got["norm"], got["loss"], got["ok"], got["step"]) == (1.0, 2.0, 1, 8)
    assert got["scale"] == 0.5 / (1 + 1e-6) / 32


@pytest.mark.parametrize("variant", NORMS, ids=repr)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_overflow_skips_its_step_and_halves_the_scale_down_to_its_least(variant: Variant, bad: float) -> None:
    """At the least scale it is a fault, as without a scale that changes; so is a loss that is not finite."""
    grad = np.full(64, bad)
    for before, after, halted in ((32.0, 16.0, 0), (12.0, 8.0, 0), (8.0, 8.0, 1)):
        got = norm_of(variant, grad, step=7, **{**SCALING, "loss_scale": before})
        assert (got["ok"], got["step"], got["good_steps"]) == (0, 7, 0)
        assert (got["loss_scale"], got["halted"]) == (after, halted), before
    for more in ({"growth_steps": 0.0}, {"loss": math.inf}, {"lr": math.nan}):
        got = norm_of(variant, grad, step=7, **{**SCALING, **more})
        assert (got["loss_scale"], got["halted"]) == (32, 1), more


@pytest.mark.parametrize("variant", NORMS, ids=repr)
def test_the_scale_doubles_after_so_many_steps_with_finite_gradients(variant: Variant) -> None:
    """One that is skipped for its loss is among them."""
    seen, record = [], dict(SCALING)
    for step in range(4):
        got = norm_of(variant, np.ones(64), loss=float(step), **{**record, "loss_limit": 0.5})
        record = {name: float(got[name]) for name in SCALING}
        seen.append((record["loss_scale"], record["good_steps"], float(got["ok"])))
    assert seen == [(32, 2, 1), (64, 0, 0), (64, 1, 0), (64, 2, 0)]


def weights(n: int, dtype: Any, seed: int = 0) -> dict[str, Any]:
    r = np.random.default_rng(seed)
    made = {name: r.standard_normal(n).astype(dtype) for name in ("param", "grad", "m", "v")}
    made["v"] = np.square(made["v"])
    made["group"] = r.integers(0, 4, -(-n // 64)).astype(np.uint8)
    return made


def update(variant: Variant, values: dict[str, Any], step: Any, **attrs: float) -> dict[str, Any]:
    """The tensors after one update; the gradient and the groups stay as they are."""
    after: dict[str, Any] = {k: None if v is None else v.copy() for k, v in values.items()}
    after.setdefault("master", None)
    run(variant, step, attrs, **after)
    assert np.array_equal(after["grad"], values["grad"]) and np.array_equal(after["group"], values["group"])
    return after


@pytest.mark.parametrize("variant", UPDATES, ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [64, 1000, 64 * 1100 + 3])
def test_adamw_is_its_formula_element_by_element(variant: Variant, dtype: Any, n: int) -> None:
    values = weights(n, dtype)
    if n == 64 * 1100 + 3:  # long stretches and a cut inside a block of 32k elements
        values["group"][:] = 3
        values["group"][700:] = 2
    lr, k, scale, b1, b2, eps, wd = 0.02, 3, 0.5, 0.8, 0.9, 1e-6, 0.3
    after = update(variant, values, control(lr=lr, step=k, scale=scale), beta1=b1, beta2=b2, eps=eps, weight_decay=wd)
    bits = np.repeat(values["group"], 64)[:n]
    x = {name: value.astype(np.float64) for name, value in values.items()}
    m = b1 * x["m"] + (1 - b1) * scale * x["grad"]
    v = b2 * x["v"] + (1 - b2) * (scale * x["grad"]) ** 2
    p = x["param"] - lr * (m / (1 - b1**k) / (np.sqrt(v / (1 - b2**k)) + eps) + wd * (bits & 1) * x["param"])
    tolerance = 2e-6 if dtype == np.float32 else 1e-14
    for name, expected in (("m", m), ("v", v), ("param", p)):
        expected = np.where(bits & 2, expected, x[name])
        np.testing.assert_allclose(after[name], expected, rtol=tolerance, atol=tolerance)
        frozen = (bits & 2) == 0
        assert np.array_equal(after[name][frozen], values[name][frozen])


@pytest.mark.parametrize("variant", UPDATES, ids=repr)
def test_ten_adamw_steps_are_torchs(variant: Variant) -> None:
    torch = pytest.importorskip("torch")
    values = {
        **weights(192, np.float64),
        "m": np.zeros(192),
        "v": np.zeros(192),
        "group": np.array([3, 3, 2], np.uint8),
    }
    parts = [torch.nn.Parameter(torch.tensor(values["param"][s])) for s in (slice(0, 128), slice(128, 192))]
    groups = [{"params": [p], "weight_decay": wd} for p, wd in zip(parts, (0.1, 0.0), strict=True)]
    peer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), eps=1e-8)
    for k in range(1, 11):
        grad = np.random.default_rng(k).standard_normal(192)
        for part, piece in zip(parts, (grad[:128], grad[128:]), strict=True):
            part.grad = torch.tensor(piece)
        peer.step()
        values = update(variant, {**values, "grad": grad}, control(lr=1e-2, step=k))
    expected = np.concatenate([p.detach().numpy() for p in parts])
    np.testing.assert_allclose(values["param"], expected, rtol=1e-13)


@pytest.mark.parametrize("variant", UPDATES, ids=repr)
def test_a_step_that_is_not_ok_changes_nothing(variant: Variant) -> None:
    values = weights(640, np.float32)
    after = update(variant, values, control(lr=0.1, step=3, ok=0))
    assert all(np.array_equal(after[k], values[k]) for k in values)


@pytest.mark.parametrize("variant", UPDATES, ids=repr)
def test_padding_stays_exactly_zero(variant: Variant) -> None:
    values = {k: np.zeros(128, np.float32) for k in ("param", "grad", "m", "v")}
    values["group"] = np.array([3, 3], np.uint8)
    after = update(variant, values, control(lr=0.1, step=1))
    assert not any(after[k].any() for k in ("param", "m", "v"))


@pytest.mark.parametrize("variant", UPDATES, ids=repr)
def test_master_weights_are_updated_and_rounded_into_the_parameters(variant: Variant) -> None:
    values = weights(128, np.float64)
    values["group"][:] = 3
    values["master"] = values["param"] + 1e-3
    after = update(variant, values, control(lr=0.1, step=2))
    alone = update(variant, {**values, "param": values["master"], "master": None}, control(lr=0.1, step=2))
    assert np.array_equal(after["master"], alone["param"]) and np.array_equal(after["param"], after["master"])


# --- the optimizer ---------------------------------------------------------------------------------------------


def test_adamw_launches_norm_then_update_over_the_whole_arenas() -> None:
    class Launch:
        calls: list[tuple[str, dict[str, Any]]] = []

        def op(self, name: str, **values: Any) -> None:
            OPS[name].settle_attrs({k: v for k, v in values.items() if k in OPS[name].attrs}, {}, name)
            assert set(values) == {*OPS[name].inputs, *OPS[name].attrs, "step"}
            self.calls.append((name, values))

    class Arenas:
        grad, control = "grad", "control"
        flat = dict.fromkeys(("param", "grad", "m", "v", "master", "group", "step"), "tensor")
        groups = [SimpleNamespace(flat={**flat, "lr_factor": 0.5}, weight_decay=0.2)]
        betas, eps, clip = [0.9, 0.95], 1e-8, 1.0

    (adamw,) = (optimizer() for optimizer in ops.core_optimizers() if optimizer.name == "adamw")
    launch = Launch()
    adamw.step(Arenas(), launch)
    assert [name for name, _ in launch.calls] == ["global_norm", "adamw_update"]
    assert launch.calls[0][1]["clip"] == 1.0
    assert [launch.calls[1][1][name] for name in ("beta2", "lr_factor", "weight_decay")] == [0.95, 0.5, 0.2]


def test_the_step_record_has_a_field_for_each_slot_and_the_prelude_the_same_ones() -> None:
    record = np.arange(float(len(CONTROL))).view(StepRecord)
    assert [getattr(record, name) for name in CONTROL] == list(range(len(CONTROL)))
    record.lr = 0.5
    assert record[SLOT["lr"]] == 0.5
    with pytest.raises(AttributeError, match="no 'lrr'"):
        record.lrr  # noqa: B018
    fields = re.search(r"struct Step \{\s*double ([^;]*);", prelude_file().read_text())
    assert fields and tuple(name.strip() for name in fields[1].split(",")) == CONTROL


def test_masks_and_stretches_name_the_elements_that_train_and_decay() -> None:
    group = np.array([3, 3, 1, 2], np.uint8)  # both, both, decays only, trains only
    trains, decays = (mask(group, name, 200) for name in ("trains", "decays"))
    assert trains.tolist() == [i < 128 or i >= 192 for i in range(200)]
    assert decays.tolist() == [i < 192 for i in range(200)]
    parts = [(part.start, part.stop, decay) for part, decay in stretches(group, 64, 200)]
    assert parts == [(64, 128, True), (192, 200, False)]


# --- schedules -------------------------------------------------------------------------------------------------


def rates(name: str, steps: int, **options: float) -> list[float]:
    schedule = SCHEDULES[name]
    return [schedule.lr(i, steps, 6e-4, {**schedule.options, **options}) for i in range(steps)]


@pytest.mark.parametrize("name", SCHEDULES)
def test_warm_up_rises_by_equal_parts_to_the_peak(name: str) -> None:
    lr = rates(name, 100, warmup=10)
    np.testing.assert_allclose(lr[:10], [6e-4 * (i + 1) / 10 for i in range(10)])
    assert max(lr) == pytest.approx(6e-4) and rates(name, 100)[0] == pytest.approx(6e-4)


@pytest.mark.parametrize("name", ["cosine", "linear", "wsd"])
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_rates_fall_to_the_final_one_at_the_step_behind_the_last(name: str, final: float) -> None:
    lr = rates(name, 100, warmup=10, final=final)
    behind = SCHEDULES[name].lr(100, 100, 6e-4, {**SCHEDULES[name].options, "warmup": 10, "final": final})
    assert behind == pytest.approx(6e-4 * final, abs=1e-15) and lr[-1] > behind
    assert all(a >= b - 1e-15 for a, b in zip(lr[10:], lr[11:], strict=False))


def test_cosine_has_the_rates_of_llm_c() -> None:
    """Its scheduler, written from its definition: 0.5 * (1 + cos(pi * (step - warmup) / (steps - warmup)))."""
    expected = [6e-4 * 0.5 * (1 + math.cos(math.pi * (i - 700) / (18_865 - 700))) for i in (700, 9000, 18_864)]
    got = [SCHEDULES["cosine"].lr(i, 18_865, 6e-4, {"warmup": 700, "final": 0.0}) for i in (700, 9000, 18_864)]
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_schedules_have_their_shapes() -> None:
    cosine, linear, wsd = (rates(n, 100) for n in ("cosine", "linear", "wsd"))
    assert cosine[50] == pytest.approx(3e-4) and cosine[25] == pytest.approx(3e-4 * (1 + math.sqrt(0.5)))
    assert linear[25] == pytest.approx(0.75 * 6e-4)
    assert wsd[80] == 6e-4 > wsd[81] and wsd[90] == pytest.approx(3e-4)
    assert set(rates("constant", 20, warmup=3)[3:]) == {6e-4}
    assert rates("wsd", 100, decay=10)[90] == 6e-4 and rates("wsd", 100, decay=10)[91] == pytest.approx(5.4e-4)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("warmup", [0, 1, 2, 5])
def test_short_runs_have_rates_between_zero_and_the_peak(name: str, steps: int, warmup: int) -> None:
    assert all(0 <= lr <= 6e-4 * (1 + 1e-12) for lr in rates(name, steps, warmup=warmup))


# --- functions -------------------------------------------------------------------------------------------------


def test_erf_is_within_1e_15() -> None:
    from core.ops.erf import erf

    x = np.concatenate([np.linspace(-7, 7, 20_001), [0.46875, 4.0, 1e-300, 30.0, math.inf, -math.inf, -0.0]])
    expected = np.array([math.erf(v) for v in x])
    assert np.abs(erf(x) - expected).max() <= 1e-15
    assert np.abs(erf(x.astype(np.float32)) - expected).max() <= 3e-7
    assert erf(x.astype(np.float32)).dtype == np.float32 and np.isnan(erf(np.array([math.nan])))[0]


def test_philox_gives_the_published_words() -> None:
    """Known answers of the authors' own test: counter and key of zeros, of ones, and of the digits of pi."""
    from core.ops.philox import philox

    known = [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ]
    for counter, key, words in known:
        assert philox(np.array(counter, np.uint32), np.array(key, np.uint32)).tolist() == words


def test_random_words_do_not_depend_on_how_a_step_is_cut_into_micro_batches() -> None:
    from core.ops.philox import words

    whole = words(np.array([1, 2, 3, 0], np.uint32), (4, 5, 7))
    later = words(np.array([1, 2, 3, 2 * 5], np.uint32), (2, 5, 7))
    assert np.array_equal(whole[2:], later)
    for other in ([2, 2, 3, 0], [1, 3, 3, 0], [1, 2, 4, 0]):
        assert not np.array_equal(whole, words(np.array(other, np.uint32), (4, 5, 7)))


def test_dropout_keeps_its_share_and_its_mean() -> None:
    (dropout,) = (v for v in VARIANTS if v.op == "dropout")
    x, y = np.ones((64, 999), np.float32), np.full((64, 999), np.nan, np.float32)
    dims = OPS["dropout"].solve({"x": x.shape}, {"p": 0.3}, "dropout")
    dropout.forward(make_tensors(dims, {"x": x, "y": y, "key": np.array([5, 6, 7, 8], np.uint32)}))
    assert np.unique(y).tolist() == pytest.approx([0, 1 / 0.7])
    assert y.mean() == pytest.approx(1, abs=0.01) and np.abs((y == 0).mean(0) - 0.3).max() < 0.3
    dropout.forward(make_tensors(dims, {"x": x, "y": y, "key": None}))
    assert np.array_equal(x, y)
