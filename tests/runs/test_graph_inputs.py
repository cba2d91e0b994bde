"""The inputs of a graph: which may be numbers, which are the tokens, and what decoding can do without."""

from __future__ import annotations

import numpy as np
import pytest
from small_graph import HEAD, batch, engine, model, with_ops

from core import Op, Reference
from core.errors import BuildError, DataError, UsageError


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


def test_the_sizes_of_a_step_are_those_of_the_inputs_whatever_their_dims_are_called(tmp_path):
    path = model(tmp_path, 'x = { op = "gelu", in = "wte" }\n' + HEAD)
    path.write_text(path.read_text().replace("B T :", "B N :").replace("\nT = ", "\nN = "))
    assert engine(path).input_sizes == {"B": 4, "N": 3}


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


QKV = 'qkv = { op = "matmul", in = "wte", features = "6*C" }\n'
ROPE = 'r = { op = "rope", in = "qkv", heads = 2 }\n'


def attention(documents, of="qkv"):
    return f'x = {{ op = "attention", in = {{ qkv = "{of}", documents = "{documents}" }}, heads = 2 }}\n'


@pytest.mark.parametrize("rope", [False, True])
def test_attention_within_documents_that_are_no_role_refuses_generation(tmp_path, rope):
    graph = QKV + ROPE * rope + attention("tokens", "r" if rope else "qkv")
    built = engine(model(tmp_path, graph + HEAD))
    with pytest.raises(BuildError, match='"documents" is connected, which attention does not look at while decoding'):
        built.session(1).plan(1)


@pytest.mark.parametrize("rope", [False, True])
def test_a_model_of_packed_documents_decodes_a_row_as_one_document(tmp_path, rope):
    """Token by token, and in pieces, as forward over the row alone; a document in a packed row has the same logits."""
    graph = 'w = { op = "embedding", in = "at", rows = "S", cols = "C" }\nu = { op = "add", in = ["wte", "w"] }\n'
    graph += QKV.replace("wte", "u") + ROPE * rope + attention("marks", "r" if rope else "qkv") + HEAD
    inputs = ', marks = "B T : i32", at = "B T : i32 < S"'
    roles = 'logits = "y"\nloss = "loss"\nroles = { documents = "marks", positions = "at" }'
    built = engine(model(tmp_path, graph, inputs=inputs, top=roles, dims="C = 8\nS = 40"))
    ids = np.random.default_rng(1).integers(0, 11, (2, 37)).astype(np.int32)
    whole = built.logits(ids)
    for cuts in ((37,), (1, 1, 33, 2)):
        session, at = built.session(2, 40), 0
        for length in cuts:
            found = session.feed(ids[:, at : at + length])
            at += length
            np.testing.assert_allclose(found, whole[:, at - 1], rtol=1e-11, atol=1e-12)
    lengths = (15, 22)
    packed = np.concatenate([ids[0, : lengths[0]], ids[1, : lengths[1]]])[None]
    marks = np.repeat(np.arange(2), lengths)[None]
    places = np.concatenate([np.arange(n) for n in lengths])[None]
    (logits,) = built.values({"tokens": packed, "marks": marks, "at": places}, ["y"])
    np.testing.assert_allclose(logits[0, :15], whole[0, :15], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(logits[0, 15:], whole[1, :22], rtol=1e-11, atol=1e-12)


def test_a_model_that_reads_more_than_tokens_refuses_generation(tmp_path):
    graph = 'x = { op = "add", in = ["wte", "image"] }\n' + HEAD
    built = engine(model(tmp_path, graph, inputs=', image = "B T C"'))
    with pytest.raises(BuildError, match='reads the input "image", and generation gives "tokens" only'):
        built.session(1).plan(1)


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


def test_an_input_without_a_role_is_never_taken_for_the_tokens(tmp_path):
    path = model(tmp_path, HEAD.replace('"x"', '"wte"'))
    text = path.read_text().replace("tokens", "ids")
    path.write_text(text)
    with pytest.raises(UsageError, match="no input has the role tokens; its inputs are ids, targets.*") as error:
        engine(path).logits(batch()["tokens"])
    assert 'roles = { tokens = "INPUT" }' in error.value.hint
    path.write_text('roles = { tokens = "ids" }\n' + text)
    assert engine(path).token_input == "ids"
    assert engine(path).logits(batch()["tokens"]).shape == (4, 3, 11)


ROLES = {
    "role": ('{ token = "ids" }', 'no key "token" here; did you mean "tokens"'),
    "input": ('{ tokens = "idz" }', 'expected an input; did you mean "ids"'),
    "two roles": ('{ tokens = "ids", positions = "ids" }', "one role; here it would have two"),
    "the name of another role": ('{ tokens = "targets" }', "one role; here it would have two"),
}


@pytest.mark.parametrize("roles, says", ROLES.values(), ids=ROLES)
def test_a_role_of_no_input_and_an_input_of_two_roles_are_refused(tmp_path, roles, says):
    path = model(tmp_path, HEAD.replace('"x"', '"wte"'))
    path.write_text(f"roles = {roles}\n" + path.read_text().replace("tokens", "ids"))
    with pytest.raises(BuildError, match=says):
        engine(path)


def test_a_dim_below_zero_is_refused_even_where_nothing_uses_it(tmp_path):
    for value in ("-3", "-0.5", '"2 - V"'):
        with pytest.raises(BuildError, match="small.toml:.*X.*below zero"):
            engine(model(tmp_path, HEAD.replace('"x"', '"wte"'), dims=f"C = 8\nX = {value}"))
    with pytest.raises(UsageError, match="below zero"):
        engine(model(tmp_path, HEAD.replace('"x"', '"wte"'), dims="C = 8\nX = 3"), dims={"X": -1})
