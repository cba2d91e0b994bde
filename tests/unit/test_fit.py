"""A plan that does not fit is refused before step 1, with what needs how much and with what would fit."""

from __future__ import annotations

from functools import cache

import pytest

from core.engine import Engine, Settings
from core.errors import DeviceError
from core.graph import load_model
from core.loader import load_registry
from core.plan import arena, figures, fit
from core.plan.step_tensors import nbytes_of

DIMS = {"B": 8, "T": 64, "S": 64, "V": 50, "P": 64, "C": 64, "H": 4, "L": 3}


@cache
def registry():
    return load_registry()


def engine(**settings):
    dims = {**DIMS, **settings.pop("dims", {})}
    return Engine(load_model("gpt2_124m", registry()), registry(), Settings(dims=dims, optimizer="adamw", **settings))


def measure(dims, ops):
    other = engine(dims=dims, recompute=tuple(ops))
    return fit.needed(other.report(other.plan("train")).memory())


def need(**settings):
    made = engine(**settings)
    return fit.needed(made.report(made.plan("train")).memory())


def refused(free, **settings):
    made = engine(**settings)
    plan = made.plan("train")
    with pytest.raises(DeviceError) as caught:
        fit.check_fit(plan, made.report(plan).memory(), free + fit.RESERVE, device="a GPU", measure=measure)
    assert caught.value.exit_code == 4
    return caught.value


def test_a_plan_that_fits_passes_to_the_last_byte():
    made = engine()
    plan = made.plan("train")
    memory = made.report(plan).memory()
    fit.check_fit(plan, memory, fit.needed(memory) + fit.RESERVE)
    with pytest.raises(DeviceError):
        fit.check_fit(plan, memory, fit.needed(memory) + fit.RESERVE - 1)


def test_the_table_adds_up_to_what_is_needed():
    made = engine()
    plan = made.plan("train")
    memory = made.report(plan).memory()
    parts = ("parameters", "gradients", "optimizer", "activations")
    assert fit.needed(memory) == sum(memory[p] for p in parts)
    message = refused(fit.needed(memory) - fit.RESERVE - 1).message
    for word in ("parameters", "gradients", "optimizer", "saved", "workspace", "in all", "free", "largest tensors"):
        assert word in message


def test_the_largest_tensors_are_those_of_the_fullest_step():
    plan = engine().plan("train")
    rows = fit.largest(plan, 1000)
    step = arena.fullest(plan)
    alive = [b for b in plan.in_arena if b.first <= step <= b.last]
    assert sum(r["nbytes"] for r in rows) == sum(b.nbytes for b in alive) <= plan.arena_bytes
    assert [r["nbytes"] for r in rows] == sorted((r["nbytes"] for r in rows), reverse=True)
    assert any("h.*." in r["name"] and "3 x" in r["what"] for r in rows)


def test_the_rows_of_the_arena_are_the_plans_figures_and_what_is_kept_has_a_role_of_its_own():
    plan = engine().plan("train")
    rows = arena.buffer_rows(plan)
    assert max(row["offset"] + row["bytes"] for row in rows) == plan.arena_bytes
    assert sum(row["bytes"] for row in rows if row["role"] == "saved") == plan.saved_bytes > 0
    assert all((row["role"] == "saved") == (row["first"] < plan.backward_from <= row["last"]) for row in rows)
    assert {row["node"] for row in rows if row["name"] == "h.0.fc"} == {"h.0.fc"}
    used = arena.levels(plan)
    assert len(used) == len(plan.steps) + 1 and max(used) == used[arena.fullest(plan)] <= plan.arena_bytes
    for step in (0, arena.fullest(plan), len(plan.steps)):
        alive = sum(row["bytes"] for row in rows if row["first"] <= step <= row["last"])
        assert alive == used[step] == sum(row["bytes"] for row in arena.owners(plan, step))
    evaluated = arena.buffer_rows(engine().plan("evaluate", ("loss",)))
    assert evaluated and not {"saved"} & {row["role"] for row in evaluated}


def test_the_advised_batch_fits_and_the_next_larger_divisor_does_not():
    enough = need(dims={"B": 2})
    hint = refused(enough).hint
    assert "--set dims.B=2" in hint
    assert measure({"B": 2}, ()) <= enough < measure({"B": 4}, ())


def test_the_advised_recompute_fits():
    made = engine()
    ops = fit.candidates(made.plan("train"))
    enough = need(recompute=ops[:1])
    assert enough < need()
    assert f'train.recompute=["{ops[0]}"]' in refused(enough).hint


def traffic(plan):
    return sum(map(nbytes_of, plan.steps))


def test_the_options_of_recompute_have_the_figures_of_their_plans():
    made = engine()
    plan = made.plan("train")
    options = {row.pop("op"): row for row in figures.recompute_options(made.report(plan))}
    assert {"gelu", "matmul", "attention"} <= set(options) and "embedding" not in options
    assert list(options) == sorted(options, key=lambda op: -options[op]["saves"])
    for op, row in options.items():
        other = engine(recompute=(op,)).plan("train")
        assert row["saves"] == plan.arena_bytes - other.arena_bytes > 0
        assert row["traffic"] == traffic(other) - traffic(plan) > 0
    B, T, C, L = (DIMS[name] for name in "BTCL")
    products = 2 * B * T * C * (L * (3 * C + 4 * C) + DIMS["P"])  # qkv, fc, logits: no backward reads proj and down
    assert options["gelu"]["flops"] == 0 and options["matmul"]["flops"] == products
    assert options["matmul"]["unfused"] == ["head_loss"] and options["gelu"]["unfused"] == []


def test_what_is_recomputed_already_is_no_option_and_stays_in_the_plans_of_the_others():
    made = engine(recompute=("gelu",))
    options = {row["op"]: row for row in figures.recompute_options(made.report(made.plan("train")))}
    assert "gelu" not in options
    assert options["layernorm"]["saves"] == need(recompute=("gelu",)) - need(recompute=("gelu", "layernorm"))
    evaluated = engine().report(engine().plan("evaluate", ("loss",)))
    assert figures.recompute_options(evaluated) == []


def test_a_model_that_fits_under_no_batch_says_so():
    assert "not even B = 1" in refused(2**16).hint
