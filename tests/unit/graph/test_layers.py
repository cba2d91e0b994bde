"""Blocks that know their layer: `i`, lists of dims, nodes that stand in some repeats, names across repeats, shared
weights; the refusals name the layer."""

from __future__ import annotations

import re

import numpy as np
import pytest
from tiny_model import TINY, refused

import core
from core.errors import BuildError, UsageError
from core.expr import evaluate, evaluate_any, fill
from core.plan.describe import folded, op_of

NAMES = {"L": 6, "i": 2, "w": (4, 0, 8)}
BLOCK = TINY[TINY.index("qkv  =") : TINY.index("[init]")]
DIFFERENT = (
    ("L = 2", "L = 4\ndense = 1\nwindows = [4, 0, 4, 'C // 16']".replace("'", '"')),
    (
        BLOCK,
        """qkv  = { op = "matmul", in = "x", features = "3*C", bias = "i > 0" }
attn = { op = "attention", in = "qkv", heads = "2**i", window = "windows[i]" }
ffn  = { block = "narrow", in = "attn", when = "i < dense", else = "wide" }
wide = { block = "wide", in = "attn", when = "i >= dense" }
mix  = { op = "add", in = ["ffn", "h.0.attn"], when = "i % 2", else = "ffn" }
y    = { op = "add", in = ["mix", "h.{L - 1 - i}.qkv2"], when = "i >= 2", else = "mix" }
qkv2 = { op = "matmul", in = "qkv", features = "C" , when = "i < 2"}
[block.narrow]
in = "x"
out = "f"
f = { op = "matmul", in = "x", features = "C" }
[block.wide]
in = "x"
out = "d"
u = { op = "matmul", in = "x", features = "C * (i + 2)" }
d = { op = "matmul", in = "u", features = "C" }
""",
    ),
    ('"h.*.qkv.weight"', '"h.{n}.qkv.weight"'),
    ("sqrt(2*L)", "sqrt(2*n + 2)"),
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("i == 2", 1),
        ("0 < i < 2", 0),
        ("not i % 2 and i >= 2", 1),
        ("i > 2 or 3*L", 1),
        ("7 if i % 6 == 5 else w[i]", 8),
        ("w[i - 2] + 1.5", 5.5),
        ("i > 2 and w[9]", 0),  # which is not asked for
    ],
)
def test_an_expression_compares_chooses_and_picks_from_lists(text, value):
    assert evaluate(text, NAMES) == value


def test_a_list_is_an_expression_over_a_range():
    assert evaluate_any("[w[n % 3] if n != 4 else L for n in range(L)]", NAMES) == (4, 0, 8, 4, 6, 8)
    assert fill("h.{L - 1 - i}.y.{i}", NAMES) == "h.3.y.2"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("w", ["is a list of 3; expected a number"]),
        ("w[i + 1]", ["3 elements, 0 to 2", "the index is 3"]),
        ("w[i - 3]", ["the index is -1"]),
        ("L[0]", ["not a list"]),
        ("[n for n in w]", ["not of the form [f(i) for i in range(n)]"]),
        ("[n for n in range(L) if n]", ["not of the form"]),
        ("[n for n in range(10**6)]", ["10,000"]),
        ("i is 2", ["not allowed"]),
        ("w[0:2]", ["not allowed"]),
    ],
)
def test_an_expression_that_is_none_is_refused(text, words):
    refused(lambda: evaluate(text, NAMES, "here"), "here: ", *words)


def test_a_layer_has_attributes_nodes_names_and_initial_values_of_its_own(model):
    graph = model(TINY, *DIFFERENT)
    assert [n.attrs["window"] for n in graph.find("h.*.attn")] == [4, 0, 4, 2]
    assert [n.attrs["heads"] for n in graph.find("h.*.attn")] == [1, 2, 4, 8]
    assert graph.dims["windows"] == (4, 0, 4, 2)
    assert {n for n in graph.parameters if ".qkv.bias" in n} == {f"h.{i}.qkv.bias" for i in (1, 2, 3)}
    assert [n.name for n in graph.nodes if re.search(r"\.(ffn|wide|mix)", n.name)] == [
        *("h.0.ffn.0.f", "h.1.wide.0.u", "h.1.wide.0.d", "h.1.mix"),
        *("h.2.wide.0.u", "h.2.wide.0.d", "h.3.wide.0.u", "h.3.wide.0.d", "h.3.mix"),
    ]
    assert graph.values["h.3.wide.0.u"].shape == (2, 8, 5 * 32)  # the block around it numbers a block without repeat
    assert graph.node("h.1.mix").inputs == {"a": "h.1.wide.0.d", "b": "h.0.attn"}
    assert graph.node("h.1.qkv").inputs == {"x": "h.0.ffn.0.f"}  # its y is mix, whose name is ffn's
    assert graph.node("h.3.y").inputs == {"a": "h.3.mix", "b": "h.0.qkv2"}
    assert [graph.parameters[f"h.{i}.qkv.weight"].init for i in range(2)] == [
        f"normal({0.02 / 2**0.5!r})",
        "normal(0.01)",
    ]
    assert {"h.0.wide.0.u.weight", "h.0.qkv.bias", "h.2.qkv2.weight"} <= graph.absent


def test_names_of_nodes_that_stand_nowhere_may_be_given_initial_values(model):
    glob = ("[init]", '[init]\n"h.*.wide.*.d.weight" = "zeros"')
    assert model(TINY, *DIFFERENT, glob, dims={"dense": 4}).parameter_count
    refused(lambda: model(TINY, *DIFFERENT, ("[init]", '[init]\n"h.*.wid.*" = "zeros"')), "h.*.wid.*", kind=UsageError)


def test_repeats_share_one_set_of_weights_and_its_gradient_is_the_sum_of_theirs(tmp_path, registry):
    text = TINY.replace("L = 2", "L = 4")
    rng = np.random.default_rng(0)
    tokens, targets = rng.integers(0, 50, (2, 2, 8))

    def loaded(**share):
        written = text
        for value in share.values():
            written = text.replace('repeat = "L"', f'repeat = "L", share = {value}')
        (tmp_path / "m.toml").write_text(written)
        return core.load(tmp_path / "m.toml", precision="f64", dims={"B": 2})

    shared, apart = loaded(share='"i // 2"'), loaded()
    layers = [n for n in shared.params if n.startswith("h.")]
    assert layers == ["h.0.qkv.weight", "h.0.qkv.bias", "h.2.qkv.weight", "h.2.qkv.bias"]
    assert {n for n in loaded(share="true").params if n.startswith("h.")} == set(layers[:2])
    for name, array in apart.params.items():
        array[...] = shared.params[re.sub(r"h\.(\d)", lambda m: f"h.{int(m[1]) // 2 * 2}", name)]
    assert shared.loss(tokens, targets) == apart.loss(tokens, targets)
    ours, theirs = shared.gradients(tokens, targets), apart.gradients(tokens, targets)
    for name in layers:
        twin = name.replace("h.0", "h.1").replace("h.2", "h.3")
        np.testing.assert_allclose(ours[name], theirs[name] + theirs[twin], rtol=1e-12, atol=1e-15)


def test_a_layer_that_reads_another_layers_value_decodes_and_differentiates_as_it_computes(tmp_path):
    text = TINY
    for old, new in DIFFERENT:
        text = text.replace(old, new)
    (tmp_path / "m.toml").write_text(text)
    model = core.load(tmp_path / "m.toml", precision="f64")
    tokens = model.generate([[1, 2, 3]], max_new_tokens=4, temperature=0)
    for n in range(3, 7):
        assert model.logits(tokens[:, :n])[0, -1].argmax() == tokens[0, n]
    batch = np.random.default_rng(1).integers(0, 50, (2, 2, 8))
    weight, gradient = model.params["h.0.qkv2.weight"], model.gradients(*batch)["h.0.qkv2.weight"]
    for at in ((0, 0), (3, 5)):  # layer 3 reads it
        here, losses = weight[at], []
        for step in (1e-5, -1e-5):
            weight[at] = here + step
            losses.append(model.loss(*batch))
        weight[at] = here
        assert abs((losses[0] - losses[1]) / 2e-5 - gradient[at]) < 1e-8, at


def test_a_plan_lists_repeats_that_differ_in_rows_of_their_own():
    rows = [
        {"node": f"h.{i}.attn", "op": "attention", "attributes": {"heads": 2, "window": 0 if i % 3 == 2 else 4}}
        | {"variant": "v", "config": {}, "why": "", "shape": [1], "parameters": 1}
        for i in range(6)
    ]
    assert [(row["node"], op_of(row), row["count"]) for row in folded(rows)] == [
        ("h.{0,1,3,4}.attn", "attention (window=4)", 4),
        ("h.{2,5}.attn", "attention (window=0)", 2),
    ]
    same = folded([{**row, "attributes": {}} for row in rows])
    assert [(row["node"], op_of(row)) for row in same] == [("h.{0..5}.attn", "attention")]


REFUSALS = {
    "an index beyond a list": ([("4, 0, 4, ", "4, 0, ")], ["h.3.attn", '"windows"', "3 elements", "the index is 3"]),
    "a layer's number outside of blocks": (
        [('op = "layernorm", in = "h"', 'op = "layernorm", in = "h", eps = "1 / (i + 1)"')],
        ["[graph] ln_f", '"i" is not known'],
    ),
    "a dim called i": ([("dense = 1", "dense = 1\ni = 3")], ["[dims] i", "the number of a block's repeat"]),
    "an empty list": ([("dense = 1", "dense = 1\nn = []")], ["[dims] n", "without an element"]),
    "a name that does not stand": (
        [(', when = "i % 2", else = "ffn"', ', when = "i % 2"')],
        ["[block.layer] y", '"mix", which does not exist', "when = 'i % 2' is 0 for i = 0"],
    ),
    "an output that does not stand": (
        [('when = "i >= 2", else = "mix" }', 'when = "i >= 2" }')],
        ["[block.layer] out, h.0", '"y", which does not exist', "i >= 2"],
    ),
    "a node beyond the last layer": ([("L - 1 - i", "L - i + 1")], ["h.2.y.b", '"h.3.qkv2"']),
    "a layer below the first": ([("L - 1 - i", "i - 3")], ["h.2.y.b", "{i - 3} is -1"]),
    "a value across layers that is misspelt": ([('"h.0.attn"', '"h.0.atn"')], ["h.1.mix.b", '"h.0.atn"']),
    "a layer that needs a later one": ([('"h.0.attn"', '"h.{i + 1}.attn"')], ["circle", "h.1.mix", "h.2.attn"]),
    "a condition with an unknown name": ([('when = "i % 2"', 'when = "j % 2"')], ["h.0.mix", '"when"', '"j" is not']),
    "an else without a when": ([('when = "i % 2", else', "else")], ["[block.layer] mix", '"else" without "when"']),
    "an else that is none": ([('else = "ffn"', 'else = "fnf"')], ['h.0.mix: "else"', '"fnf"', 'did you mean "ffn']),
    "an else of another layer that is itself": (
        [('"i % 2", else = "ffn"', '0, else = "h.{i}.mix"')],
        ['h.0.mix: "else"', "itself"],
    ),
    "shares that are no arithmetic": ([('repeat = "L"', 'repeat = "L", share = []')], ["[graph] h", '"share" is []']),
    "weights that are shared and have two shapes": (
        [('repeat = "L"', 'repeat = "L", share = true')],
        ["h.2.wide.0.u", "(128, 32)", "h.1.wide.0.u.weight", "(96, 32)"],
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_mistake_in_a_layer_is_refused_with_the_layer(model, case):
    changes, parts = REFUSALS[case]
    refused(lambda: model(TINY, *DIFFERENT, *changes), *parts, kind=BuildError)


def test_a_run_config_overrides_a_list(model):
    assert model(TINY, *DIFFERENT, dims={"windows": [1, 2, 3, "L"]}).dims["windows"] == (1, 2, 3, 4)
    refused(lambda: model(TINY, *DIFFERENT, dims={"windows": [1, None]}), 'dim "windows"', "None", kind=UsageError)
    refused(lambda: model(TINY, *DIFFERENT, dims={"windows": [1, -1, 0, 0]}), "below zero", kind=UsageError)
