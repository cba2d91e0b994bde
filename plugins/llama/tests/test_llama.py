"""The models against transformers' LlamaForCausalLM, from logits to ten AdamW steps, and decoding against the whole.

The golden values (golden/make.py) are transformers'. Where it is installed, they are computed afresh too.
"""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import core
from core.engine import Engine, Settings
from core.errors import CheckpointError
from core.graph import load_model
from core.loader import load_registry

GOLDEN = Path(__file__).parent / "golden"
spec = importlib.util.spec_from_file_location("llama_golden_make", GOLDEN / "make.py")
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)

# relative 2-norms. transformers has norms and angles in f32, whatever the precision
LOGITS, GRADIENT, LOSSES = 2e-6, 1e-5, 1e-5


@cache
def registry():
    return load_registry()


@cache
def golden(case):
    return load_file(GOLDEN / f"{case}.safetensors")


def references():
    return {op: "reference" for op, variants in registry().variants.items() if "reference" in variants}


def unfused():
    return {"fusion": {name: False for name, op in registry().ops.items() if op.replaces}}


CHOICES = {"auto": dict, "references": lambda: {"ops": references()}, "unfused": unfused}


def engine(case, choice="auto"):
    options = {k: v for k, v in make.OPTIMIZER.items() if k != "lr"} | {"clip": 1e9}
    source = load_model(make.CASES[case]["model"], registry())
    settings = {"optimizer": "adamw", "options": options, "dims": make.CASES[case]["dims"], **CHOICES[choice]()}
    built = Engine(source, registry(), Settings(precision="f32", **settings))
    built.load_parameters(make.ours(case, make.tensors(case)))
    return built


def distance(got, expected):
    """Relative 2-norm of the difference."""
    expected = np.asarray(expected, np.float64)
    return np.linalg.norm(np.asarray(got, np.float64) - expected) / np.linalg.norm(expected)


# --- against transformers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", make.CASES)
def test_the_committed_values_are_what_transformers_computes_here(case):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    torch.set_num_threads(1)
    fresh = make.compute(case)
    assert set(fresh) == set(golden(case))
    far = {name: distance(fresh[name], value) for name, value in golden(case).items()}
    assert max(far.values()) < 1e-6, far


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("case", make.CASES)
def test_logits_loss_and_every_gradient_agree_with_transformers(case, choice):
    built, expected = engine(case, choice), golden(case)
    assert distance(built.logits(make.batch(case)["tokens"]), expected["logits"]) < LOGITS
    loss, gradients = built.gradients(make.batch(case))
    assert abs(loss / expected["loss"] - 1) < LOGITS
    assert {"d" + name for name in gradients} == {name for name in expected if name.startswith("d")}
    far = {name: distance(value, expected["d" + name]) for name, value in gradients.items()}
    assert max(far.values()) < GRADIENT, far


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("case", make.CASES)
def test_ten_adamw_losses_agree_with_transformers(case, choice):
    built = engine(case, choice)
    losses = [built.step([make.batch(case)], make.OPTIMIZER["lr"]).loss for _ in range(make.STEPS)]
    np.testing.assert_allclose(losses, golden(case)["losses"], rtol=LOSSES)
    assert losses[-1] < losses[0] / 2  # and they are losses of something that learns


# --- Hugging Face's folders --------------------------------------------------------------------------------------


def folder(path, case, **changes):
    """A folder as transformers writes it; `changes` of config.json, None for a key that is not there."""
    path.mkdir()
    config = {key: value for key, value in (make.config(case) | changes).items() if value is not None}
    (path / "config.json").write_text(json.dumps(config))
    save_file(make.tensors(case), path / "model.safetensors")
    return path


@pytest.mark.parametrize("case", make.CASES)
def test_a_folder_is_found_to_be_that_model_and_computes_what_transformers_computes(case, tmp_path):
    model = core.load(folder(tmp_path / "hf", case))
    assert distance(model.logits(make.batch(case)["tokens"]), golden(case)["logits"]) < LOGITS
    assert model.graph.name == make.CASES[case]["model"]


def test_a_folder_from_before_rope_parameters_is_read(tmp_path):
    rope = make.config("scaled")["rope_parameters"]
    old = {"rope_parameters": None, "rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    model = core.load(folder(tmp_path / "scaled", "scaled", **old))
    assert distance(model.logits(make.batch("scaled")["tokens"]), golden("scaled")["logits"]) < LOGITS
    old = {"rope_parameters": None, "rope_theta": 10000.0, "head_dim": None, "attention_bias": None}
    path = folder(tmp_path / "tied", "tied", **old)
    config = json.loads((path / "config.json").read_text()) | {"rope_scaling": None}
    (path / "config.json").write_text(json.dumps(config))
    assert distance(core.load(path).logits(make.batch("tied")["tokens"]), golden("tied")["logits"]) < LOGITS


REFUSED = {
    "a scaling that is not LLaMA 3's": ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_type"),
    "an old one": ({"rope_parameters": None, "rope_theta": 1e4, "rope_scaling": {"type": "linear"}}, "rope_scaling"),
    "another activation": ({"hidden_act": "gelu"}, "hidden_act"),
    "biases": ({"attention_bias": True}, "attention_bias"),
    "a key that nobody knows": ({"sliding_window": 4}, 'key "sliding_window" is unknown'),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_would_be_computed_wrongly_is_refused_by_name(what, tmp_path):
    changes, named = REFUSED[what]
    with pytest.raises(CheckpointError, match=named):
        core.load(folder(tmp_path / "hf", "tied", **changes))


def test_what_transformers_saves_is_read_with_all_that_it_writes(tmp_path):
    pytest.importorskip("transformers")
    model = make.build("scaled").float()
    model.save_pretrained(tmp_path)
    found = core.load(tmp_path).logits(make.batch("scaled")["tokens"])
    assert distance(found, golden("scaled")["logits"]) < LOGITS


# --- decoding ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", make.CASES)
def test_cached_decoding_gives_the_logits_of_the_whole(case):
    built, tokens = engine(case), make.batch(case)["tokens"]
    session, fed = built.session(*tokens.shape), 0
    for take in (5, 1, 1, tokens.shape[1] - 7):
        fed += take
        found = session.feed(tokens[:, fed - take : fed])
        assert distance(found, golden(case)["logits"][:, fed - 1]) < LOGITS


@pytest.mark.parametrize("case", make.CASES)
def test_generation_through_the_cache_gives_the_tokens_of_the_uncached_path(case, tmp_path):
    model, prompt = core.load(folder(tmp_path / "hf", case)), make.batch(case)["tokens"][0, :4].tolist()
    whole = list(prompt)
    for _ in range(20):
        whole.append(int(model.logits(np.array([whole], np.int32))[0, -1].argmax()))
    found = model.generate(np.array([prompt], np.int32), max_new_tokens=20, temperature=0)
    assert np.asarray(found).reshape(-1).tolist() == whole and len(set(whole[4:])) > 2


# --- sizes -------------------------------------------------------------------------------------------------------

PUBLISHED = {
    "tinyllama_1b": 1_100_048_384,
    "llama3_1b": 1_235_814_400,
    "llama3_8b": 8_030_261_248,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_model_has_the_published_number_of_parameters(name):
    graph = load_model(name, registry()).build(registry())
    assert graph.parameter_count == PUBLISHED[name]
