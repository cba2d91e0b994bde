"""The model TOML: what a file becomes, and what is refused, each in words that name the place."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import tomli

from core.errors import BuildError, CoreError, UsageError
from core.expr import Padded, trim
from core.graph import Graph, load_model
from core.graph.init import draw, draw_all
from core.graph.model_file import key_lines
from core.loader import load_registry
from core.op import Op, Param

ROOT = Path(__file__).parents[2]

TINY = """
inputs = { tokens = "B T : i32 < V", targets = "B T : i32 < V" }
logits = "logits"
loss   = "loss"
[dims]
B = 2
T = 8
S = 16
V = 50
P = "pad(V, 64)"
C = 32
H = 4
L = 2
[graph]
wte    = { op = "embedding", in = "tokens", rows = "P", cols = "C" }
x0     = { op = "position", in = "wte", length = "S" }
h      = { block = "layer", in = "x0", repeat = "L" }
ln_f   = { op = "layernorm", in = "h" }
logits = { op = "matmul", in = "ln_f", features = "P", bias = false, tie = { weight = "wte.weight" } }
loss   = { op = "cross_entropy", in = ["logits", "targets"], classes = "V" }
[block.layer]
in  = "x"
out = "y"
qkv  = { op = "matmul", in = "x", features = "3*C" }
attn = { op = "attention", in = "qkv", heads = "H" }
y    = { op = "add", in = ["x", "attn"] }
[init]
"h.*.qkv.weight" = "normal(0.02 / sqrt(2*L))"
"""

# Ops that no built-in model needs: two outputs with a scalar loss, optional inputs, no inputs, a faulty `infer`.
ROUTER = Op(
    "router",
    inputs={"x": "B T W", "documents?": "B T : i32", "bias?": "W"},
    outputs={"y": "B T W", "balance": ": acc"},
    params={"weight": Param("W W", init="normal(1 / sqrt(W))")},
)
TABLE = Op(
    "table",
    inputs={},
    outputs={"y": "rows cols"},
    params={"weight": Param("rows cols")},
    attrs={"rows": int, "cols": int},
)
FAULTY = Op("faulty", inputs={"x": "... C"}, outputs={"y": "... C"}, infer=lambda dims: dims["nothing"])


@pytest.fixture(scope="module")
def registry():
    real = load_registry()
    ops = {**real.ops, **{op.name: op for op in (ROUTER, TABLE, FAULTY)}}
    return dataclasses.replace(real, ops=ops, models=dict(real.models))


@pytest.fixture
def model(tmp_path, registry, monkeypatch):
    """model(text, *(old, new), dims) -> Graph; the file is tmp_path/model.toml, the current directory tmp_path."""
    monkeypatch.chdir(tmp_path)

    def build(text: str = TINY, *changes: tuple[str, str], dims=None) -> Graph:
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        (tmp_path / "model.toml").write_text(text, encoding="utf-8")
        return load_model("model.toml", registry).build(registry, dims or {})

    return build


def refused(build, *parts: str, kind: type[CoreError] = BuildError) -> str:
    """The message of the error that `build` raises; every part must be in it."""
    with pytest.raises(CoreError) as caught:
        build()
    message = str(caught.value)
    assert caught.type is kind, message
    for part in parts:
        assert part in message, f"{part!r} is not in:\n{message}"
    return message


# --- what a file becomes -----------------------------------------------------------------------------------------


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


# --- extends -----------------------------------------------------------------------------------------------------


def test_extending_merges_tables_replaces_nodes_and_removes(model, tmp_path):
    (tmp_path / "base.toml").write_text(TINY, encoding="utf-8")
    graph = model(
        'extends = "base.toml"\n[graph]\nx0 = false\nh = { block = "layer", in = "wte", repeat = 3 }\n'
        '[block.layer]\nattn = { op = "attention", in = "qkv", heads = 2 }\n[dims]\nS = false\nC = 16\n'
    )
    assert graph.name == "model" and graph.node("x0") is None and "x0.weight" not in graph.parameters
    assert graph.node("h.0.qkv").inputs == {"x": "wte"} and len(graph.find("h.*.y")) == 3
    assert graph.node("h.0.attn").attrs["heads"] == 2 and "causal" in graph.node("h.0.attn").attrs
    assert [n.name for n in graph.nodes][:3] == ["wte", "h.0.qkv", "h.0.attn"]  # a replaced node keeps its place
    assert graph.node("h.0.attn").where == "model.toml:6 [block.layer] attn"
    assert graph.node("h.0.qkv").where == "base.toml:24 [block.layer] qkv"


def test_gpt2_with_its_positions_removed_builds_by_name(model):
    graph = model('extends = "gpt2_124m"\n[graph]\nx0 = false\nh = { block = "layer", in = "wte", repeat = "L" }\n')
    assert graph.parameter_count == 124_439_808 - 1024 * 768


def test_a_reader_of_a_removed_node_is_told_who_removed_it(model):
    refused(
        lambda: model('extends = "gpt2_124m"\n[graph]\nx0 = false\n'),
        '"in" names "x0"',
        "model.toml:3 removes it",
        "[graph] h",
        "another",
    )


def test_bases_in_a_circle_are_shown_as_a_chain(model, tmp_path):
    (tmp_path / "a.toml").write_text('extends = "model.toml"\n', encoding="utf-8")
    refused(lambda: model('extends = "a.toml"\n'), "model.toml -> a.toml -> model.toml", kind=UsageError)
    refused(lambda: model('extends = "model.toml"\n'), "circle", kind=UsageError)


def test_a_missing_base_is_refused_with_its_chain(model, tmp_path):
    refused(lambda: model('extends = "gone.toml"\n'), "gone.toml", "model.toml -> ", kind=UsageError)
    refused(lambda: model('extends = "gpt2_124"\n'), 'did you mean "gpt2_124m"', kind=UsageError)
    refused(lambda: model("extends = 3\n"), "expected a model's name", kind=UsageError)


def test_a_base_elsewhere_on_the_disk_is_refused(model, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "base.toml"
    outside.write_text(TINY, encoding="utf-8")
    refused(lambda: model(f"extends = '{outside.as_posix()}'\n"), "outside the folders", kind=UsageError)


def test_what_a_third_file_puts_back_is_there_again(model, tmp_path, registry):
    (tmp_path / "base.toml").write_text(TINY, encoding="utf-8")
    (tmp_path / "without.toml").write_text('extends = "base.toml"\n[graph]\nx0 = false\n', encoding="utf-8")
    graph = model('extends = "without.toml"\n[graph]\nx0 = { op = "gelu", in = "wte" }\n')
    assert graph.node("x0").op.name == "gelu" and not graph.source.removed


def test_removing_what_is_not_there_is_refused(model):
    refused(lambda: model('extends = "gpt2_124m"\n[graph]\nln_ff = false\n'), "ln_ff = false", 'did you mean "ln_f"')


def test_required_plugins_are_checked_before_anything_else(model):
    text = 'requires = ["no_such_plugin"]\nextends = "a_model_of_that_plugin"\n'
    refused(lambda: model(text), "no_such_plugin", "requires")


def test_a_self_contained_copy_builds_the_same_graph(registry, tmp_path):
    (tmp_path / "wide.toml").write_text(
        'extends = "gpt2_124m"\n[graph]\nx0 = false\nh = { block = "layer", in = "wte", repeat = "L" }\n', "utf-8"
    )
    source = load_model(tmp_path / "wide.toml", registry)
    dims = {"L": 2, "V": 300, "C": "2*36", "H": 6}
    (tmp_path / "model.toml").write_text(source.to_toml(dims), encoding="utf-8")
    again = load_model(tmp_path / "model.toml", registry)
    assert "extends" not in again.document and again.name == "wide" and again.files == (tmp_path / "model.toml",)
    assert again.build(registry) == source.build(registry, dims)
    assert again.build(registry) != source.build(registry)
    assert again.document["hf"] == source.document["hf"]
    assert again.to_toml() == source.to_toml(dims)


# --- what is refused ---------------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_read_is_a_usage_error_with_line_and_column(model, tmp_path, registry):
    refused(lambda: model(TINY, ("T = 8", "T = = 8")), "model.toml:7:5", kind=UsageError)
    refused(lambda: model(TINY, ("T = 8", "T = 8\nT = 9")), "model.toml:8", kind=UsageError)
    (tmp_path / "latin.toml").write_bytes(b'# ok\nname = "caf\xe9"\n')
    refused(lambda: load_model("latin.toml", registry), "latin.toml:2:12: not UTF-8 (byte 0xe9)", kind=UsageError)
    refused(lambda: load_model("gone.toml", registry), "gone.toml", kind=UsageError)
    refused(lambda: load_model("a\0b.toml", registry), kind=UsageError)
    refused(lambda: load_model(tmp_path / "x" / "", registry), "x", kind=UsageError)
    refused(lambda: load_model("gpt2_124", registry), 'did you mean "gpt2_124m"')


EDGE = ('features = "3*C"', 'features = "3*C+3"')
REFUSALS = {
    "an unknown key": ([("logits = ", "logit = ")], ['no key "logit"', 'did you mean "logits"']),
    "an unknown op": ([('"layernorm"', '"layernrom"')], ["model.toml:18 [graph] ln_f", 'did you mean "layernorm"']),
    "an unknown attribute": ([("heads =", "head =")], ["model.toml:25 [block.layer] attn", "h.0.attn", '"heads"']),
    "a misspelt tie": ([("tie =", "ties =")], ["[graph] logits", 'did you mean "tie"']),
    "a missing attribute": ([(', heads = "H"', "")], ["h.0.attn", "heads", "int"]),
    "an attribute of a wrong type": ([("bias = false", "bias = 0")], ["[graph] logits", '"bias"', "true or false"]),
    "arithmetic with an unknown name": ([('"3*C"', '"3*D"')], ["h.0.qkv", "'3*D'", '"D" is not known', "known: B,"]),
    "a size that is not whole": ([('"3*C"', '"C/3"')], ["h.0.qkv", "10.66", "whole"]),
    "a dangling input": ([('in = "h" }', 'in = "hh" }')], ["[graph] ln_f", '"hh"', "names here"]),
    "a missing input": ([('in = ["x", "attn"]', 'in = "x"')], ["h.0.y", "takes a, b", "no b"]),
    "too many inputs": ([('in = "h" }', 'in = ["h", "x0"] }')], ["ln_f", "2 names", "takes x"]),
    "an unknown input by name": ([('in = "h" }', 'in = { y = "h" } }')], ["ln_f", '"y"', "takes x"]),
    "shapes that do not fit": (
        [
            ('features = "P", bias = false, tie = { weight = "wte.weight" }', 'features = "C"'),
            ('in = ["logits", "targets"], classes = "V"', 'in = ["logits", "ln_f"]'),
        ],
        ["[graph] loss", "logits (2, 8, 32)", "ln_f (2, 8, 32)"],
    ),
    "sizes that differ on an edge": (
        [
            ("attn = {", 'fc = { op = "matmul", in = "attn", features = "C+1" }\nattn = {'),
            ('["x", "attn"]', '["x", "fc"]'),
        ],
        ["[block.layer] y", "h.0.y", "x0 (2, 8, 32)", "h.0.fc (2, 8, 33)"],
    ),
    "an op's own objection": ([EDGE], ["[block.layer] attn", "h.0.attn", "h.0.qkv (2, 8, 99)"]),
    "an `infer` that breaks": ([('"layernorm"', '"faulty"')], ["[graph] ln_f", 'infer of op "faulty"', "KeyError"]),
    "an activation where integers belong": (
        [("inputs = {", 'inputs = { docs = "B T",'), ('in = "tokens"', 'in = "docs"')],
        ["[graph] wte", "takes i32", "docs holds activations"],
    ),
    "integers that are too large": (
        [('targets = "B T : i32 < V"', 'targets = "B T : i32 < V+1"')],
        ["[graph] loss", "below classes = 50", "targets goes up to 50"],
    ),
    "a cycle": (
        [
            ('in = "wte", length', 'in = "ln_f", length'),
            ('in = "h" }', 'in = "x1" }'),
            ("[graph]", '[graph]\nx1 = { op = "gelu", in = "x0" }'),
        ],
        ["circle", "ln_f -> x0 -> x1 -> ln_f"],
    ),
    "a node that reads itself": ([('in = "h" }', 'in = "ln_f" }')], ["circle: ln_f -> ln_f"]),
    "blocks that wait for one another": (
        [("[graph]", '[graph]\ng = { block = "layer", in = "h" }'), ('in = "x0", repeat', 'in = "g", repeat')],
        ["wait for one another"],
    ),
    "an unused node": (
        [("[graph]", '[graph]\nextra = { op = "gelu", in = "x0" }')],
        ["[graph] extra", "nothing uses it"],
    ),
    "an unused node of a block": (
        [('out = "y"', 'out = "y"\ne = { op = "gelu", in = "x" }')],
        ["h.0.e", "nothing uses"],
    ),
    "an unused input": ([("inputs = {", 'inputs = { docs = "B T : i32",')], ["inputs", "docs", "no node uses"]),
    "a node called like an input": (
        [("[graph]", '[graph]\ntokens = { op = "gelu", in = "x0" }')],
        ["tokens", "already"],
    ),
    "a name with a dot": ([("[graph]", '[graph]\n"h.0" = { op = "gelu", in = "x0" }')], ['"h.0"', "letters"]),
    "a reserved name": ([("[graph]", '[graph]\nin = { op = "gelu", in = "x0" }')], ['"in" is reserved']),
    "a node that is no table": ([("[graph]", "[graph]\nx9 = 3")], ["[graph] x9 is 3"]),
    "op and block at once": ([('block = "layer"', 'block = "layer", op = "add"')], ['either "op" or "block"']),
    "an unknown block": ([('block = "layer"', 'block = "later"')], ["[block.later]", 'did you mean "layer"']),
    "a block in itself": (
        [('out = "y"', 'out = "y"\ng = { block = "layer", in = "x" }'), ('["x", "attn"]', '["g", "attn"]')],
        ["contains itself", "layer -> layer"],
    ),
    "an `out` that is not made": ([('out = "y"', 'out = "yy"')], ["[block.layer] out", '"yy"', 'did you mean "y"']),
    "a block without `out`": ([('out = "y"\n', "")], ["[block] layer", '"out"']),
    "another number of inputs to a block": (
        [('in = "x0", repeat', 'in = ["x0", "wte"], repeat')],
        ["2 names", "takes 1"],
    ),
    "a list that cannot be carried": (
        [('out = "y"', 'out = ["y", "attn"]')],
        ["cannot be repeated", "takes 1", "gives 2"],
    ),
    "a repeat of zero": ([('repeat = "L"', "repeat = 0")], ['"repeat" is 0', "at least 1"]),
    "a huge repeat": ([('repeat = "L"', "repeat = 100_000_000")], ["10,000 nodes"]),
    "a huge nested repeat": ([('repeat = "L"', "repeat = 9_999")], ["more than 10,000 nodes"]),
    "an unknown tie": ([('"wte.weight"', '"wte.wait"')], ["[graph] logits", '"wte.wait"', 'did you mean "wte.weight"']),
    "a tie of an absent parameter": ([('weight = "wte.weight"', 'bias = "wte.weight"')], ["switched off"]),
    "a tie of another shape": (
        [('"wte.weight"', '"x0.weight"')],
        ["(64, 32) padded from (50, 32)", "x0.weight", "(16, 32)"],
    ),
    "a tie that forgets the padding": ([('features = "P", bias', "features = 64, bias")], ["(64, 32)", "padded from"]),
    "ties in a circle": ([('"wte.weight"', '"logits.weight"')], ["circle", "logits.weight -> logits.weight"]),
    "an unknown loss": ([('= "loss"', '= "los"')], ["model.toml:4 loss", 'did you mean "loss"']),
    "a loss that is an activation": ([('= "loss"', '= "ln_f"')], ['"ln_f"', "is no loss", "acc"]),
    "unknown logits": ([('= "logits"', '= "logit"')], ["model.toml:3 logits", 'did you mean "logits"']),
    "neither loss nor logits": ([('logits = "logits"\n', ""), ('loss   = "loss"\n', "")], ["neither"]),
    "an unknown init rule": ([('"normal(0.02 / sqrt(2*L))"', '"nromal(1)"')], ["[init] h.*.qkv.weight", '"normal"']),
    "an init rule with a bad number": ([("sqrt(2*L)", "sqrt(2*N)")], ["[init]", '"N" is not known']),
    "a negative standard deviation": ([('"normal(0.02', '"normal(-0.02')], ["[init]", "0 or more"]),
    "dims in a circle": ([("C = 32", 'C = "H*D"\nD = "C//H"')], ["[dims]", "C -> D -> C"]),
    "a dim that is a truth value": ([("C = 32", "C = true")], ["model.toml:11 [dims] C", "True"]),
    "a dim that is infinite": ([("C = 32", "C = inf")], ["[dims] C", "out of range"]),
    "a dim called like a function": ([("[dims]", "[dims]\npad = 3")], ["[dims] pad", "function"]),
    "an input of negative size": ([("T = 8", "T = -8")], ["tokens", "-8", "positive"]),
    "an input that leaves its sizes open": ([('tokens = "B T', 'tokens = "... T')], ["inputs", '"..."']),
    "positions that are too short": ([("T = 8", "T = 17")], ["x0", "17", "16"]),
    "a parameter that follows T": ([('length = "S"', 'length = "T"')], ["x0.weight", "follows T", "(8, 32) at T = 8"]),
    "a parameter that follows B through a dim": ([("C = 32", 'C = "16*B"')], ["follows B", "at B = 2"]),
    "an unknown key of [hf]": ([("[init]", "[hf]\narchitecture = []\n[init]")], ['did you mean "architectures"']),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refused_with_the_place_and_the_reason(model, case):
    changes, parts = REFUSALS[case]
    refused(lambda: model(TINY, *changes), *parts)


def test_an_init_glob_that_matches_nothing_is_a_usage_error(model):
    refused(lambda: model(TINY, ("[init]", '[init]\n"h.*.fc.*" = "ones"')), "[init] h.*.fc.*", kind=UsageError)
    refused(lambda: model(TINY, ("[init]", '[init]\n"logits.*" = "ones"')), "wte.weight, tied", kind=UsageError)


def test_an_override_is_refused_as_the_callers_mistake(model):
    refused(lambda: model(dims={"TT": 3}), '"TT"', 'did you mean "T"', kind=UsageError)
    refused(lambda: model(dims={"T": True}), '"T"', "True", kind=UsageError)
    refused(lambda: model(dims={"T": "4*"}), "dim T of model.toml", kind=UsageError)


def test_independent_problems_are_reported_together_and_once_each(model):
    message = refused(
        lambda: model(TINY, ('"attention"', '"atention"'), ('length = "S"', 'length = "N"'), ('in = "h"', 'in = "hh"')),
        "3 problems",
        "atention",
        '"N" is not known',
        '"hh"',
    )
    assert message.count("atention") == 1


def test_a_mistake_in_a_block_is_reported_once_and_not_once_a_repeat(model):
    message = refused(lambda: model(TINY, ('"attn"]', '"atn"]')), 'did you mean "attn"', "h.0.y")
    assert "problems" not in message and "h.1" not in message


def test_an_op_of_a_broken_plugin_names_that_plugin(tmp_path, model, registry):
    plugin = tmp_path / "broken.py"
    plugin.write_text("NAME = 'my_norm'\nraise RuntimeError('no luck')\n", encoding="utf-8")
    real = load_registry()
    records = [
        *real.plugins,
        dataclasses.replace(
            real.plugins[0],
            name="broken",
            status="broken",
            reason="no luck",
            candidate=dataclasses.replace(real.plugins[0].candidate, home=plugin),
        ),
    ]
    (tmp_path / "m.toml").write_text(TINY.replace("layernorm", "my_norm"), encoding="utf-8")
    with_broken = dataclasses.replace(real, plugins=records)
    refused(lambda: load_model("m.toml", with_broken).build(with_broken), "my_norm", 'plugin "broken"', "no luck")


# --- init --------------------------------------------------------------------------------------------------------


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


# --- the page and the shipped files --------------------------------------------------------------------------------

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


def test_lines_of_keys_are_found_under_every_way_to_write_a_table():
    text = '[graph]\na = 1\n"b.c" = 2\n[graph.d]\ne = 3\n[ block . layer ] # x\nf.g = 4\n'
    lines = key_lines(text)
    assert tomli.loads(text)["block"]["layer"]["f"] == {"g": 4}
    assert lines["graph", "a"] == 2 and lines["graph", "b.c"] == 3 and lines["graph", "d"] == 4
    assert lines["graph", "d", "e"] == 5 and lines["block", "layer", "f", "g"] == 7


# --- fuzz --------------------------------------------------------------------------------------------------------


def test_what_is_deep_or_long_is_built_or_refused(tmp_path, registry):
    """Besides what tests/faults/test_fuzz.py alters."""

    def attempt(text: str) -> None:
        path = tmp_path / "long.toml"
        path.write_text(text, encoding="utf-8")
        try:
            load_model(path, registry).build(registry)
        except CoreError as error:
            assert str(error)

    deep = "[" * 2000 + "]" * 2000
    attempt(TINY + f"deep = {deep}\n")
    attempt(TINY.replace("C = 32", f'C = "{"(" * 90}32{")" * 90}"'))
    attempt(TINY.replace("C = 32", "C = " + "9" * 5000))
    chain = "\n".join(f'd{i} = "d{i + 1}"' for i in range(500)) + "\nd500 = 1\n"
    attempt(TINY.replace("[dims]\n", "[dims]\n" + chain))
