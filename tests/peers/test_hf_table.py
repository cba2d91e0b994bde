"""Every form of a model's [hf] is read and written, and a rule that cannot be run backwards is refused."""

from __future__ import annotations

import json

import foreign_files as foreign
import numpy as np
import pytest
import safetensors.numpy
from foreign_exports import WRITERS, export, refused

import core
from core.errors import BuildError
from core.interop.export import prepare
from core.interop.opened import open_path
from core.loader import load_registry
from core.tokenizers.byte_pairs import bytes_tokenizer

DIMS = foreign.DIMS
FORMS = """
extends = "gpt2_124m"
llmc = false
[dims]
B = 1
T = 4
S = 8
V = 50
P = "pad(V, 8)"
C = 12
H = 4
K = 2
D = "C // H"
L = 2
eps = 1e-3
[graph]
x0 = { op = "position", in = "wte", length = "S" }
logits = { op = "matmul", in = "ln_f", features = "P", bias = false }
[block.layer]
ln_1 = { op = "layernorm", in = "x", eps = "eps" }
qkv = { op = "matmul", in = "ln_1", features = "(H + 2*K) * D" }
attn = { op = "attention", in = "qkv", heads = "H", kv_heads = "K", causal = true }
[hf]
architectures = ["FormsModel"]
prefix = ["m.", ""]
ignore = ["extra.*", "*_token_id", "h.*.inv_freq"]
tied = {}
[hf.dims]
C = "sizes.width"
H = "sizes.heads"
K = { from = "sizes.kv_heads", absent = "H", null = "H" }
D = { from = "head_dim", absent = "C // H" }
L = "sizes.layers"
S = ["positions", "n_ctx"]
V = "vocabulary"
eps = ["norm.eps", "eps"]
[hf.expect]
model_type = ["forms"]
activation_function = ["absent"]
layer_norm_epsilon = ["absent"]
n_inner = ["null", "absent"]
tie_word_embeddings = [false]
scale_attn_weights = ["absent"]
scale_attn_by_inverse_layer_idx = ["absent"]
reorder_and_upcast_attn = ["absent"]
add_cross_attention = ["absent"]
"norm.kind" = ["layer", "absent"]
[hf.params]
"logits.weight" = "head"
"h.{i}.qkv.weight" = { rows = ["h.{i}.q", "h.{i}.k", "h.{i}.v"], sizes = ["H*D", "K*D", "K*D"] }
"h.{i}.qkv.bias" = { rows = ["h.{i}.qb", "h.{i}.kb", "h.{i}.vb"], sizes = ["H*D", "K*D", "K*D"] }
"h.{i}.fc.weight" = { rows = ["h.{i}.up", "h.{i}.gate"], transpose = true }
"h.{i}.fc.bias" = ["h.{i}.up_b", "h.{i}.gate_b"]
"x0.weight" = { stack = "e", rows = ["pos.{e}.a", "pos.{e}.b"] }
"""
FORMS_CONFIG = {
    "architectures": ["FormsModel"],
    "model_type": "forms",
    "n_inner": None,
    "tie_word_embeddings": False,
    "norm": {"kind": "layer", "eps": 1e-3},
    "sizes": {"width": 12, "heads": 4, "kv_heads": 2, "layers": 2},
    "head_dim": 3,
    "positions": 8,
    "vocabulary": 50,
}


def forms_tensors(params):
    """A model's parameters as its Hugging Face tensors, by hand."""
    found = {"wte.weight": params["wte.weight"], "head": params["logits.weight"]}
    for e, row in enumerate(params["x0.weight"]):
        found |= {f"pos.{e}.a": row[:6], f"pos.{e}.b": row[6:]}
    for name, value in params.items():
        parts = name.split(".")
        if parts[0] == "ln_f":
            found[name] = value
        if parts[0] != "h":
            continue
        i, node, role = parts[1:]
        if node == "qkv":
            end = "" if role == "weight" else "b"
            split = zip("qkv", np.split(value, [12, 18]), strict=True)
            found |= {f"h.{i}.{which}{end}": rows for which, rows in split}
        elif node == "fc":
            up, gate = np.split(value, 2)
            found |= {f"h.{i}.up": up.T, f"h.{i}.gate": gate.T} if role == "weight" else {}
            found |= {f"h.{i}.up_b": up, f"h.{i}.gate_b": gate} if role == "bias" else {}
        else:
            theirs = foreign.CONV1D.get(node, node)
            found[f"h.{i}.{theirs}.{role}"] = value.T if node in foreign.CONV1D and role == "weight" else value
    return {f"m.{name}": np.ascontiguousarray(value) for name, value in found.items()}


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """A plugin with a model that uses every form, its registry, random parameters, and the folder made by hand."""
    base = tmp_path_factory.mktemp("forms")
    plugin = base / "forms"
    plugin.mkdir()
    (plugin / "forms.toml").write_text(FORMS)
    (plugin / "__init__.py").write_text(
        "from pathlib import Path\nfrom core import hookimpl\n\n\n@hookimpl\ndef core_models():\n"
        "    return [Path(__file__).parent / 'forms.toml']\n"
    )
    params = {n: v.copy() for n, v in core.load("forms", plugins=[plugin], seed=5).params.items()}
    for name, value in params.items():
        value += np.random.default_rng(len(name)).standard_normal(value.shape, np.float32)
    return load_registry([plugin]), plugin, params, foreign.hf_folder(base / "hf", forms_tensors(params), FORMS_CONFIG)


def test_every_form_of_the_table_is_read(forms):
    _, plugin, params, folder = forms
    model = core.load(folder, plugins=[plugin])
    assert set(model.params) == set(params)
    for name, value in params.items():
        np.testing.assert_array_equal(model.params[name], value)
    assert model.graph.dims["eps"] == 1e-3 and model.graph.dims["D"] == 3


def test_every_form_of_the_table_is_written(forms, tmp_path):
    registry, _, _, folder = forms
    out = export(folder, "hf", tmp_path / "out", registry, tokenizer=bytes_tokenizer)
    written, by_hand = (safetensors.numpy.load_file(path / "model.safetensors") for path in (out, folder))
    assert set(written) == set(by_hand)
    for name, value in by_hand.items():
        np.testing.assert_array_equal(written[name], value)
    ends = {"bos_token_id": 256, "eos_token_id": 256, "pad_token_id": None, "torch_dtype": "float32"}
    assert json.loads((out / "config.json").read_text()) == {**FORMS_CONFIG, **ends}


def changed(config, **changes):
    """`config` with keys set, or taken away by None, in a table too: sizes__kv_heads."""
    copy = json.loads(json.dumps(config))
    for key, value in changes.items():
        *tables, last = key.split("__")
        table = copy
        for name in tables:
            table = table[name]
        if value is None:
            del table[last]
        else:
            table[last] = value
    return copy


def test_alternative_keys_and_absent_ones_mean_what_the_table_says(forms, tmp_path):
    _, plugin, params, _ = forms
    tensors = forms_tensors(params)
    config = changed(FORMS_CONFIG, head_dim=None, positions=None, n_ctx=8, norm={"eps": 1e-3}, n_inner=None)
    model = core.load(foreign.hf_folder(tmp_path / "a", tensors, config), plugins=[plugin])
    assert model.graph.dims["D"] == 3 and model.graph.dims["S"] == 8
    one_head = changed(FORMS_CONFIG, sizes__kv_heads=None)  # then as many as heads: the tensors have fewer
    refused(
        lambda: core.load(foreign.hf_folder(tmp_path / "b", tensors, one_head), plugins=[plugin]),
        '"m.h.0.k" (6, 12), expected (12, 12)',
    )


def test_rows_in_parts_that_are_not_the_tables_are_refused(forms, tmp_path):
    _, plugin, params, _ = forms
    tensors = forms_tensors(params)
    tensors["m.h.1.q"], tensors["m.h.1.k"] = tensors["m.h.1.k"], tensors["m.h.1.q"]  # as many rows in all
    folder = foreign.hf_folder(tmp_path / "hf", tensors, FORMS_CONFIG)
    refused(lambda: core.load(folder, plugins=[plugin]), '"m.h.1.q" (6, 12), expected (12, 12)', "h.1.qkv.weight")


TABLES = {
    "parts that are not equal": ('"h.{i}.qkv.weight" = ["a.{i}", "b.{i}", "c.{i}", "d.{i}", "e.{i}"]', ["5 equal"]),
    "sizes that do not add up": (
        '"h.{i}.qkv.weight" = { rows = ["a.{i}", "b.{i}"], sizes = ["C", "C"] }',
        ["has 72 rows in 2 tensors", "24, 24"],
    ),
    "a size that is no dim": ('"h.{i}.qkv.weight" = { rows = ["a.{i}"], sizes = ["Z"] }', ['"Z" is not known']),
    "both from and rows": ('"h.{i}.qkv.weight" = { from = "a", rows = ["a"] }', ['either "from" or "rows"']),
    "neither": ('"h.{i}.qkv.weight" = { transpose = true }', ['either "from" or "rows"']),
    "a size that is none": ('"h.{i}.qkv.weight" = { rows = ["a"], sizes = [true] }', ["the rows of each"]),
    "two of one name": ('"h.{i}.qkv.weight" = "same"', ['two parameters map to the tensor "transformer.same"']),
}


@pytest.mark.parametrize("line, words", TABLES.values(), ids=TABLES)
def test_a_rule_that_cannot_be_run_backwards_is_refused_where_it_stands(here, registry, line, words):
    (here / "m.toml").write_text(f'extends = "gpt2_124m"\n[hf.params]\n{line}\n')
    opened = open_path(foreign.hf_folder(here / "hf"), registry)
    model = open_path(here / "m.toml", registry, DIMS)
    held = type(opened)(opened.kind, opened.path, model.source, DIMS, opened.weights)
    refused(lambda: WRITERS["hf"](prepare(held, registry, "f32"), registry, here / "out"), *words, kind=BuildError)
    assert not (here / "out").exists()
