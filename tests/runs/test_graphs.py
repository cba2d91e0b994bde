"""Random models over all registered ops against numeric derivatives, and a planner that is broken on purpose."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import tomli

from core import Op, Reference
from core.errors import CoreError
from core.testing import graph_faults, graph_shapes, graph_trial, graphs
from core.testing.graph_models import random_model
from core.testing.graph_schemas import padded

# Models that have every op and every way to plan; a plain `python -m core.testing.graphs` tries more
SEEDS = (*range(81), 88, 133)  # the last ones for padding in small ops
PARTS = 2  # of the models, so that no test is long


@functools.cache
def registry():
    return graph_trial.registry_of(())


@functools.cache
def model_of(seed):
    return random_model(seed, registry())


@pytest.mark.parametrize("part", range(PARTS))
def test_random_models_have_the_derivatives_of_their_loss_and_keep_every_promise_of_the_planner(part):
    wrong = []
    for seed in SEEDS[part::PARTS]:
        if said := graph_trial.failure(model_of(seed), registry()):
            wrong.append(f"seed {seed}: {said}")
    assert not wrong, "\n".join([*wrong, "python -m core.testing.graphs --graphs 1 --seed SEED prints the least model"])


def test_a_seed_is_one_model_and_its_text_is_that_model():
    for seed in range(20):
        model, again = model_of(seed), random_model(seed, registry())
        assert model == again
        assert tomli.loads(str(model)) == model.document


def test_every_op_with_a_gradient_and_every_way_to_plan_is_in_some_model():
    graphs_by_hand = (shape.source.build(registry()) for shape in graph_shapes.shapes().values())
    seen = {f"padding in {n.op.name}" for graph in graphs_by_hand for n in graph.nodes if padded(n, graph)}
    for seed in SEEDS:
        seen |= model_of(seed).features
    for op in (op for op in registry().ops.values() if op.gradient and op.inputs):
        if op.replaces:  # the head with its loss is in every model, without being written as a pattern
            assert f"pattern of {op.name}" in seen or "cross_entropy(" in op.replaces, op.name
        else:
            assert f"op {op.name}" in seen, op.name
            assert not op.padding or f"padding in {op.name}" in seen, op.name
    assert seen >= {
        *("values used twice", "the same value twice in a node", "residuals", "ties", "several loss terms"),
        *("scalar loss terms", "carried lists", "blocks", "nested blocks", "freeze", "recompute", "alias", "in_place"),
        *("optional inputs",),
    }


def test_the_ops_of_a_plugin_take_part_and_a_wrong_gradient_of_theirs_is_found(monkeypatch):
    class Wrong(Reference):
        op = "shrink"

        def forward(self, t):
            t.y[...] = t.x / 3

        def backward(self, t):
            t.add("dx", t.dy / 2)

    real = registry()
    monkeypatch.setitem(real.ops, "shrink", Op("shrink", inputs={"x": "... C"}, outputs={"y": "... C"}))
    monkeypatch.setitem(real.variants, "shrink", {"reference": Wrong()})
    model = next(m for m in (random_model(s, real) for s in range(200)) if "op shrink" in m.features)
    assert "along a direction" in graph_trial.failure(model, real)
    least = graphs.smaller(model, real)
    assert (
        len(str(least)) < len(str(model))
        and '"shrink"' in str(least)
        and "along a direction" in graph_trial.failure(least, real)
    )


def test_memory_that_a_plan_forgets_to_write_is_not_finite():
    trial = graph_trial.GraphTrial(random_model(0, registry()), registry())
    graph_trial.spoil(trial.plain, [trial.batch])
    assert np.isnan(trial.plain.store.grads).all() and np.isnan(trial.plain.arena.fit(1).view("f8")).all()


@pytest.mark.parametrize("number", range(len(graph_faults.FAULTS)), ids=lambda n: graph_faults.FAULTS[n].label)
def test_a_fault_of_the_planner_is_caught(number):
    count, said = graph_faults.caught_after(number)
    assert count and said


@pytest.mark.parametrize("name", graph_shapes.shapes())
def test_a_shape_that_random_models_have_rarely_keeps_every_promise_and_some_fault_is_shown_it(name):
    assert not graph_trial.failure(graph_shapes.shapes()[name], registry())
    assert name in {fault.shape for fault in graph_faults.FAULTS}


def test_the_number_of_faults_is_the_one_in_the_docs():
    page = (Path(__file__).parents[2] / "docs/checks.md").read_text("utf-8")
    count, shaped = len(graph_faults.FAULTS), len(graph_shapes.shapes())
    assert f"{count} of {count} faults caught, {shaped} by shapes of their own" in page
    assert f"{count - shaped} are caught again" in page and f"other {shaped} need" in " ".join(page.split())


def test_a_planted_fault_is_taken_out_again_and_one_whose_text_is_gone_is_an_error():
    fault = graph_faults.FAULTS[1]
    with graph_faults.planted(fault):
        assert graph_trial.failure(model_of(2), registry())
    assert not graph_trial.failure(model_of(2), registry())
    with (
        pytest.raises(ValueError, match="0 times; expected once"),
        graph_faults.planted(graph_faults.Fault("gone", fault.module, "no such text", "")),
    ):
        pass


def test_the_command_prints_what_was_tried_and_the_least_model_of_a_failure(capsys):
    from click.testing import CliRunner

    done = CliRunner().invoke(graphs.command, ["--graphs", "2", "--seed", "5", "--jobs", "1"])
    assert done.exit_code == 0 and "2 models from seed 5: 0 wrong" in done.output
    with graph_faults.planted(graph_faults.FAULTS[1]):
        wrong = CliRunner().invoke(graphs.command, ["--graphs", "1", "--seed", "2", "--jobs", "1"])
    assert wrong.exit_code == 1 and "[graph]" in wrong.output and "--seed 2" in wrong.output


def test_an_error_of_the_planner_counts_as_a_failure(monkeypatch):
    def refuse(*args, **kwargs):
        raise CoreError("no plan")

    monkeypatch.setattr(graph_trial, "Engine", refuse)
    assert graph_trial.failure(model_of(0), registry()) == "no plan"
