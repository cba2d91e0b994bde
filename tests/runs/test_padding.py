"""Padded sizes: what is padding stays zero, and an op that does not know of it never meets it."""

from __future__ import annotations

import pytest
from small_graph import HEAD, PAD, PADDED_HEAD, batch, engine, model, with_ops

from core import Op, Reference
from core.errors import BuildError, UsageError


def test_classes_are_by_default_the_logits_that_are_no_padding(tmp_path):
    plain = engine(model(tmp_path, PADDED_HEAD.format("").replace('"P"', '"V"')))
    for tie in ("", ', tie = { weight = "wte.weight" }'):
        graph = PADDED_HEAD.format(tie)
        if tie:
            graph = 'wte = { op = "embedding", in = "tokens", rows = "P", cols = "C" }\n' + graph
        padded = engine(model(tmp_path, graph, dims=PAD, wte=not tie))
        assert padded.graph.node("loss").dims["classes"] == 11
        if not tie:
            assert padded.gradients(batch())[0] == pytest.approx(plain.gradients(batch())[0], rel=1e-14)


@pytest.mark.parametrize("fusion", [{}, {"head_loss": False}])
@pytest.mark.parametrize("classes", ["", ', classes = "V"', ', classes = "P"'])
def test_padding_is_zero_after_updates_in_parameters_and_moments(tmp_path, fusion, classes):
    path = model(tmp_path, PADDED_HEAD.format("") + "\n", dims=PAD)
    path.write_text(path.read_text().replace('in = ["y", "targets"]', f'in = ["y", "targets"]{classes}'))
    built = engine(path, fusion=fusion)
    for seed in range(5):
        built.step([batch(seed)], 0.1)
    for flat in (built.store.weights, *built.store.states.values()):
        rows = built.store.place(flat, "y.weight")
        assert rows[:11].any() and not rows[11:].any()


@pytest.mark.parametrize(
    "node, where",
    [
        ('{ op = "layernorm", in = "fc" }', 'input x = fc has 16 elements in "C"'),
        ('{ op = "rmsnorm", in = "fc" }', "11 of them contents"),
        ('{ op = "swiglu", in = "fc" }', "padding"),
        ('{ op = "geglu", in = "fc" }', "padding"),
        ('{ op = "attention", in = "fc", heads = 1 }', "padding"),
        ('{ op = "rope", in = "fc", heads = 1 }', "padding"),
        ('{ op = "qk_norm", in = "fc", heads = 1 }', "padding"),
        ('{ op = "attention", in = "wte", heads = "P" }', 'attribute "heads" is 16, padded from 11'),
        ('{ op = "mix", in = "fc" }', 'op "mix" would count as contents'),
    ],
)
def test_an_op_that_does_not_say_that_it_knows_padding_is_refused(tmp_path, node, where):
    class Mix(Reference):
        op = "mix"

    mix = (Op("mix", inputs={"x": "... C"}, outputs={"y": "... C"}), Mix)
    graph = 'fc = { op = "matmul", in = "wte", features = "P" }\nx = ' + node + "\n" + HEAD
    if '"fc"' not in node:
        graph = f"x = {node}\n{HEAD}"
    path = model(tmp_path, graph, dims=PAD)
    with pytest.raises(BuildError) as refused:
        engine(path, with_ops(mix))
    assert where in str(refused.value) and "small.toml:" in str(refused.value) and "node x" in str(refused.value)


def test_experts_and_routes_that_are_padding_are_refused(tmp_path):
    gate = 'gate = { op = "matmul", in = "wte", features = "P" }\nroute = { op = "route", in = "gate", k = 2 }\n'
    x = 'x = { op = "expert_matmul", in = ["wte", "route.expert"], experts = "V", features = "C" }\n'
    graph = gate + x + 'mix = { op = "combine", in = ["x", "route"] }\n' + HEAD.replace('"x"', '"mix"')
    with pytest.raises(BuildError, match=r'node route: input logits = gate has 16 elements in "N"'):
        engine(model(tmp_path, graph, dims=PAD))
    graph = graph.replace('features = "P"', 'features = "V"').replace('features = "C"', 'features = "P"')
    with pytest.raises(BuildError, match=r'node x: attribute "features" is 16'):
        engine(model(tmp_path, graph, dims=PAD))
    graph = graph.replace('features = "P"', 'features = "C"').replace("k = 2", 'k = "pad(3, 4)"')
    with pytest.raises(BuildError, match=r'node route: attribute "k" is 4'):
        engine(model(tmp_path, graph, dims=PAD))


def test_a_padded_size_never_meets_the_same_size_without_padding(tmp_path):
    graph = 'a = { op = "matmul", in = "wte", features = "P" }\nb = { op = "matmul", in = "wte", features = 16 }\n'
    graph += 'x = { op = "add", in = ["a", "b"] }\n' + HEAD
    with pytest.raises(BuildError, match=r"padded from \(4, 3, 11\)"):
        engine(model(tmp_path, graph, dims=PAD))


def test_ids_and_positions_stay_below_the_padding(tmp_path):
    graph = 'wte = { op = "embedding", in = "tokens", rows = "R", cols = "C" }\n' + HEAD.replace('"x"', '"wte"')
    with pytest.raises(BuildError, match=r"takes integers below rows = 9, but tokens goes up to 10"):
        engine(model(tmp_path, graph, dims='C = 8\nR = "pad(9, 16)"', wte=False))
    positions = 'x = { op = "position", in = "wte", length = "S" }\n' + HEAD
    with pytest.raises(BuildError, match="T = 3, but there are only 2 positions"):
        engine(model(tmp_path, positions, dims='C = 8\nS = "pad(2, 16)"'))
    built = engine(model(tmp_path, positions, dims='C = 8\nS = "pad(5, 16)"'))
    assert built.session(1).capacity == 5
    with pytest.raises(UsageError, match="S = 5 positions"):
        built.session(1, 6)


def test_an_input_of_the_graph_has_no_padding(tmp_path):
    path = model(tmp_path, HEAD.replace('"x"', '"wte"'))
    path.write_text(path.read_text().replace("T = 3", 'T = "pad(3, 4)"'))
    with pytest.raises(BuildError, match=r"contents in every place of an input"):
        engine(path)


def test_more_classes_than_logits_without_padding_are_refused(tmp_path):
    path = model(tmp_path, PADDED_HEAD.format(""), dims=PAD)
    path.write_text(path.read_text().replace('in = ["y", "targets"]', 'in = ["y", "targets"], classes = 16'))
    with pytest.raises(BuildError, match="classes = 16, but the logits have 11 columns"):
        engine(path)
