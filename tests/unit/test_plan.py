"""What a plan promises: who writes a gradient and who adds, what is fused, overwritten, and where it lies."""

from __future__ import annotations

import math

import numpy as np
import pytest
from gpt2_plans import TINY, engine, fused, model_file, random_batch, steps_of, train_plan
from hypothesis import given, settings
from hypothesis import strategies as st

from core.engine import Engine, Settings
from core.errors import BuildError, UsageError
from core.graph import load_model
from core.loader import load_registry
from core.op import Op, Variant
from core.plan.buffers import Buffer
from core.plan.place import place

HEAD = 'y = {{ op = "matmul", in = "{0}", features = "V" }}'


# --- memory --------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 30), st.integers(0, 10)), max_size=40))
def test_no_two_tensors_that_live_at_once_overlap(spans):
    buffers = [Buffer(str(i), (n,), "f32", first=first, last=first + more) for i, (n, first, more) in enumerate(spans)]
    total = place(buffers)
    for a in buffers:
        assert a.offset % 256 == 0 and a.offset + a.nbytes <= total
        for b in buffers:
            if a is not b and a.first <= b.last and b.first <= a.last:
                assert a.offset + a.nbytes <= b.offset or b.offset + b.nbytes <= a.offset


def test_the_arena_is_smaller_than_the_tensors_that_lie_in_it():
    plan = train_plan()
    assert plan.arena_bytes < 0.7 * sum(b.nbytes for b in plan.in_arena)
    assert plan.arena_bytes >= plan.saved_bytes


# --- gradients -----------------------------------------------------------------------------------------------------


def test_the_first_producer_of_a_parameter_gradient_writes_and_later_ones_add():
    plan = train_plan()
    flags = [
        (s.node.name, s.flags[f"add_d{role}"])
        for s in plan.steps
        for role in ("weight",)
        if s.kind in ("backward", "forward_backward") and s.node.params.get(role) == "wte.weight"
    ]
    assert flags == [("loss", "later"), ("wte", True)]  # the tied head first, then the embedding
    assert not steps_of(plan, "fill")


def test_only_a_partial_first_producer_has_its_gradient_zeroed_and_only_on_the_first_micro_step(tmp_path):
    plan = engine(model_file(tmp_path, HEAD.format("wte")), dims={}).plan("train")
    fills = steps_of(plan, "fill")
    assert [(s.tensors["target"].name, s.first_only) for s in fills] == [("dwte.weight", True)]
    assert steps_of(plan, "backward", "wte")[0].flags["add_dweight"] is True


def test_the_residual_gradient_stays_in_one_buffer():
    plan = train_plan(fusion={"add_layernorm": False})
    residual = {s.tensors["dx"] for s in plan.steps if s.kind == "backward" and s.node.op.name == "layernorm"}
    assert len(residual) == 1
    assert not steps_of(plan, "copy") and not steps_of(plan, "add")
    assert not any(s.node.op.name == "add" for s in plan.steps if s.kind == "backward")  # an alias is no launch


def same_gradients_without_shortcuts(path, top_value="loss", **kwargs):
    """The plan with aliases and in-place gradients gives what the plan without them gives, in f64."""
    kwargs = {"precision": "f64", "dims": {}, **kwargs}
    fast, plain = engine(path, **kwargs), engine(path, **kwargs, alias=False, in_place=False)
    for e in (fast, plain):
        e.initialize(5)
        for name, array in e.parameters().items():
            array += 0.1 * np.random.default_rng(len(name)).standard_normal(array.shape)
    (loss, ours), (expected_loss, expected) = fast.gradients(random_batch()), plain.gradients(random_batch())
    assert loss == pytest.approx(expected_loss, rel=1e-13)
    for name, gradient in expected.items():
        np.testing.assert_allclose(ours[name], gradient, rtol=1e-11, atol=1e-15, err_msg=name)
    return fast.plan("train")


def test_a_gradient_that_two_values_share_is_copied_before_one_of_them_adds(tmp_path):
    graph = 'n = { op = "layernorm", in = "wte" }\ns = { op = "add", in = ["wte", "n"] }\n' + HEAD.format("s")
    plan = same_gradients_without_shortcuts(model_file(tmp_path, graph), fusion={"head_loss": False})
    assert len(steps_of(plan, "copy")) == 1


def test_logits_are_not_overwritten_while_another_loss_reads_them(tmp_path):
    graph = HEAD.format("wte") + '\nother = { op = "cross_entropy", in = ["y", "tokens"] }'
    top = 'logits = "y"\nloss = { loss = 1.0, other = "1 / 2" }'
    plan = same_gradients_without_shortcuts(model_file(tmp_path, graph, top))
    assert "head_loss" not in fused(plan).values()  # logits are used twice


def test_no_launch_writes_two_gradients_into_one_place():
    for kwargs in ({}, {"alias": False}, {"in_place": False}, {"fusion": {"add_layernorm": False}}):
        for step in train_plan(**kwargs).steps:
            if step.node is not None and step.kind == "backward":
                written = [b for r in step.node.inputs if (b := step.tensors.get("d" + r)) is not None]
                assert len(written) == len(set(written)), step.node.name


@pytest.mark.parametrize("alias", [True, False])
def test_one_value_taken_twice_by_a_node_gets_both_gradients(tmp_path, alias):
    built = engine(
        model_file(tmp_path, 'd = { op = "add", in = ["wte", "wte"] }\n' + HEAD.format("d")), dims={}, alias=alias
    )
    single = engine(model_file(tmp_path, HEAD.format("wte")), dims={})
    batch = random_batch()
    built.initialize(1)
    single.load_parameters({n: p * (2 if n == "wte.weight" else 1) for n, p in built.parameters().items()})
    (loss, ours), (expected_loss, expected) = built.gradients(batch), single.gradients(batch)
    assert loss == pytest.approx(expected_loss)
    np.testing.assert_allclose(ours["wte.weight"], 2 * expected["wte.weight"], rtol=1e-5, atol=1e-8)


def test_frozen_parameters_get_no_gradient_and_no_state():
    built = engine(freeze=("wte*", "x0*", "h.0.*"))
    plan = built.plan("train")
    assert not [s for s in plan.steps if s.kind == "backward" and s.node.name.startswith(("h.0.", "wte", "x0"))]
    assert set(built.optimizer_state()["m"]) == {p for p in built.graph.parameters if p.startswith(("h.1.", "ln_f"))}
    e = engine(freeze=("wte*", "x0*", "h.0.*"), options={"clip": 1.0})
    e.initialize(1)
    before = {n: p.copy() for n, p in e.parameters().items()}
    e.step([random_batch(0, 50, (2, 8))], 1e-2)
    changed = {n for n, p in e.parameters().items() if not np.array_equal(p, before[n])}
    assert changed and all(n.startswith(("h.1.", "ln_f")) for n in changed)


def test_a_freeze_glob_that_matches_nothing_is_refused():
    with pytest.raises(UsageError, match='freeze "h.9.*" matches no parameter'):
        engine(freeze=("h.9.*",))


# --- an op without a gradient --------------------------------------------------------------------------------------


def test_an_op_without_gradient_under_a_trainable_path_is_refused_and_never_gives_zeros(tmp_path):
    class Square(Variant):
        op, name, device, dtypes = "square_only", "plain", "cpu", ("f32", "f64")
        backward = None

        def forward(self, t, launch):
            launch.call(lambda: np.multiply(t.x, t.x, out=t.y))

    own = load_registry()
    own.ops["square_only"] = Op("square_only", inputs={"x": "..."}, outputs={"y": "..."})
    own.variants["square_only"] = {"plain": Square()}
    path = model_file(tmp_path, 'q = { op = "square_only", in = "wte" }\n' + HEAD.format("q"))
    built = Engine(load_model(str(path), own), own, Settings(optimizer="adamw"))
    with pytest.raises(BuildError, match="it has no backward"):
        built.plan("train")
    assert built.plan("evaluate", ["y"]).nodes  # forward alone is fine
    own.ops["square_only"].gradient = False
    with pytest.raises(BuildError, match='node q: op "square_only" has no gradient'):
        built.plan("train")


# --- choices -------------------------------------------------------------------------------------------------------


def test_an_explicit_choice_never_falls_back():
    with pytest.raises(UsageError, match=r'op "matmul" has no variant "blass"; did you mean "blas"'):
        engine(ops={"matmul": "blass"})
    with pytest.raises(UsageError, match='"h.*.fcc" matches no node'):
        engine(nodes={"h.*.fcc": "reference"})

    class Never(Variant):
        op, name, device, dtypes = "gelu", "never", "cpu", ("f32",)

        def why_not(self, t):
            return "rows must be a multiple of 1000"

    own = load_registry()
    own.variants["gelu"]["never"] = Never()
    never = Engine(load_model("gpt2_124m", own), own, Settings(dims=TINY, ops={"gelu": "never"}))
    with pytest.raises(BuildError) as refused:
        never.plan("evaluate", ["logits"])
    assert "never: rows must be a multiple of 1000" in str(refused.value)
    assert "reference: it can run" in str(refused.value)


def test_a_launcher_and_its_workspace_see_the_first_tile_candidate():
    seen = []

    class Tiled(Variant):
        op, name, device, dtypes, base = "gelu", "tiles", "cpu", ("f32",), ""

        def configs(self, t):
            return [{"tile": t.x.shape[-1]}, {"tile": 1}]

        def workspace(self, t):
            return 4 * t.config["tile"]

        def forward(self, t, launch):
            seen.append((t.config["tile"], launch.workspace.nbytes))
            launch.call(lambda: np.copyto(t.y, t.x))

    own = load_registry()
    own.variants["gelu"]["tiles"] = Tiled()
    built = Engine(load_model("gpt2_124m", own), own, Settings(dims=TINY, ops={"gelu": "tiles"}))
    built.logits(np.zeros((2, 8), np.int32))
    assert seen == [(128, 512)] * 2


def test_a_node_choice_beats_an_op_choice_and_both_beat_auto():
    plan = train_plan(ops={"matmul": "reference"}, nodes={"h.0.fc": "blas"})
    chosen = {n.name: plan.choices[n.name] for n in plan.nodes if n.op.name == "matmul"}
    assert chosen["h.0.fc"].variant.name == "blas" and chosen["h.0.fc"].why == '[nodes] "h.0.fc"'
    assert {c.variant.name for n, c in chosen.items() if n != "h.0.fc"} == {"reference"}


def test_a_recorded_choice_stands_where_the_config_says_nothing():
    plan = train_plan(recorded={"h.0.act": "reference"}, ops={"layernorm": "auto"})
    assert plan.choices["h.0.act"].variant.name == "reference" and plan.choices["h.0.act"].why == "recorded"
    assert plan.choices["h.1.act"].variant.name != "reference"


# --- what runs -----------------------------------------------------------------------------------------------------


def test_nodes_that_no_request_needs_do_not_run():
    names = {n.name for n in engine().plan("evaluate", ["h.0.y"]).nodes}
    assert "h.0.y" in names and not any(n.startswith("h.1.") or n in ("ln_f", "logits", "loss") for n in names)


def test_prefill_computes_no_logits():
    plan = engine().plan("generate", (), 16)
    assert {n.op.name for n in plan.nodes if n.op.state} and "logits" not in {n.name for n in plan.nodes}


def test_a_value_that_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match='no value "logitz"; did you mean "logits"'):
        engine().plan("evaluate", ["logitz"])


def test_the_flat_arena_puts_trainable_first_and_decaying_before_others():
    layout = engine(freeze=("wte*",)).layout
    order = sorted(layout.places.items(), key=lambda item: item[1].offset)
    assert [(not w.trains, not w.decay) for _, w in order] == sorted((not w.trains, not w.decay) for _, w in order)
    assert all(w.offset % 64 == 0 for _, w in order)
    groups = layout.groups(0, layout.size)
    for place_ in layout.places.values():
        span = groups[place_.offset // 64 : math.ceil((place_.offset + place_.size) / 64)]
        assert set(span.tolist()) == {(1 if place_.decay else 0) | (2 if place_.trains else 0)}


# --- stopping before harm ------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_changes_nothing_and_stays_halted():
    built = engine(options={"clip": 1.0})
    built.initialize(1)
    batch = random_batch(0, 50, (2, 8))
    good = {n: p.copy() for n, p in built.parameters().items()}
    poisoned = {n: p.copy() for n, p in good.items()}
    poisoned["h.0.fc.weight"][0, 0] = np.nan
    built.load_parameters(poisoned)
    record = built.step([batch], 1e-2)
    assert not record.ok and not math.isfinite(record.loss) and record.step == 0
    for name, array in built.parameters().items():
        np.testing.assert_array_equal(array, poisoned[name])
    built.load_parameters(good)
    assert not built.step([batch], 1e-2).ok  # what is queued behind a bad step changes nothing either
    assert all(np.array_equal(p, good[n]) for n, p in built.parameters().items())


def test_dropout_drops_while_training_and_not_while_evaluating(tmp_path):
    graph = 'd = { op = "dropout", in = "wte", p = 0.5 }\n' + HEAD.format("d")
    built = engine(model_file(tmp_path, graph), dims={}, options={"clip": 0.0})
    built.initialize(1)
    batch = random_batch()
    first, again = built.gradients(batch)[0], built.gradients(batch)[0]
    assert first == again  # the same step draws the same mask
    total, count = built.evaluate(batch)
    assert first != pytest.approx(total / count, rel=1e-6)
    built.set_step(1)
    assert built.gradients(batch)[0] != first  # another step, another mask


def test_a_parameter_that_the_loss_does_not_reach_has_a_zero_gradient(tmp_path):
    graph = 'side = { op = "matmul", in = "wte", features = 4 }\n' + HEAD.format("wte")
    path = model_file(tmp_path, graph, top='logits = "side"\nloss = "loss"')
    built = engine(path, dims={})
    built.initialize(1)
    batch = random_batch()
    built.store.grads[:] = 7.0  # what an earlier step left
    gradients = built.gradients(batch)[1]
    assert not gradients["side.weight"].any() and gradients["y.weight"].any()
