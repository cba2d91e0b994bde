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
from core.plugins.huggingface.rules import names as huggingface_names
from foreign_exports import WRITERS, export, refused, small_bpe
from trained_run import run as core_command

import core
from core import checkpoint
from core.errors import BuildError
from core.interop.export import prepare
from core.interop.opened import open_path
from core.tokenizers.folder import to_tokenizers
from core.tokenizers.kinds import Gpt2Kind
from core.train.run import read_lines

make, DIMS, OURS = foreign.make, foreign.DIMS, foreign.OURS
PAGE = Path(__file__).parents[2] / "docs/interop.md"

GOLD = safetensors.numpy.load_file(foreign.GOLDEN / "gpt2.safetensors")
BATCH = make.batches(DIMS)[0]


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


def test_fp16_is_rounded_to_the_nearest_and_transformers_has_the_same_bits(here, registry, capsys):
    out = export(foreign.hf_folder(here / "hf"), "hf", here / "out", registry, "fp16")
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "float16"
    core_command(capsys, "import", out, "imported")
    params = core.load("imported").params
    for name, value in OURS.items():
        np.testing.assert_array_equal(params[name], value.astype(np.float16))
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(out, torch_dtype="auto")
    assert theirs.dtype == torch.float16
    for name, value in foreign.hf_tensors().items():
        np.testing.assert_array_equal(theirs.state_dict()[name].numpy(), value.astype(np.float16))
    found = theirs.float()(torch.from_numpy(BATCH["tokens"].astype(np.int64))).logits.detach().numpy()
    assert np.abs(found - core.load(out).logits(BATCH["tokens"])).max() < 1e-4


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


def test_what_the_reader_gives_to_names_is_what_the_writer_writes(here, registry):
    opened = open_path(foreign.hf_folder(here / "hf"), registry)
    graph = opened.source.build(registry, dict(opened.dims))
    out = export(here / "hf", "hf", here / "out", registry)
    assert set(huggingface_names(graph).values()) == set(safetensors.numpy.load_file(out / "model.safetensors"))


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
    assert "checkpoints of corelm need no import" in printed.err
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
