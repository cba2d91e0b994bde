"""Where the planner's parts meet: padding, fused ops' attributes, loss terms, random keys, decoding, inputs, names."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest

from core import Op, Param, Reference
from core.engine import Engine, Settings
from core.errors import BuildError, DataError, UsageError
from core.graph import load_model
from core.loader import load_registry
from core.testing import check_variant

BATCH = {"B": 4, "T": 3, "V": 11}


@cache
def shipped():
    return load_registry()


def with_ops(*pairs):
    """The shipped registry with more ops, each an (Op, class of its reference)."""
    real = shipped()
    ops, variants = dict(real.ops), dict(real.variants)
    for op, reference in pairs:
        ops[op.name], variants[op.name] = op, {"reference": reference()}
    return dataclasses.replace(real, ops=ops, variants=variants)


def model(tmp_path, graph, *, dims="C = 8", inputs="", top='logits = "y"\nloss = "loss"', wte=True):
    """A model TOML: tokens -> wte -> `graph` -> y -> loss."""
    path = tmp_path / "small.toml"
    sizes = "\n".join(f"{k} = {v}" for k, v in BATCH.items())
    path.write_text(
        f'inputs = {{ tokens = "B T : i32 < V", targets = "B T : i32 < V"{inputs} }}\n{top}\n[dims]\n{sizes}\n{dims}\n'
        "[graph]\n"
        + ('wte = { op = "embedding", in = "tokens", rows = "V", cols = "C" }\n' if wte else "")
        + graph
        + '\nloss = { op = "cross_entropy", in = ["y", "targets"] }\n'
    )
    return path


def engine(path, registry=None, **kwargs):
    registry = registry or shipped()
    built = Engine(
        load_model(str(path), registry),
        registry,
        Settings(**{"precision": "f64", "optimizer": "adamw", "options": {"clip": 0.0}, **kwargs}),
    )
    built.initialize(3)
    for array in built.parameters().values():
        array += 0.3 * np.random.default_rng(array.size).standard_normal(array.shape)
    return built


def batch(seed=0, rows=BATCH["B"], vocabulary=BATCH["V"]):
    rng = np.random.default_rng(seed)
    return {n: rng.integers(0, vocabulary, (rows, BATCH["T"])).astype(np.int32) for n in ("tokens", "targets")}


def halves(whole, count):
    return [
        dict(zip(whole, parts, strict=True))
        for parts in zip(*(np.split(v, count) for v in whole.values()), strict=True)
    ]


HEAD = 'y = { op = "matmul", in = "x", features = "V", bias = false }'

# --- padding -------------------------------------------------------------------------------------------------------

PADDED_HEAD = 'y = {{ op = "matmul", in = "wte", features = "P", bias = false{0} }}'
PAD = 'C = 8\nP = "pad(V, 16)"'


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


# --- loss terms ------------------------------------------------------------------------------------------------------

TERMS = """x = { op = "matmul", in = "wte", features = "C" }
lens = { op = "matmul", in = "wte", features = "V", bias = false }
early = { op = "cross_entropy", in = ["lens", "targets"] }
gate = { op = "matmul", in = "wte", features = 4 }
route = { op = "route", in = "gate", k = 2 }
even = { op = "balance", in = ["gate", "route.expert"] }
"""


@pytest.mark.parametrize("freeze", [(), ("wte*", "lens*"), ("wte*", "gate*"), ("x*", "y*"), ("[!x]*",)])
@pytest.mark.parametrize("fusion", [{}, {"head_loss": False}])
def test_the_objective_is_all_weighted_terms_whatever_trains(tmp_path, freeze, fusion):
    top = 'logits = "y"\n[loss]\nloss = 1.0\nearly = 0.5\neven = 0.25'
    built = engine(model(tmp_path, TERMS + HEAD, top=top), freeze=freeze, fusion=fusion)
    whole = batch()
    whole["targets"][0, :2] = -1
    total, count = built.evaluate(whole)
    assert built.gradients(whole)[0] == pytest.approx(total / count, rel=1e-13)
    trained = engine(model(tmp_path, TERMS + HEAD, top=top), fusion=fusion)
    free, kept = trained.gradients(whole)[1], built.gradients(whole)[1]
    for name, gradient in kept.items():
        np.testing.assert_allclose(gradient, free[name], rtol=1e-12, atol=1e-16, err_msg=name)


# --- random keys -----------------------------------------------------------------------------------------------------

EXPERTS = """gate = { op = "matmul", in = "wte", features = 4, bias = false }
route = { op = "route", in = "gate", k = 2 }
fc = { op = "expert_matmul", in = ["wte", "route.expert"], experts = 4, features = "C" }
drop = { op = "dropout", in = "fc", p = 0.5 }
x = { op = "combine", in = ["drop", "route"] }
"""


class FirstReference(Reference):
    op = "first_token"

    def forward(self, t):
        t.y[...] = t.x[:, 0]

    def backward(self, t):
        if t.dx is not None:
            whole = np.zeros(t.x_shape if hasattr(t, "x_shape") else (*t.dy.shape[:1], t.T, t.C))
            whole[:, 0] = t.dy
            t.add("dx", whole)


class EveryReference(Reference):
    op = "every_token"

    def forward(self, t):
        t.y[...] = t.x + t.r[:, None]

    def backward(self, t):
        t.add("dx", t.dy)
        t.add("dr", t.dy.sum(1))


FIRST = (Op("first_token", inputs={"x": "B T C"}, outputs={"y": "B C"}), FirstReference)
EVERY = (Op("every_token", inputs={"x": "B T C", "r": "B C"}, outputs={"y": "B T C"}), EveryReference)
FEWER = """first = { op = "first_token", in = "wte" }
drop = { op = "dropout", in = "first", p = 0.5 }
x = { op = "every_token", in = ["wte", "drop"] }
"""


@pytest.mark.parametrize("graph", [EXPERTS, FEWER, 'x = { op = "dropout", in = "wte", p = 0.5 }\n'])
@pytest.mark.parametrize("recompute", [(), ("dropout",)])
def test_masks_are_the_same_in_1_2_and_4_micro_steps_of_the_same_rows(tmp_path, graph, recompute):
    path = model(tmp_path, graph + HEAD)
    whole = batch()
    losses = []
    for count in (1, 2, 4):
        built = engine(path, with_ops(FIRST, EVERY), recompute=recompute)
        losses.append([built.step(halves(whole, count), 0.01).loss for _ in range(2)])
        resumed = engine(path, with_ops(FIRST, EVERY), recompute=recompute)
        resumed.load_parameters({n: v.copy() for n, v in built.parameters().items()})
        resumed.load_optimizer_state({s: dict(v) for s, v in built.optimizer_state().items()})
        resumed.set_step(2)
        assert resumed.step(halves(whole, count), 0.01).loss == built.step(halves(whole, count), 0.01).loss
    np.testing.assert_allclose(losses, [losses[0]] * 3, rtol=1e-13)


def twice(pattern, several):
    """An op of two values for each, each dropped by itself. several: rows of numbers are those of y, not of x."""

    class TwiceReference(Reference):
        op = "dropped_twice"
        saved = {"kept": pattern.replace("C", "2 C")}

        def forward(self, t):
            from core.ops.philox import words

            shape = t.y.shape if several else (*t.y.shape[:-2], 2 * t.y.shape[-1])
            t.kept[...] = 1 if t.key is None else 2 * (words(t.key, shape) >= 2**31).reshape(t.y.shape)
            t.y[...] = t.x[..., None, :] * t.kept

        def backward(self, t):
            t.add("dx", (t.dy * t.kept).sum(-2))

    examples = [{"x": (3, 5, 4)}, {"x": (1, 1, 1)}]
    inputs, outputs = {"x": pattern}, {"y": pattern.replace("C", "2 C")}
    return Op("dropped_twice", inputs=inputs, outputs=outputs, uses=("random",), examples=examples), TwiceReference


@pytest.mark.parametrize("pattern", ["B T C", "... C"])
@pytest.mark.parametrize("several", [False, True])
def test_the_check_refuses_an_op_that_draws_more_rows_than_keys_count(tmp_path, pattern, several):
    """Keys count the rows of the first input. The masks of an op that draws two rows for each of them repeat."""
    registry = with_ops(twice(pattern, several))
    report = check_variant(registry.op("dropped_twice"), registry.reference("dropped_twice"), registry)
    assert report.failed_checks() == (["random"] if several else [])
    graph = 'd = { op = "dropped_twice", in = "wte" }\nroute = { op = "route", in = "wte", k = 2 }\n'
    path = model(tmp_path, graph + 'x = { op = "combine", in = ["d", "route"] }\n' + HEAD)
    whole = batch()
    losses = [engine(path, registry).step(halves(whole, count), 0.0).loss for count in (1, 2, 4)]
    assert (np.ptp(losses) < 1e-13) is not several


def test_micro_steps_of_different_rows_count_their_own(tmp_path):
    path, whole = model(tmp_path, EXPERTS + HEAD), batch()
    parts = [{n: v[:1] for n, v in whole.items()}, {n: v[1:] for n, v in whole.items()}]
    assert engine(path).step(parts, 0.0).loss == pytest.approx(engine(path).step([whole], 0.0).loss, rel=1e-13)


# --- decoding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "graph", ['x = { op = "gelu", in = "wte" }\n', 'x = { op = "position", in = "wte", length = 40 }\n']
)
def test_a_model_without_state_decodes_in_pieces_as_it_computes_the_whole(tmp_path, graph):
    built = engine(model(tmp_path, graph + HEAD))
    ids = np.random.default_rng(1).integers(0, 11, (2, 37)).astype(np.int32)
    whole = built.logits(ids)
    for cuts in ((37,), (2, 35), (1, 1, 33, 2)):
        session, at = built.session(2, 40), 0
        for length in cuts:
            found = session.feed(ids[:, at : at + length])
            at += length
            np.testing.assert_allclose(found, whole[:, at - 1], rtol=1e-13)
        assert session.start.tolist() == [37, 37]
    session = built.session(2, 40)
    found = session.feed(ids, np.array([5, 2]))
    np.testing.assert_allclose(found, whole[[0, 1], [4, 1]], rtol=1e-13)


def test_a_session_has_no_more_tokens_than_there_are_positions(tmp_path):
    built = engine(model(tmp_path, 'x = { op = "position", in = "wte", length = 5 }\n' + HEAD))
    with pytest.raises(UsageError, match="a session of 6 tokens: .*T = 6, but there are only 5 positions"):
        built.session(1, 6)


class ShiftReference(Reference):
    op = "shift"

    def forward(self, t):
        t.y[...] = t.x

    def backward(self, t):
        t.add("dx", t.dy)


@pytest.mark.parametrize("honours", [False, True])
def test_an_optional_input_that_is_not_looked_at_while_decoding_refuses_generation(tmp_path, honours):
    shift = Op(
        "shift",
        inputs={"x": "B T C", "at?": "B T : i32"},
        outputs={"y": "B T C"},
        uses=("start",),
        decodes=("at",) if honours else (),
    )
    graph = 'x = { op = "shift", in = { x = "wte", at = "tokens" } }\n'
    built = engine(model(tmp_path, graph + HEAD), with_ops((shift, ShiftReference)))
    if honours:
        assert built.session(1).plan(1).steps
    else:
        with pytest.raises(
            BuildError, match=r'cannot generate: .*node x: "at" is connected, which shift does not look'
        ):
            built.session(1).plan(1)
    assert built.plan("train").steps and built.logits(batch()["tokens"]).shape == (4, 3, 11)


@pytest.mark.parametrize("more", ["", 'r = { op = "rope", in = "qkv", heads = 2 }\n'])
def test_attention_within_documents_refuses_generation(tmp_path, more):
    graph = 'qkv = { op = "matmul", in = "wte", features = "6*C" }\n' + more
    graph += (
        f'x = {{ op = "attention", in = {{ qkv = "{"r" if more else "qkv"}", documents = "tokens" }}, heads = 2 }}\n'
    )
    built = engine(model(tmp_path, graph + HEAD))
    with pytest.raises(BuildError, match='"documents" is connected, which attention does not look at while decoding'):
        built.session(1).plan(1)


def test_a_model_that_reads_more_than_tokens_refuses_generation(tmp_path):
    graph = 'x = { op = "add", in = ["wte", "image"] }\n' + HEAD
    built = engine(model(tmp_path, graph, inputs=', image = "B T C"'))
    with pytest.raises(BuildError, match='reads the input "image", and generation gives "tokens" only'):
        built.session(1).plan(1)


# --- inputs ----------------------------------------------------------------------------------------------------------


def test_an_input_of_activations_takes_numbers_and_one_of_integers_does_not(tmp_path):
    graph = 'x = { op = "add", in = ["wte", "image"] }\n' + HEAD
    built = engine(model(tmp_path, graph, inputs=', image = "B T C"'))
    image = np.random.default_rng(2).standard_normal((4, 3, 8))
    losses = {}
    for name, given in (("f64", image), ("f32", image.astype(np.float32)), ("i32", np.ones((4, 3, 8), np.int32))):
        losses[name] = built.gradients({**batch(), "image": given})[0]
    assert losses["f64"] == pytest.approx(losses["f32"], rel=1e-6) and losses["f64"] != losses["f32"] != losses["i32"]
    with pytest.raises(DataError, match="tokens holds float64, expected integers"):
        built.gradients({**batch(), "image": image, "tokens": batch()["tokens"] * 1.0})
    with pytest.raises(DataError, match="image holds complex128, expected numbers"):
        built.gradients({**batch(), "image": image * 1j})
    with pytest.raises(DataError, match="with C = 9, wte.weight of small would be"):
        built.gradients({**batch(), "image": np.ones((4, 3, 9))})


@pytest.mark.parametrize("turned", [False, True])
def test_the_tokens_are_known_by_name_in_any_order_of_the_inputs(tmp_path, turned):
    path = model(
        tmp_path,
        'qkv = { op = "matmul", in = "wte", features = "3*C" }\n'
        'x = { op = "attention", in = { qkv = "qkv", documents = "marks" }, heads = 2 }\n' + HEAD,
        inputs=', marks = "B T : i32"',
    )
    if turned:
        text = path.read_text()
        first, rest = text.split("\n", 1)
        path.write_text(
            'inputs = { marks = "B T : i32", targets = "B T : i32 < V", tokens = "B T : i32 < V" }\n' + rest
        )
    assert engine(path).token_input == "tokens"


def test_the_only_integers_beside_the_targets_are_the_tokens_and_two_are_refused(tmp_path):
    path = model(tmp_path, HEAD.replace('"x"', '"wte"'))
    path.write_text(path.read_text().replace("tokens", "ids"))
    assert engine(path).token_input == "ids"
    path.write_text(
        path.read_text()
        .replace("inputs = {", 'inputs = { marks = "B T : i32",')
        .replace(
            "y = {",
            'e = { op = "embedding", in = "marks", rows = 2, cols = "C" }\n'
            'z = { op = "add", in = ["e", "wte"] }\ny = {',
        )
        .replace('in = "wte", features', 'in = "z", features')
    )
    with pytest.raises(UsageError, match="which of marks and ids holds the tokens"):
        engine(path).logits(batch()["tokens"])


def test_a_dim_below_zero_is_refused_even_where_nothing_uses_it(tmp_path):
    for value in ("-3", "-0.5", '"2 - V"'):
        with pytest.raises(BuildError, match="small.toml:.*X.*below zero"):
            engine(model(tmp_path, HEAD.replace('"x"', '"wte"'), dims=f"C = 8\nX = {value}"))
    with pytest.raises(UsageError, match="below zero"):
        engine(model(tmp_path, HEAD.replace('"x"', '"wte"'), dims="C = 8\nX = 3"), dims={"X": -1})


# --- ties ------------------------------------------------------------------------------------------------------------


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


# --- what [fuse] may set ---------------------------------------------------------------------------------------------

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


# --- names of fused ops ----------------------------------------------------------------------------------------------


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
