"""Fused ops: what [fuse] may set, which nodes become one, and by which names they are known."""

from __future__ import annotations

import numpy as np
import pytest
from small_graph import HEAD, PAD, batch, engine, model, shipped, with_ops

from core import Op, Param, Reference
from core.errors import BuildError, UsageError
from core.graph import load_model


@pytest.mark.parametrize("tie", ['{ k_weight = "x.q_weight" }', '{ q_weight = "n.weight", k_weight = "n.weight" }'])
def test_one_parameter_in_two_places_of_a_node_is_refused_with_the_graph(tmp_path, tie):
    graph = 'n = { op = "layernorm", in = "wte" }\nqkv = { op = "matmul", in = "n", features = "3*C" }\n'
    graph += f'x = {{ op = "qk_norm", in = "qkv", heads = 1, tie = {tie} }}\n' + HEAD.replace('"x"', '"z"')
    graph += '\nz = { op = "matmul", in = "x", features = "C" }\n'
    with pytest.raises(BuildError, match="small.toml:.*q_weight and k_weight are one parameter"):
        load_model(str(model(tmp_path, graph)), shipped()).build(shipped())


@pytest.mark.parametrize("alias", [True, False])
@pytest.mark.parametrize("in_place", [True, False])
def test_two_gradients_for_one_value_of_a_node_never_share_memory(tmp_path, alias, in_place):
    """A launcher that writes one and adds to the other would need an order between its own threads."""
    path = model(tmp_path, 'n = { op = "gelu", in = "wte" }\nx = { op = "add", in = ["n", "n"] }\n' + HEAD)
    for step in engine(path, alias=alias, in_place=in_place, ops={"add": "reference"}).plan("train").steps:
        if step.node is not None and "backward" in step.kind:
            written = [b for r in step.node.inputs if (b := step.tensors.get("d" + r)) is not None]
            assert len(set(written)) == len(written), step.node.name


NORMED = """s = { op = "add", in = ["wte", "wte"] }
x = { op = "layernorm", in = "s" }
"""


class ShrinkReference(Reference):
    """y = gelu(x) / by, a fused op of a plugin; `tile` is its own attribute."""

    op = "gelu_scale"
    priority = 5

    def why_not(self, t):
        return "tile is odd" if t.tile % 2 else None

    def forward(self, t):
        t.y[...] = t.x

    def backward(self, t):
        t.add("dx", t.dy)


def even(dims):
    if dims["tile"] < 0:
        raise BuildError(f"tile = {dims['tile']}; expected at least 0")
    if dims["tile"] == 98:
        raise ValueError("not that one")


SHRINK = (
    Op(
        "gelu_scale",
        inputs={"x": "..."},
        outputs={"y": "..."},
        attrs={"by": float, "approx": ("tanh", "erf"), "tile": 4},
        infer=even,
        replaces="g = gelu(x); y = scale(g)",
    ),
    ShrinkReference,
)
SHRUNK = 'g = { op = "gelu", in = "wte" }\nx = { op = "scale", in = "g", by = 0.5 }\n'


@pytest.mark.parametrize(
    "fusion, message",
    [
        ({"add_layernorm": {"eps": 100.0}}, r'eps: "eps" belongs to layernorm, which the model sets.*: nothing'),
        ({"add_layernorm": {"bias": False}}, '"bias" belongs to layernorm'),
        ({"mlp_gelu": {"approx": "erf"}}, '"approx" belongs to gelu'),
        ({"mlp_gelu": {"bias1": False}}, '"bias1" is the bias of matmul, which the model sets'),
        ({"mlp_gelu": {"weight2": 3}}, '"weight2" is the weight of matmul, which the model sets'),
        ({"head_loss": {"classes": 5}}, '"classes" belongs to cross_entropy.*: chunk'),
        ({"head_loss": {"features": 5}}, '"features" belongs to matmul'),
        ({"embed": {"length": 5}}, '"length" belongs to position'),
        ({"rope_attention": {"window": 5}}, '"window" belongs to attention'),
        ({"head_loss": {"chnk": 7}}, 'chnk: head_loss has no such attribute; did you mean "chunk"'),
        ({"head_loss": {"chunk": 2.5}}, "expected a whole number"),
        ({"head_loss": {"chunk": True}}, "expected a number"),
        ({"head_loss": {"chunk": -1}}, r"\[fuse\] head_loss = \{ chunk = -1 \}: .*expected a number of rows"),
        ({"gelu_scale": {"by": 2.0}}, '"by" belongs to scale.*: tile'),
        ({"gelu_scale": {"tile": -2}}, r"\[fuse\] gelu_scale = \{ tile = -2 \}.*expected at least 0"),
        ({"gelu_scale": {"tile": 98}}, "raised ValueError: not that one"),
        ({"gelu_scale": {"tile": 3}}, r"\[fuse\] gelu_scale = \{ tile = 3 \}(.|\n)*reference: tile is odd"),
        ({"gelu_scale": {"tle": 3}}, 'did you mean "tile"'),
        ({"head_los": {"chunk": 3}}, 'did you mean "head_loss"'),
    ],
)
def test_fuse_sets_only_what_no_part_has_and_never_switches_fusion_off(tmp_path, fusion, message):
    path = model(tmp_path, NORMED.replace("wte", "r") + SHRUNK.replace("x =", "r =") + HEAD)
    registry = with_ops(SHRINK)
    ops = {n.op.name for n in engine(path, registry).plan("train").nodes}
    assert {"add_layernorm", "gelu_scale", "head_loss"} <= ops
    with pytest.raises(UsageError, match=message):
        engine(path, registry, fusion=fusion).plan("train")


def test_the_place_of_a_wrong_attribute_is_that_of_the_config(tmp_path, monkeypatch):
    from core.config import load_config
    from core.train.wiring import build_engine

    monkeypatch.chdir(tmp_path)
    path = model(tmp_path, HEAD.replace('"x"', '"wte"'))
    (tmp_path / "run.toml").write_text(
        'model = "small.toml"\n[data]\ntrain = "builtin"\ntokenizer = ["bytes"]\n[train]\nsteps = 1\n'
        'tokens_per_step = 12\n[optimizer]\nname = "adamw"\nlr = 1e-3\n[schedule]\nname = "cosine"\n'
        "[fuse]\nhead_loss = { classes = 5 }\n"
    )
    config = load_config("run.toml", device="cpu")
    with pytest.raises(UsageError, match=r'run.toml .fuse.head_loss. classes: "classes" belongs to cross_entropy'):
        build_engine(config, shipped(), load_model(str(path), shipped()), None)


def test_what_fuse_sets_of_an_op_that_no_nodes_become_is_refused(tmp_path):
    path = model(tmp_path, 'x = { op = "gelu", in = "wte" }\ny = { op = "matmul", in = "x", features = "V" }')
    with pytest.raises(UsageError, match=r"\[fuse\] head_loss sets chunk, but no nodes of small can run as it"):
        engine(path, fusion={"head_loss": {"chunk": 2}}).plan("train")
    path = model(tmp_path, HEAD.replace('"x"', '"wte"'))
    with pytest.raises(UsageError, match="sets chunk, but the config names cross_entropy, which keeps"):
        engine(path, fusion={"head_loss": {"chunk": 2}}, ops={"cross_entropy": "reference"}).plan("train")
    assert engine(path, fusion={"head_loss": {"chunk": 2}}).plan("evaluate", ["y"]).nodes


def test_a_required_attribute_that_a_fused_op_does_not_carry_keeps_nodes_apart(tmp_path):
    op = Op("gelu_scale", inputs={"x": "..."}, outputs={"y": "..."}, replaces="g = gelu(x); y = scale(g)")
    registry = with_ops((op, ShrinkReference))
    plan = engine(model(tmp_path, SHRUNK + HEAD), registry).plan("train")
    assert "gelu_scale" not in {n.op.name for n in plan.nodes}


class TwiceReference(Reference):
    op = "matmul_twice"
    priority = 5
    reads = ("x", "weight1", "weight2")

    def forward(self, t):
        t.y[...] = t.x @ t.weight1.T @ t.weight2.T

    def backward(self, t):
        dh = t.dy @ t.weight2
        t.add("dx", dh @ t.weight1)
        t.add("dweight2", np.einsum("btf,bth->fh", t.dy, t.x @ t.weight1.T))
        t.add("dweight1", np.einsum("bth,btk->hk", dh, t.x))


TWICE = (
    Op(
        "matmul_twice",
        inputs={"x": "... K"},
        outputs={"y": "... features"},
        params={"weight1": Param("hidden K"), "weight2": Param("features hidden")},
        replaces="h = matmul(x, weight1, bias=False); y = matmul(h, weight2, bias=False)",
    ),
    TwiceReference,
)


@pytest.mark.parametrize("tied", [True, False])
def test_nodes_that_share_a_parameter_are_not_fused_into_one(tmp_path, tied):
    graph = 'a = { op = "matmul", in = "wte", features = "C", bias = false }\n'
    graph += 'x = { op = "matmul", in = "a", features = "C", bias = false%s }\n' % (
        ', tie = { weight = "a.weight" }' if tied else ""
    )
    path = model(tmp_path, graph + HEAD + "\n")
    built = engine(path, with_ops(TWICE))
    assert ("matmul_twice" in {n.op.name for n in built.plan("train").nodes}) is not tied
    ours, apart = built.gradients(batch()), engine(path, fusion={}).gradients(batch())
    for name, gradient in apart[1].items():
        np.testing.assert_allclose(ours[1][name], gradient, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("knows", [True, False])
def test_nodes_with_padding_are_fused_only_into_an_op_that_knows_it(tmp_path, knows):
    op = TWICE[0]
    known = Op(
        op.name,
        inputs={"x": "... K"},
        outputs={"y": "... features"},
        params=op.params,
        replaces=op.replaces,
        padding=("hidden",) if knows else (),
    )
    graph = 'a = { op = "matmul", in = "wte", features = "P", bias = false }\n'
    graph += 'x = { op = "matmul", in = "a", features = "C", bias = false }\n'
    plan = engine(model(tmp_path, graph + HEAD + "\n", dims=PAD), with_ops((known, TwiceReference))).plan("train")
    assert ("matmul_twice" in {n.op.name for n in plan.nodes}) is knows


@pytest.mark.parametrize("named", ["chunked", "head_loss.chunked"])
def test_a_node_takes_the_variant_of_the_fused_op_that_the_table_prints(tmp_path, named):
    path = model(tmp_path, HEAD.replace('"x"', '"wte"'))
    plan = engine(path, nodes={"loss": named}).plan("train")
    assert plan.choices["loss"].variant.op == "head_loss" and plan.choices["loss"].why == '[nodes] "loss"'
    apart = engine(path, nodes={"loss": "cross_entropy.reference"}).plan("train")
    assert apart.choices["loss"].variant.op == "cross_entropy"
    assert engine(path, nodes={"loss": named}).plan("evaluate", ["y", "loss"]).nodes  # where it is not fused: auto
    with pytest.raises(UsageError, match="node loss runs as cross_entropy here, which has no such variant"):
        engine(path, nodes={"loss": named}, fusion={"head_loss": False}).plan("train")
    with pytest.raises(UsageError, match='op "head_loss" has no variant "chuncked"; did you mean "chunked"'):
        engine(path, nodes={"loss": "head_loss.chuncked"})
    with pytest.raises(UsageError, match='op "cross_entropy" has no variant "gelu.blocked"'):
        engine(path, nodes={"loss": "gelu.blocked"})


def test_recompute_names_a_fused_op_and_gives_the_same_bits(tmp_path):
    path = model(tmp_path, NORMED + HEAD)
    plain, again = engine(path), engine(path, recompute=("add_layernorm",))
    steps = [s.node.op.name for s in again.plan("train").steps if s.kind == "recompute"]
    assert steps == ["add_layernorm"]
    (loss, ours), (other, same) = plain.gradients(batch()), again.gradients(batch())
    assert loss == other and all(np.array_equal(ours[n], same[n]) for n in ours)
    with pytest.raises(UsageError, match='recompute "embed": embed has no variant for cpu'):
        engine(path, recompute=("embed",)).plan("train")
    with pytest.raises(UsageError, match='recompute "add_layernorm": .fuse. switches it off'):
        engine(path, recompute=("add_layernorm",), fusion={"add_layernorm": False}).plan("train")


def test_a_node_that_no_variant_can_run_is_named_with_its_file_and_line(tmp_path):
    class Never(Reference):
        op = "shift"

        def why_not(self, t):
            return "never"

    op = Op("shift", inputs={"x": "... C"}, outputs={"y": "... C"})
    registry = with_ops((op, Never))
    path = model(tmp_path, 'x = { op = "shift", in = "wte" }\n' + HEAD)
    place = r"small.toml:11 \[graph\] x"
    with pytest.raises(BuildError, match=f"{place}: no variant of shift can run node x on cpu"):
        engine(path, registry).plan("train")
    with pytest.raises(BuildError, match=f'{place}: .ops. shift = "reference" cannot run node x'):
        engine(path, registry, ops={"shift": "reference"}).plan("train")
