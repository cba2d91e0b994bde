"""Hugging Face folders: read to the last number, or refused with the reason."""

from __future__ import annotations

import json
import pickle
import shutil
import struct

import numpy as np
import pytest
import safetensors.numpy
from core.plugins.huggingface import folder as huggingface
from core.plugins.huggingface.rules import names as huggingface_names
from read_weights import (
    BATCH,
    CONFIG,
    CONV1D,
    DIMS,
    GOLD,
    OURS,
    bf16,
    hf_folder,
    hf_tensors,
    llmc_file,
    plugin_with,
    refused,
    same,
)

import core
from core.errors import CoreError, UsageError
from core.graph import load_model
from core.interop.weights import read_weights


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_a_hugging_face_folder_computes_what_torch_computes(tmp_path, prefix, shards):
    model = core.load(hf_folder(tmp_path / "hf", hf_tensors(prefix), shards=shards))
    same(model.params)
    np.testing.assert_allclose(model.logits(BATCH["tokens"]), GOLD["logits"], atol=1e-4)
    assert abs(model.loss(**BATCH) - GOLD["loss"]) < 1e-5
    for name, gradient in model.gradients(**BATCH).items():
        expected = GOLD["d" + name]
        assert np.linalg.norm(gradient - expected) < 1e-4 * np.linalg.norm(expected), name


def test_names_hf_lead_to_the_tensors_that_were_read(tmp_path):
    tensors = hf_tensors()
    names = core.load(hf_folder(tmp_path / "hf", tensors)).names("hf")
    assert set(names) == set(OURS) and set(names.values()) == set(tensors)
    for name, theirs in names.items():
        assert tensors[theirs].shape in (OURS[name].shape, OURS[name].shape[::-1])


def test_every_size_of_gpt2_is_found_by_its_config(tmp_path, registry):
    for name in ("gpt2_124m", "gpt2_355m", "gpt2_774m", "gpt2_1558m"):
        source = load_model(name, registry)
        keys = {"n_embd": "C", "n_head": "H", "n_layer": "L", "n_positions": "S", "vocab_size": "V"}
        dims = {**source.document["dims"], "V": 3, "S": 4, "C": source.document["dims"]["H"]}  # small, to be quick
        assert {k: dims[v] for k, v in keys.items()}
        graph = source.build(registry, {"V": 3, "S": 4, "T": 4, "C": dims["C"]})
        folder = hf_folder(tmp_path / name, empty(graph), {**CONFIG, **{k: dims[v] for k, v in keys.items()}})
        found = huggingface.find(huggingface.open_folder(folder), registry, {})
        assert found.source.name == name and found.dims["L"] == source.document["dims"]["L"] and found.dims["T"] == 4


def empty(graph):
    """Zeros in Hugging Face's names and shapes for a graph of GPT-2."""
    found = {}
    for name, theirs in huggingface_names(graph).items():
        shape = tuple(core.expr.unpadded(n) for n in graph.parameters[name].shape)
        turned = any(f".{node}.weight" in name for node in CONV1D)
        found[theirs] = np.zeros(shape[::-1] if turned else shape, np.float16)
    return found


def test_bf16_and_f16_are_widened_exactly(tmp_path):
    halves = {name: value.astype(np.float16) for name, value in hf_tensors().items()}
    same(core.load(hf_folder(tmp_path / "f16", halves)).params, {n: v.astype(np.float16) for n, v in OURS.items()})
    folder = hf_folder(tmp_path / "bf16")
    header, data = {}, b""
    for name, value in hf_tensors().items():
        bits = bf16(value)[0].tobytes()
        header[name] = {"dtype": "BF16", "shape": value.shape, "data_offsets": [len(data), len(data) + len(bits)]}
        data += bits
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    same(core.load(folder).params, {name: bf16(value)[1] for name, value in OURS.items()})


def test_what_the_model_ignores_may_be_there(tmp_path):
    extra = {"transformer.h.0.attn.bias": np.tri(4, dtype=bool)[None, None], "h.1.attn.masked_bias": np.float32([-1e4])}
    same(core.load(hf_folder(tmp_path / "hf", {**hf_tensors(), **extra})).params)


def test_a_head_that_is_stored_twice_must_be_the_embedding(tmp_path):
    wte = OURS["wte.weight"]
    same(core.load(hf_folder(tmp_path / "same", {**hf_tensors(), "lm_head.weight": wte})).params)
    folder = hf_folder(tmp_path / "other", {**hf_tensors(), "lm_head.weight": wte + 1})
    refused(lambda: core.load(folder), "lm_head.weight", "differs from wte.weight")


# --- Hugging Face: what is refused -------------------------------------------------------------------------------


def without(table, *names):
    return {k: v for k, v in table.items() if k not in names}


REFUSED_CONFIGS = {
    "an unknown key": ({**CONFIG, "rope_scaling": 2}, ["config.json", 'key "rope_scaling" is unknown']),
    "an unknown key in a table": ({**CONFIG, "quantization": {"bits": 4}}, ['"quantization.bits"']),
    "another activation": ({**CONFIG, "activation_function": "relu"}, ['activation_function is "relu"', '"gelu_new"']),
    "a value of another model": ({**CONFIG, "model_type": "gptj"}, ['model_type is "gptj"']),
    "false where 0 could pass": ({**CONFIG, "scale_attn_weights": 1}, ["scale_attn_weights is 1"]),
    "a size that is missing": (without(CONFIG, "n_positions"), ["n_positions or n_ctx", "S comes from"]),
    "a size that is no number": ({**CONFIG, "n_layer": "2"}, ['n_layer is "2"', "expected a number"]),
    "a size that is true": ({**CONFIG, "n_layer": True}, ["n_layer is true"]),
    "a negative size": ({**CONFIG, "n_layer": -2}, ["-2"]),
    "sizes that make no model": ({**CONFIG, "n_head": 5}, ["sizes make no model", "heads"]),
    "more layers than anyone has": ({**CONFIG, "n_layer": 10**9}, ["sizes make no model"]),
    "another vocabulary": ({**CONFIG, "vocab_size": 10**9}, ['"transformer.wte.weight" (50, 24)', "(1000000000, 24)"]),
    "no architecture": (without(CONFIG, "architectures"), ['"architectures" is None']),
    "an unknown architecture": (
        {**CONFIG, "architectures": ["Mamba"]},
        ["no model answers to Mamba", "GPT2LMHeadModel"],
    ),
}


@pytest.mark.parametrize("config, words", REFUSED_CONFIGS.values(), ids=REFUSED_CONFIGS)
def test_a_config_that_is_not_the_models_is_refused_by_name(tmp_path, config, words):
    folder = hf_folder(tmp_path / "hf", config=config)
    refused(lambda: core.load(folder), str(folder), *words)


QKV = "transformer.h.1.attn.c_attn.weight"
REFUSED_TENSORS = {
    "an unknown tensor": ({**hf_tensors(), "score.weight": OURS["ln_f.bias"]}, ['"score.weight" is unknown']),
    "a missing tensor": (without(hf_tensors(), QKV), ['"h.1.attn.c_attn.weight"', "h.1.qkv.weight, is missing"]),
    "a matrix that is not transposed": ({**hf_tensors(), QKV: OURS["h.1.qkv.weight"]}, [QKV, "(72, 24)", "transposed"]),
    "a matrix with one dim": ({**hf_tensors(), QKV: OURS["h.1.qkv.bias"]}, [QKV, "(72,)"]),
    "one name under two prefixes": ({**hf_tensors(), "ln_f.bias": OURS["ln_f.bias"]}, ['"ln_f.bias" is unknown']),
    "integers": ({**hf_tensors(), QKV: np.zeros((24, 72), np.int32)}, [QKV, "int32", "floating point"]),
    "another model's": ({"a": OURS["ln_f.bias"]}, ["and 17 more"]),
}


@pytest.mark.parametrize("tensors, words", REFUSED_TENSORS.values(), ids=REFUSED_TENSORS)
def test_tensors_that_are_not_the_models_are_refused_by_name(tmp_path, tensors, words):
    folder = hf_folder(tmp_path / "hf", tensors)
    refused(lambda: core.load(folder), str(folder), *words)


def edit_index(change):
    def edit(folder):
        index = folder / "model.safetensors.index.json"
        table = json.loads(index.read_text())
        change(table)
        index.write_text(json.dumps(table))

    return edit


SHARD = "model-0000{}-of-00003.safetensors"
SHARDED = {
    "a shard that is missing": (lambda f: (f / SHARD.format(2)).unlink(), ["00002", "cannot be read"]),
    "a name that leaves the folder": (
        edit_index(lambda t: t["weight_map"].update({QKV: "../" + SHARD.format(1)})), ["not a file here"]),
    "a tensor that is elsewhere": (
        edit_index(lambda t: t["weight_map"].update({"gone": SHARD.format(1)})), ['no tensor "gone"']),
    "a number for a name": (edit_index(lambda t: t["weight_map"].update({QKV: 3})), ["not a file here"]),
    "no table": (edit_index(lambda t: t.update(weight_map=[])), ["weight_map"]),
    "an index that is no JSON": (lambda f: (f / "model.safetensors.index.json").write_text("{"), ["not valid JSON"]),
    "a tensor in two shards": (
        lambda f: safetensors.numpy.save_file(hf_tensors(), f / SHARD.format(1)), ["is in model-0000"]),
    "a whole file too": (
        lambda f: safetensors.numpy.save_file(hf_tensors(), f / "model.safetensors"), ["move one of them away"]),
    "a hostile header": (
        lambda f: (f / SHARD.format(1)).write_bytes(b"\xff" * 64), ["not a valid safetensors file"]),
    "a shard that is cut short": (
        lambda f: (f / SHARD.format(3)).write_bytes(
            (f / SHARD.format(3)).read_bytes()[:-4]), ["cut short"]),
}  # fmt: skip


@pytest.mark.parametrize("damage, words", SHARDED.values(), ids=SHARDED)
def test_damaged_shards_are_refused(tmp_path, damage, words):
    folder = hf_folder(tmp_path / "hf", shards=3)
    damage(folder)
    refused(lambda: core.load(folder), *words)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was read",))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_a_pickle_is_never_read(tmp_path, name):
    folder = hf_folder(tmp_path / "hf")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Bomb()))
    refused(lambda: core.load(folder), name, "safe_serialization=True")
    refused(lambda: core.load(folder / name), "never read")


def test_a_model_that_inherits_the_mapping_does_not_get_in_the_way(tmp_path, registry):
    folder = hf_folder(tmp_path / "hf")
    act = '[block.layer]\nact = { op = "gelu", in = "fc", approx = "erf" }\n'
    plugin = plugin_with(tmp_path / "cooler", 'extends = "gpt2_124m"\n' + act)
    assert core.load("cooler", plugins=[plugin], dims=DIMS).graph.node("h.0.act").attrs["approx"] == "erf"
    assert core.load(folder, plugins=[plugin]).graph.name == "gpt2_124m"
    plugin_with(plugin, registry.models["gpt2_124m"].path.read_text())
    refused(lambda: core.load(folder, plugins=[plugin]), "several models fit", "cooler", "gpt2_124m")


# --- transformers itself -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [None, "20KB"], ids=["whole", "sharded"])
def test_a_gpt2_that_transformers_saved_is_the_same_model(tmp_path, size):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=61, n_positions=24, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0,
        attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0, initializer_range=0.3,
    )  # fmt: skip
    theirs = transformers.GPT2LMHeadModel(config).eval()
    theirs.save_pretrained(tmp_path, **({"max_shard_size": size} if size else {}))
    ours = core.load(tmp_path)
    tokens = np.random.default_rng(0).integers(0, 61, (3, 14))
    targets = np.roll(tokens, -1, axis=1)
    given = torch.from_numpy(tokens)
    expected = theirs(given).logits
    assert np.abs(ours.logits(tokens) - expected.detach().numpy()).max() < 1e-4
    loss = torch.nn.functional.cross_entropy(expected.flatten(0, 1), torch.from_numpy(targets).flatten())
    loss.backward()
    assert abs(ours.loss(tokens, targets) - loss.item()) < 1e-5
    gradients, names = ours.gradients(tokens, targets), ours.names("hf")
    for name, gradient in gradients.items():
        wanted = theirs.get_parameter(names[name]).grad.numpy()
        wanted = wanted.T if name.split(".")[-2] in CONV1D and name.endswith("weight") else wanted
        assert np.linalg.norm(gradient - wanted) < 1e-3 * np.linalg.norm(wanted), name
    greedy = theirs.generate(given[:, :5], max_new_tokens=15, do_sample=False, pad_token_id=0, eos_token_id=None)
    np.testing.assert_array_equal(ours.generate(tokens[:, :5], max_new_tokens=15, temperature=0), greedy.numpy())


def test_dims_cannot_contradict_a_file(tmp_path):
    folder, file = hf_folder(tmp_path / "hf"), llmc_file(tmp_path / "model.bin")
    refused(lambda: core.load(folder, dims={"H": 2}), "n_head is 4, and the model's H is 2")
    refused(lambda: core.load(file, dims={"V": 60}), "V in the header is 50, and the model's V is 60")
    refused(lambda: core.load(file, dims={"VV": 60}), 'no dim "VV"', kind=UsageError)
    assert core.load(folder, dims={"P": "pad(V, 8)"}).graph.dims["P"] == 56


# --- weights of a run --------------------------------------------------------------------------------------------


@pytest.fixture
def graph(registry):
    return load_model("gpt2_124m", registry).build(registry, DIMS)


def test_weights_for_a_settled_model_come_from_either(tmp_path, graph, registry):
    same(read_weights(hf_folder(tmp_path / "hf"), graph, registry))
    same(read_weights(llmc_file(tmp_path / "m.bin"), graph, registry))


def test_weights_of_another_size_are_refused_with_both_sizes(tmp_path, registry):
    graph = load_model("gpt2_124m", registry).build(registry, {**DIMS, "L": 3})
    folder, file = hf_folder(tmp_path / "hf"), llmc_file(tmp_path / "m.bin")
    refused(lambda: read_weights(folder, graph, registry), str(folder), "n_layer is 2, and the model's L is 3")
    refused(lambda: read_weights(file, graph, registry), str(file), "L in the header is 2, and the model's L is 3")


def test_weights_of_another_model_are_refused(tmp_path, registry):
    (tmp_path / "m.toml").write_text('extends = "gpt2_124m"\nhf = false\nllmc = false\n')
    graph = load_model(tmp_path / "m.toml", registry).build(registry, DIMS)
    refused(lambda: read_weights(hf_folder(tmp_path / "hf"), graph, registry), "no [hf]")
    refused(lambda: read_weights(llmc_file(tmp_path / "m.bin"), graph, registry), "is not of model m")
    refused(lambda: read_weights("gpt2_124m", graph, registry), "without weights")


# --- the tables --------------------------------------------------------------------------------------------------

TABLES = {
    "llmc without magic": ("[llmc]\nheader = ['S']\nparams = ['wte.weight']\n", ["magic"]),
    "llmc with an unknown dim": (
        "[llmc]\nmagic = 1\nheader = ['SS']\nparams = ['a']\n",
        ['no dim "SS"', 'did you mean "S"'],
    ),
    "llmc with an unknown key": (
        "[llmc]\nmagic = 1\nheader = []\nparams = []\nparam = []\n",
        ['did you mean "params"'],
    ),
    "tied to a number": ("[hf]\ntied = { a = 3 }\n", ["expected a string"]),
}


@pytest.mark.parametrize("text, words", TABLES.values(), ids=TABLES)
def test_a_table_that_is_wrong_is_refused_where_it_stands(tmp_path, registry, text, words):
    (tmp_path / "m.toml").write_text('extends = "gpt2_124m"\n' + text)
    refused(lambda: load_model(tmp_path / "m.toml", registry).build(registry, DIMS), "m.toml", *words, kind=CoreError)


def test_a_path_that_is_two_things_or_none_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = hf_folder(tmp_path / "gpt2_124m")
    refused(lambda: core.load("gpt2_124m"), "is the name of a model, and a folder here", "./gpt2_124m", kind=UsageError)
    same(core.load("./gpt2_124m").params)
    shutil.copytree(folder, tmp_path / "both" / "checkpoints" / "step_00000001")
    (tmp_path / "both" / "config.json").write_text("{}")
    refused(lambda: core.load("both"), "both a checkpoint and a Hugging Face folder")
    refused(lambda: core.load("gpt2_124"), 'did you mean "gpt2_124m"', "expected a run's", kind=UsageError)
    (tmp_path / "runs" / "tiny" / "checkpoints").mkdir(parents=True)
    refused(lambda: core.load("tiny"), "runs/tiny exists", kind=UsageError)
    refused(lambda: core.load("runs/tiny"), "a run without a checkpoint")
    (tmp_path / "empty").mkdir()
    refused(lambda: core.load("empty"), "no file in it is of a known format")
    safetensors.numpy.save_file({}, tmp_path / "empty" / "model.safetensors")
    refused(lambda: core.load("empty"), "no config.json beside")
    refused(lambda: core.load("empty/model.safetensors"), "give empty")
    refused(lambda: core.load("bad\0name"), kind=CoreError)
    refused(lambda: core.load(3), "takes a path", kind=UsageError)
