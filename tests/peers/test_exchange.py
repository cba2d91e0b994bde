"""core import and core export: what goes out comes back the same, to the bit, and transformers reads it."""

from __future__ import annotations

import io
import json
import re
import shlex
from pathlib import Path

import foreign_files as foreign
import loopback_hub as loopback
import numpy as np
import pytest
import safetensors.numpy
from core.plugins.huggingface import export as export_huggingface
from core.plugins.huggingface.rules import names as huggingface_names
from core.plugins.llmc import export as export_llmc

import core
from core import cli
from core.errors import BuildError, CoreError, DataError, UsageError
from core.interop import checkpoint
from core.interop.export import prepare
from core.interop.opened import open_path
from core.loader import load_registry
from core.tokenizers.bpe_training import train_bpe
from core.tokenizers.byte_pairs import BytePairTokenizer as Tokenizer
from core.tokenizers.byte_pairs import bytes_tokenizer
from core.tokenizers.folder import read_folder, to_tokenizers
from core.tokenizers.kinds import Gpt2Kind
from core.tokenizers.library import LibraryTokenizer
from core.tokenizers.tokenizer import END_OF_TEXT
from core.train.run import read_lines

make, DIMS, OURS = foreign.make, foreign.DIMS, foreign.OURS
PAGE = Path(__file__).parents[2] / "docs/interop.md"

GOLD = safetensors.numpy.load_file(foreign.GOLDEN / "gpt2.safetensors")
BATCH = make.batches(DIMS)[0]
WRITERS = {"hf": export_huggingface.write, "llmc": export_llmc.write}


@pytest.fixture(scope="module")
def registry():
    return load_registry()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory; nothing is downloaded, and the cache is here too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CORELM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CORELM_OFFLINE", "1")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "none"))
    return tmp_path


def export(path, to, out, registry, precision="f32", **more):
    WRITERS[to](prepare(open_path(path, registry), registry, precision, **more), registry, Path(out))
    return Path(out)


def core_command(capsys, *words, code=0):
    """What a command prints."""
    assert cli.run([str(word) for word in words]) == code, capsys.readouterr()
    return capsys.readouterr()


def refused(call, *words, kind=CoreError):
    with pytest.raises(kind) as caught:
        call()
    for word in words:
        assert word in str(caught.value), str(caught.value)


# --- llm.c -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision, version", [("f32", 3), ("bf16", 5)])
def test_an_llmc_file_imported_and_exported_is_the_same_to_the_byte(here, registry, precision, version, capsys):
    source = foreign.llmc_file(here / "model.bin", version=version, padded=128)
    core_command(capsys, "import", source, "imported")
    core_command(capsys, "export", "imported", "--to", "llmc", "--out", "again.bin", "--precision", precision)
    assert (here / "again.bin").read_bytes() == source.read_bytes()


def test_an_export_for_llmc_has_zeros_where_the_vocabulary_is_padded(here, registry):
    data = export(foreign.hf_folder(here / "hf"), "llmc", here / "m.bin", registry).read_bytes()
    padding = data[1024 + 4 * DIMS["V"] * DIMS["C"] : 1024 + 4 * 128 * DIMS["C"]]
    assert len(padding) == 4 * 78 * DIMS["C"] and not any(padding)
    assert data == foreign.llmc_file(here / "by_hand.bin").read_bytes()


# --- Hugging Face ------------------------------------------------------------------------------------------------


def test_a_folder_imported_and_exported_has_the_same_tensors_and_config(here, registry, capsys):
    folder = foreign.hf_folder(here / "hf", shards=3)
    core_command(capsys, "import", folder, "imported")
    core_command(capsys, "export", "imported", "--to", "hf", "--out", "again")
    tensors = safetensors.numpy.load_file(here / "again/model.safetensors")
    expected = foreign.hf_tensors()
    assert set(tensors) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(tensors[name], value)
    config = json.loads((here / "again/config.json").read_text())
    said = ("architectures", "model_type", "n_embd", "n_head", "n_layer", "n_positions", "vocab_size")
    said += ("activation_function", "layer_norm_epsilon")
    assert {key: config[key] for key in said} == {key: foreign.CONFIG[key] for key in said}
    assert "n_inner" not in config and config["torch_dtype"] == "float32" and "eos_token_id" not in config


def test_an_imported_model_computes_what_torch_computes(here, capsys):
    core_command(capsys, "import", foreign.hf_folder(here / "hf"), "imported")
    model = core.load("imported")
    np.testing.assert_allclose(model.logits(BATCH["tokens"]), GOLD["logits"], atol=1e-4)
    assert checkpoint.load(here / "imported").state["imported"] == {"from": "hf", "as": "a Hugging Face folder"}


def test_bf16_is_rounded_to_the_nearest_and_read_back_exactly(here, registry):
    out = export(foreign.hf_folder(here / "hf"), "hf", here / "out", registry, "bf16")
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "bfloat16"
    params = core.load(out).params
    for name, value in OURS.items():
        np.testing.assert_array_equal(params[name], foreign.bf16(value)[1])


def test_transformers_loads_our_export_and_gives_our_logits(here, registry, capsys):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    core_command(capsys, "import", foreign.hf_folder(here / "hf"), "imported")
    core_command(capsys, "export", "imported", "--to", "hf", "--out", "out")
    theirs, report = transformers.GPT2LMHeadModel.from_pretrained(here / "out", output_loading_info=True)
    assert not any(report.values()), report
    assert theirs.dtype == torch.float32 and theirs.config.vocab_size == DIMS["V"]
    found = theirs(torch.from_numpy(BATCH["tokens"].astype(np.int64))).logits.detach().numpy()
    assert np.abs(found - core.load("imported").logits(BATCH["tokens"])).max() < 1e-4


# --- every form of [hf] --------------------------------------------------------------------------------------------

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
    "two of one name": ('"h.{i}.qkv.weight" = "same"', ['two parameters want the tensor "transformer.same"']),
}


@pytest.mark.parametrize("line, words", TABLES.values(), ids=TABLES)
def test_a_rule_that_cannot_be_run_backwards_is_refused_where_it_stands(here, registry, line, words):
    (here / "m.toml").write_text(f'extends = "gpt2_124m"\n[hf.params]\n{line}\n')
    opened = open_path(foreign.hf_folder(here / "hf"), registry)
    model = open_path(here / "m.toml", registry, DIMS)
    held = type(opened)(opened.kind, opened.path, model.source, DIMS, opened.weights)
    refused(lambda: WRITERS["hf"](prepare(held, registry, "f32"), registry, here / "out"), *words, kind=BuildError)
    assert not (here / "out").exists()


# --- what is not another program's model -------------------------------------------------------------------------

OTHERS = {
    "another epsilon": ('ln_1 = { op = "layernorm", in = "x", eps = 1e-6 }', "h.0.ln_1 has eps 1e-05, here 1e-06"),
    "another activation": ('act = { op = "gelu", in = "fc", approx = "erf" }', "has approx 'tanh', here 'erf'"),
    "another wiring": ('ln_2 = { op = "layernorm", in = "proj" }', "h.0.ln_2 has inputs"),
}


@pytest.mark.parametrize("to", WRITERS)
@pytest.mark.parametrize("node, words", OTHERS.values(), ids=OTHERS)
def test_a_model_that_the_format_would_say_wrongly_is_not_exported(here, registry, to, node, words):
    """It inherits the tables, which cannot say what it changes: written, it would be read as the base."""
    if "ln_2" in node:
        node += '\nr = { op = "add", in = ["x", "proj"] }\ny = { op = "add", in = ["r", "down"] }'
    (here / "m.toml").write_text(f'extends = "gpt2_124m"\n[block.layer]\n{node}\n')
    parts = open_path(foreign.hf_folder(here / "hf"), registry)
    model = open_path(here / "m.toml", registry, DIMS)
    held = type(parts)(parts.kind, parts.path, model.source, DIMS, parts.weights)
    refused(
        lambda: WRITERS[to](prepare(held, registry, "f32"), registry, here / "out"), "would be read as", words,
        kind=BuildError,
    )  # fmt: skip
    assert [p.name for p in here.iterdir() if p.name not in ("hf", "m.toml")] == []


def test_a_model_without_the_table_is_not_exported(here, registry):
    (here / "m.toml").write_text('extends = "gpt2_124m"\nhf = false\nllmc = false\n')
    weights = open_path(foreign.hf_folder(here / "hf"), registry).weights
    model = open_path(here / "m.toml", registry, DIMS)
    held = type(model)(model.kind, model.path, model.source, DIMS, weights)
    for to, word in (("hf", "has no [hf]"), ("llmc", "has no [llmc]")):
        refused(lambda to=to: WRITERS[to](prepare(held, registry, "f32"), registry, here / "out"), word)


def test_what_is_ours_already_is_not_imported_and_what_is_there_not_overwritten(here, registry, capsys):
    folder = foreign.hf_folder(here / "hf")
    core_command(capsys, "import", folder, "imported")
    before = sorted(here.rglob("*"))
    printed = core_command(capsys, "import", "imported", "again", code=2)
    assert "ours need no import" in printed.err
    for words in (("import", folder, "imported"), ("export", "imported", "--to", "hf", "--out", "hf")):
        assert "exists already; nothing was changed" in core_command(capsys, *words, code=2).err
    assert "a model without weights" in core_command(
        capsys, "export", Path(registry.models["gpt2_124m"].path), "--to", "hf", "--out", "x", code=7
    ).err  # fmt: skip
    assert sorted(here.rglob("*")) == before


def test_export_names_what_it_makes_after_the_run(here, capsys):
    core_command(capsys, "import", foreign.hf_folder(here / "hf"), "runs/mine")
    core_command(capsys, "export", "mine", "--to", "hf")
    found = json.loads(core_command(capsys, "export", "mine-hf", "--to", "llmc", "--json").out)
    assert found == {"from": "mine-hf", "out": "mine-hf.bin", "model": "gpt2_124m", "precision": "f32"}
    assert (here / "mine-hf.bin").read_bytes() == foreign.llmc_file(here / "by_hand.bin").read_bytes()


# --- training on -------------------------------------------------------------------------------------------------


def test_ten_steps_from_imported_weights_are_pytorchs(here, capsys):
    """The whole way: core import, weights in a config, core train, the losses in metrics.jsonl."""
    core_command(capsys, "import", foreign.hf_folder(here / "hf"), "imported")
    tokens = make.text_tokens(DIMS)
    header = np.zeros(256, "<i4")
    header[:3] = 20240520, 1, tokens.size
    (here / "text.bin").write_bytes(header.tobytes() + tokens.astype("<u2").tobytes())
    options = {k: v for k, v in make.OPTIMIZER.items() if k != "lr"}
    (here / "run.toml").write_text(
        f'model = "imported/model.toml"\nweights = "imported"\n[dims]\nB = {DIMS["B"]}\nT = {DIMS["T"]}\n'
        f'[data]\ntrain = "text.bin"\n[train]\nsteps = {make.STEPS}\ntokens_per_step = {tokens.size - 1}\n'
        f'[optimizer]\nname = "adamw"\nlr = {make.OPTIMIZER["lr"]}\n'
        + "".join(f"{k} = {v}\n" for k, v in options.items())
        + '[schedule]\nname = "constant"\n'
    )
    core_command(capsys, "train", "run.toml", "--device", "cpu", "--out", "run")
    steps = read_lines(here / "run/metrics.jsonl")
    golden = safetensors.numpy.load_file(foreign.GOLDEN / "finetune.safetensors")
    assert np.abs(np.array([s["loss"] for s in steps]) - golden["losses"]).max() < 1e-5
    assert np.abs(np.array([s["norm"] for s in steps]) / golden["norms"] - 1).max() < 1e-4


def test_an_imported_model_is_started_from_and_not_gone_on_with(here, capsys):
    core_command(capsys, "import", foreign.hf_folder(here / "hf"), "imported")
    said = core_command(capsys, "train", "configs/tiny.toml", "--from", "imported", "--out", "run", code=7).err
    assert "has no optimizer state" in said and 'weights = "imported"' in said and not (here / "run").exists()


def test_the_golden_losses_are_what_torch_gives_here():
    pytest.importorskip("torch")
    golden = safetensors.numpy.load_file(foreign.GOLDEN / "finetune.safetensors")
    for name, value in make.finetune().items():
        np.testing.assert_allclose(value, golden[name], rtol=1e-9)


# --- tokenizers ----------------------------------------------------------------------------------------------------

TEXTS = ("the quick brown fox", " don't\n\n  stop 12345", "naïve 東京 🙂", "<|endoftext|> is text", "", "a\x00b\r\n")


def small_bpe():
    return train_bpe([f"the quick brown fox jumps over the lazy dog {n} don't" for n in range(50)], 330)


@pytest.mark.parametrize("made", [small_bpe, bytes_tokenizer], ids=["bpe", "bytes"])
def test_a_tokenizer_goes_out_and_comes_back_and_gives_its_ids_in_the_library(made, tmp_path):
    ours = made()
    (tmp_path / "tokenizer.json").write_text(json.dumps(to_tokenizers(ours)), encoding="utf-8")
    back = read_folder(tmp_path)
    assert back.tokens == ours.tokens and back.eot == ours.eot
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in TEXTS:
        plain = text.replace(END_OF_TEXT, "end")  # there, the special token is read from text
        assert theirs.encode(plain).ids == ours.encode(plain).tolist(), text
        assert theirs.decode(ours.encode(plain).tolist()) == plain
    assert theirs.token_to_id(END_OF_TEXT) == ours.eot


def test_a_tokenizer_that_the_library_trained_and_saved_gives_its_ids_here(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.ByteLevelBPETokenizer()
    theirs.train_from_iterator(["the quick brown fox don't jump over 12345 naïve dogs"] * 9, 300, show_progress=False)
    theirs.add_special_tokens([END_OF_TEXT])
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = read_folder(tmp_path)
    assert ours.vocab_size == theirs.get_vocab_size() and ours.eot == theirs.token_to_id(END_OF_TEXT)
    for text in TEXTS:
        plain = text.replace(END_OF_TEXT, "end")
        assert ours.encode(plain).tolist() == theirs.encode(plain).ids, text


def test_a_model_takes_its_tokenizer_along_both_ways(here, capsys, registry):
    tensors = foreign.hf_tensors()
    wte = np.random.default_rng(0).standard_normal((330, DIMS["C"])).astype(np.float32)
    folder = foreign.hf_folder(
        here / "hf",
        {**tensors, "transformer.wte.weight": wte},
        {**foreign.CONFIG, "vocab_size": 330, "bos_token_id": 329},
    )
    (folder / "tokenizer.json").write_text(json.dumps(to_tokenizers(small_bpe())), encoding="utf-8")
    assert core.load(folder).tokenizer.tokens == small_bpe().tokens
    assert "330 ids, from the source folder" in core_command(capsys, "import", folder, "imported").out
    assert "the" in core_command(capsys, "sample", "imported", "--prompt", "the", "--tokens", "3").out
    core_command(capsys, "export", "imported", "--to", "hf", "--out", "out")
    config = json.loads((here / "out/config.json").read_text())
    assert config["bos_token_id"] == config["eos_token_id"] == 329
    assert json.loads((here / "out/tokenizer_config.json").read_text())["model_max_length"] == DIMS["S"]
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(here / "out")
    assert theirs("don't jump")["input_ids"] == small_bpe().encode("don't jump").tolist()
    assert theirs.eos_token_id == 329


def test_a_tokenizer_of_another_kind_is_not_taken_for_ours_but_left_to_the_library(tmp_path):
    pytest.importorskip("tokenizers")
    whole = to_tokenizers(small_bpe())
    others = [
        {"normalizer": {"type": "NFC"}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": {**whole["pre_tokenizer"], "add_prefix_space": True}},
        {"added_tokens": [*whole["added_tokens"], {"id": 330, "content": "<pad>"}]},
        {"model": {**whole["model"], "type": "Unigram"}},
        {"model": {**whole["model"], "ignore_merges": True}},
        {"model": {**whole["model"], "merges": whole["model"]["merges"][::-1]}},
        {"model": {**whole["model"], "vocab": {**whole["model"]["vocab"], "!": 1000}}},  # an id that is left out
    ]
    for other in others:
        (tmp_path / "tokenizer.json").write_text(json.dumps({**whole, **other}))
        try:
            found = read_folder(tmp_path)
        except DataError:
            continue  # the library's word on a file that it cannot read either
        assert isinstance(found, LibraryTokenizer), other
    for damaged in ("{", "[]", '{"model": 3}', json.dumps({**whole, "added_tokens": [3]})):
        (tmp_path / "tokenizer.json").write_text(damaged)
        refused(lambda: read_folder(tmp_path), "tokenizer.json", kind=DataError)
    odd = Tokenizer("bpe", [*small_bpe().tokens[:256], b"the quick"])
    refused(lambda: to_tokenizers(odd), "is no merge of two tokens", kind=DataError)


def test_a_tokenizer_is_asked_for_or_said_to_be_missing(here, capsys):
    folder = foreign.hf_folder(here / "hf")
    assert "the source has none" in core_command(capsys, "import", folder, "without").out
    assert "50" in core_command(capsys, "import", folder, "x", "--tokenizer", "bytes", code=6).err
    refused(lambda: open_path("nowhere", load_registry()), kind=UsageError)
    assert not (here / "x").exists()


def test_what_the_reader_gives_to_names_is_what_the_writer_writes(here, registry):
    opened = open_path(foreign.hf_folder(here / "hf"), registry)
    graph = opened.source.build(registry, dict(opened.dims))
    out = export(here / "hf", "hf", here / "out", registry)
    assert set(huggingface_names(graph).values()) == set(safetensors.numpy.load_file(out / "model.safetensors"))


# --- the page ------------------------------------------------------------------------------------------------------


def test_every_command_of_the_page_runs(here, capsys, monkeypatch):
    """docs/interop.md as it stands, in order, with a hub on loopback that has small files of the same kinds."""
    rng = np.random.default_rng(0)
    tokenizer = small_bpe()
    wte = rng.standard_normal((tokenizer.vocab_size, DIMS["C"])).astype(np.float32)
    wpe = rng.standard_normal((64, DIMS["C"])).astype(np.float32)  # 64 positions, for a turn of a chat to fit
    config = {**foreign.CONFIG, "vocab_size": tokenizer.vocab_size, "n_positions": 64}
    tensors = {**foreign.hf_tensors(), "transformer.wte.weight": wte, "transformer.wpe.weight": wpe}
    foreign.hf_folder(here / "made", tensors, config)
    (here / "made/tokenizer.json").write_text(json.dumps(to_tokenizers(tokenizer)), encoding="utf-8")
    questions = np.zeros(256, "<i4")
    questions[:3] = 20240522, 1, 9
    example = [65535, 32, 0, 2, 4, 1, 5, 1, 6, 1, 7, 1, 8, 2, 9, 10]
    example[1] = 2 * len(example)
    monkeypatch.setattr(Gpt2Kind, "hash", tokenizer.hash)  # the small one stands for GPT-2's, as the file's ids do
    with loopback.serving() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        hub.files |= {path.name: path.read_bytes() for path in (here / "made").iterdir()}
        hub.files["hellaswag_val.bin"] = questions.tobytes() + np.array(example * 9, "<u2").tobytes()
        monkeypatch.setattr("sys.stdin", io.StringIO("the\n"))
        ran = [words for words in commands(PAGE) if core_command(capsys, *words[1:])]
    assert len(ran) == 10 and {words[1] for words in ran} == {"get", "import", "sample", "chat", "eval", "export"}
    params = core.load("gpt2").params
    for name, value in core.load("gpt2-hf").params.items():
        np.testing.assert_array_equal(value, params[name])


def commands(page):
    """The commands of a page's shell blocks, as words."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
