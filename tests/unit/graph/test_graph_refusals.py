"""What a model TOML may not say: each refusal in words that name the place."""

from __future__ import annotations

import dataclasses

import pytest
import tomli
from tiny_model import TINY, refused

from core.errors import CoreError, UsageError
from core.graph import load_model
from core.graph.model_file import key_lines
from core.loader import load_registry


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
    "a loss that is an activation": ([('= "loss"', '= "ln_f"')], ['"ln_f"', "is not a loss", "acc"]),
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


def test_lines_of_keys_are_found_under_every_way_to_write_a_table():
    text = '[graph]\na = 1\n"b.c" = 2\n[graph.d]\ne = 3\n[ block . layer ] # x\nf.g = 4\n'
    lines = key_lines(text)
    assert tomli.loads(text)["block"]["layer"]["f"] == {"g": 4}
    assert lines["graph", "a"] == 2 and lines["graph", "b.c"] == 3 and lines["graph", "d"] == 4
    assert lines["graph", "d", "e"] == 5 and lines["block", "layer", "f", "g"] == 7


def test_what_is_deep_or_long_is_built_or_refused(tmp_path, registry):
    """Besides what tests/faults/fuzz/test_fuzz_toml.py alters."""

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
