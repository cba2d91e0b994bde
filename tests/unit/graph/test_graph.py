"""What a model TOML becomes: nodes, shapes, parameters, ties, blocks, initial values."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from tiny_model import TINY

from core.expr import Padded, trim
from core.graph import load_model
from core.graph.init import draw, draw_all

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "name, count, allocated",
    [
        ("gpt2_124m", 124_439_808, 124_475_904),
        ("gpt2_355m", 354_823_168, 354_871_296),
        ("gpt2_774m", 774_030_080, 774_090_240),
        ("gpt2_1558m", 1_557_611_200, 1_557_686_400),
    ],
)
def test_gpt2_has_the_published_number_of_parameters(registry, name, count, allocated):
    graph = load_model(name, registry).build(registry)
    assert (graph.name, graph.parameter_count, graph.allocated_count) == (name, count, allocated)


def test_a_node_carries_its_shapes_parameters_dims_and_place(model):
    graph = model()
    node = graph.node("h.1.qkv")
    assert node.inputs == {"x": "h.0.y"} and node.outputs == {"y": "h.1.qkv"}
    assert node.params == {"weight": "h.1.qkv.weight", "bias": "h.1.qkv.bias"}
    assert node.attrs == {"features": 96, "bias": True}
    assert node.dims["K"] == 32 and node.dims["..."] == (2, 8)
    assert node.where == "model.toml:24 [block.layer] qkv"
    assert graph.values["h.1.qkv"].shape == (2, 8, 96) and graph.values["h.1.qkv"].dtype is None
    weight = graph.parameters["h.1.qkv.weight"]
    assert (weight.shape, weight.init, weight.decay) == ((96, 32), "normal(0.01)", True)
    assert (weight.node, weight.role) == ("h.1.qkv", "weight")
    assert graph.inputs["tokens"].dtype == "i32" and graph.inputs["tokens"].bound == 50
    assert graph.loss == {"loss": 1.0} and graph.logits == "logits" and graph.values["loss"].dtype == "acc"
    assert [n.name for n in graph.find("h.*.y")] == ["h.0.y", "h.1.y"]


def test_padding_is_remembered_by_parameters_and_values(model):
    graph = model()
    for shape in (graph.parameters["wte.weight"].shape, graph.values["logits"].shape):
        assert any(isinstance(n, Padded) for n in shape)
    assert trim(graph.parameters["wte.weight"].shape) == (50, 32)
    assert trim(graph.values["logits"].shape) == (2, 8, 50)


def test_a_tied_parameter_is_its_owners(model):
    graph = model()
    assert graph.node("logits").params == {"weight": "wte.weight"}
    assert "logits.weight" not in graph.parameters


def test_tie_looks_in_the_block_first_and_follows_ties(model):
    block = 'again = { op = "matmul", in = "y", features = "C", tie = { weight = "proj.weight" } }'
    graph = model(
        TINY,
        ('out = "y"', 'out = "again"\nproj = { op = "matmul", in = "x", features = "C" }\n' + block),
        ('in = ["x", "attn"]', 'in = ["proj", "attn"]'),
        ("[block.layer]", 'proj = { op = "matmul", in = "ln_f", features = "C" }\n[block.layer]'),
        ('in = "ln_f", features = "P"', 'in = "proj", features = "P"'),
    )
    assert graph.node("h.1.again").params["weight"] == "h.1.proj.weight"
    chained = model(
        TINY,
        (
            "[graph]",
            '[graph]\nhead = { op = "matmul", in = "ln_f", features = "P", bias = false, '
            'tie = { weight = "logits.weight" } }',
        ),
        ('in = ["logits", "targets"]', 'in = ["head", "targets"]'),
    )
    assert chained.node("head").params == {"weight": "wte.weight"}


def test_nodes_run_in_file_order_as_far_as_dependencies_allow(model):
    lines = TINY.partition("[graph]\n")[2].partition("[block.layer]")[0]
    graph = model(TINY, (lines, "\n".join(reversed(lines.strip().splitlines())) + "\n"))
    names = [n.name for n in graph.nodes]
    assert names == [n.name for n in model().nodes]
    made: set[str] = set(graph.inputs)
    for node in graph.nodes:
        assert set(node.inputs.values()) <= made
        made.update(node.outputs.values())


def test_dims_may_come_in_any_order_and_are_overridden_by_name(model):
    graph = model(TINY, ("C = 32", 'C = "H*D"\nD = "2*E"\nE = 4'), dims={"L": 3, "H": 2, "B": "2*2"})
    assert (graph.dims["C"], len(graph.find("h.*.y"))) == (16, 3)
    assert graph.values["wte"].shape == (4, 8, 16)


def test_a_block_carries_lists_and_sees_graph_inputs(model):
    text = TINY.replace(
        'in  = "x"\nout = "y"', 'in = ["x", "e"]\nout = ["y", "z"]\nz = { op = "add", in = ["e", "x"] }'
    )
    text = text.replace('in = "x0", repeat', 'in = ["x0", "wte"], repeat').replace(
        'heads = "H" }', 'heads = "H" }\nr = { op = "router", in = { x = "attn", documents = "docs" } }'
    )
    text = text.replace('["x", "attn"]', '["x", "r"]').replace("inputs = {", 'inputs = { docs = "B T : i32",')
    graph = model(text)
    assert graph.node("h.0.z").inputs == {"a": "wte", "b": "x0"}
    assert graph.node("h.1.z").inputs == {"a": "h.0.z", "b": "h.0.y"}
    assert graph.node("h.0.r").inputs == {"x": "h.0.attn", "documents": "docs"}
    assert graph.node("h.1.z") is not None  # nothing reads the last repeat's z, and that is no error
    further = model(
        text.replace(
            'ln_f   = { op = "layernorm", in = "h" }',
            'sum = { op = "add", in = ["h.y", "h.z"] }\nln_f = { op = "layernorm", in = "sum" }',
        )
    )
    assert further.node("sum").inputs == {"a": "h.1.y", "b": "h.1.z"}


def test_blocks_hold_blocks_and_may_come_in_any_order(model):
    text = TINY.replace(
        'attn = { op = "attention"', 'inner = { block = "mlp", in = "attn", repeat = 2 }\nattn = { op = "attention"'
    )
    text = text.replace('in = ["x", "attn"]', 'in = ["x", "inner"]')
    text = text.replace('ln_f   = { op = "layernorm", in = "h" }', 'ln_f = { op = "layernorm", in = "g" }')
    text = text.replace("[graph]", '[graph]\ng = { block = "mlp", in = "h" }')
    text += '[block.mlp]\nin = "a"\nout = "b"\nb = { op = "gelu", in = "a" }\n'
    graph = model(text)
    assert graph.node("h.1.inner.1.b").inputs == {"x": "h.1.inner.0.b"}
    assert graph.node("g.0.b").inputs == {"x": "h.1.y"}


def test_further_outputs_are_named_after_their_node_and_losses_are_weighted_by_globs(model):
    text = TINY.replace(
        'y    = { op = "add", in = ["x", "attn"] }',
        'r = { op = "router", in = "attn" }\ny = { op = "add", in = ["x", "r"] }',
    )
    graph = model(
        text,
        ('loss   = "loss"\n[dims]', '[loss]\nloss = 1.0\n"h.*.balance" = "0.5 / L"\n"h.1.*balance" = 0.125\n[dims]'),
    )
    assert graph.loss == {"loss": 1.0, "h.0.r.balance": 0.25, "h.1.r.balance": 0.125}
    assert graph.values["h.0.r.balance"].shape == ()
    assert graph.parameters["h.0.r.weight"].init == f"normal({1 / 32**0.5!r})"  # an op's default knows its dims


def test_an_op_may_have_no_input(model):
    graph = model(
        TINY,
        (
            "[graph]",
            '[graph]\nextra = { op = "table", rows = "C", cols = 1 }\n'
            'used = { op = "matmul", in = "extra", features = "C" }',
        ),
        ('"logits"\nloss ', '"used"\nloss '),
    )
    assert graph.node("extra").inputs == {} and graph.values["extra"].shape == (32, 1)


def test_the_last_matching_init_glob_wins_and_stars_cross_dots(model):
    graph = model(TINY, ("[init]", '[init]\n"*.weight" = "uniform(1 / C)"\n"h.0.*" = "zeros"'))
    inits = {p: graph.parameters[p].init for p in ("wte.weight", "h.0.qkv.weight", "h.0.qkv.bias", "ln_f.weight")}
    assert inits == {
        "wte.weight": "uniform(0.03125)",
        "h.0.qkv.weight": "normal(0.01)",
        "h.0.qkv.bias": "zeros",
        "ln_f.weight": "uniform(0.03125)",
    }


def test_a_draw_depends_on_seed_and_name_alone(model):
    graph = model()
    wte = graph.parameters["wte.weight"]
    first = draw(wte, 7)
    assert first.shape == (64, 32) and first.dtype == np.float32 and not first[50:].any()
    assert first[:50].std() == pytest.approx(0.02, rel=0.1)
    unpadded = dataclasses.replace(wte, shape=(50, 32))
    assert np.array_equal(draw(unpadded, 7), first[:50])
    assert np.array_equal(draw(wte, 7, np.float64), first.astype(np.float64))
    assert not np.array_equal(draw(wte, 8), first)
    assert not np.array_equal(draw(dataclasses.replace(wte, name="other"), 7), first)


def test_draws_are_the_same_alone_into_place_and_over_threads(model):
    graph = model(TINY, ("[init]", '[init]\n"h.0.qkv.bias" = "uniform(0.5)"'))
    arena = {name: np.full(p.shape, np.nan, np.float32) for name, p in graph.parameters.items()}
    draw_all(graph, 3, arena.__getitem__, threads=3)
    for name, parameter in graph.parameters.items():
        assert np.array_equal(arena[name], draw(parameter, 3)), name
    assert (arena["ln_f.weight"] == 1).all() and not arena["ln_f.bias"].any()
    uniform = arena["h.0.qkv.bias"]
    assert np.abs(uniform).max() <= 0.5 and uniform.min() < -0.4 and uniform.max() > 0.4


def test_padding_on_a_later_axis_is_zero_and_the_rest_unchanged(model):
    graph = model()
    column = dataclasses.replace(graph.parameters["wte.weight"], shape=(32, Padded(64, 50)))
    drawn = draw(column, 1)
    assert not drawn[:, 50:].any()
    assert np.array_equal(drawn[:, :50], draw(dataclasses.replace(column, shape=(32, 50)), 1))


PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"```toml\n# (\S+\.toml)\n(.*?)```", PAGE, re.DOTALL))


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_of_the_page_builds(name, tmp_path, registry):
    assert len(EXAMPLES) == PAGE.count("```toml")
    for file, text in EXAMPLES.items():
        (tmp_path / file).write_text(text, encoding="utf-8")
    graph = load_model(tmp_path / name, registry).build(registry)
    assert graph.parameter_count > 0
    if name == "two_losses.toml":
        assert graph.loss == {"loss": 1.0, "early_loss": 1 / 6}
    if name == "gpt2_variant.toml":
        assert {n.attrs["eps"] for n in graph.find("h.*.ln_1")} == {1e-6}


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*.toml")), ids=lambda p: p.stem)
def test_a_shipped_models_hugging_face_mapping_covers_its_parameters(path, registry):
    source = load_model(path.stem, registry)
    graph = source.build(registry)
    if "hf" in source.document:
        mapped = {re.sub(r"\{i\}", "#", name) for name in source.document["hf"]["params"]}
        assert mapped == {re.sub(r"\.\d+\.", ".#.", name) for name in graph.parameters}
