"""core.testing.check_model: what it compares, with transformers and without, and that it finds what is wrong."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from core.checkpoint.safetensors_file import write_tensors
from core.checkpoint.tensor_file import TensorFile
from core.errors import BuildError, CheckFailed
from core.loader import load_registry
from core.registry import Registry
from core.testing import ModelCase, check_model, model_check

ROOT = Path(__file__).parent.parent.parent
GOLDEN = ROOT / "plugins/mistral/tests/golden/window.safetensors"
DIMS = {"W": 5, "base": 10000.0}
HOW = {"peer": "MistralForCausalLM", "choices": ("auto",)}
NAME = "mistral_7b_v01"

with_transformers = pytest.mark.skipif(not find_spec("transformers"), reason="transformers is what it is held to")


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(only=("huggingface", "llama", "mistral"))


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without transformers."""
    monkeypatch.setattr(model_check, "find_spec", lambda name: None)


def test_golden_values_are_compared_without_transformers(registry: Registry, without: None) -> None:
    report = check_model(NAME, DIMS, registry=registry, golden=GOLDEN, **HOW)
    assert report.held_to == ["golden values"] and not report.skipped
    parts = {name.partition(" ")[0] for name in report.errors}
    assert {"logits", "loss", "dwte.weight", "AdamW's", "decoding"} <= parts
    assert 0 < max(report.errors.values()) < 1e-5


def test_with_neither_it_says_that_nothing_was_compared_but_the_cache_and_the_export(
    registry: Registry, without: None
) -> None:
    report = check_model(NAME, DIMS, registry=registry, **HOW)
    assert not report.held_to and "no golden values" in report.skipped
    assert {name.partition(" ")[0] for name in report.errors} == {"decoding"}


def test_values_that_differ_are_named_with_their_error_and_the_bound(
    registry: Registry, without: None, tmp_path: Path
) -> None:
    kept = {name: np.array(value) for name, value in TensorFile(GOLDEN).items()}
    kept["dh.1.qkv.weight"][0, 0] *= 2
    kept["losses"][9] *= 1.01
    write_tensors(tmp_path / "changed.safetensors", kept, {})
    with pytest.raises(CheckFailed) as failed:
        check_model(NAME, DIMS, registry=registry, golden=tmp_path / "changed.safetensors", **HOW)
    assert "disagrees in 2 places" in str(failed.value)
    assert "dh.1.qkv.weight (auto): relative error" in str(failed.value) and "1e-05 allowed" in str(failed.value)
    assert "AdamW's losses (auto)" in str(failed.value)


def test_a_cache_that_decodes_something_else_is_found(
    registry: Registry, without: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = ModelCase(NAME, DIMS, golden=GOLDEN, registry=registry)
    engine = case.engine()
    session = engine.session(2, 13)
    feed = type(session).feed
    monkeypatch.setattr(type(session), "feed", lambda self, tokens, *counts: feed(self, (tokens + 1) % 37, *counts))
    with pytest.raises(CheckFailed, match="decoding token 5"):
        case.check(())


def test_a_model_without_hf_and_a_golden_file_that_is_missing_are_refused(
    registry: Registry, without: None, tmp_path: Path
) -> None:
    with pytest.raises(BuildError, match=r"write=True"):
        check_model(NAME, DIMS, registry=registry, golden=tmp_path / "none", **HOW)
    with pytest.raises(BuildError, match="written from|transformers', which is not installed"):
        check_model(NAME, DIMS, registry=registry, golden=tmp_path / "none", write=True, **HOW)
    with pytest.raises(BuildError, match=r"has no \[hf\]"):
        check_model(str(changed(registry, tmp_path, lambda document: document.pop("hf"))), DIMS, registry=registry)


def changed(registry: Registry, folder: Path, change: object) -> Path:
    """A copy of the model as one file, with a change."""
    document = dict(ModelCase(NAME, registry=registry).source.document)
    change(document)  # type: ignore[operator]
    path = folder / "changed.toml"
    path.write_text(tomli_w.dumps(document))
    return path


@with_transformers
def test_golden_values_are_written_by_the_same_function(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "new.safetensors"
    report = check_model(NAME, DIMS, registry=registry, golden=path, write=True, **HOW)
    assert report.held_to[0].startswith("transformers ") and report.held_to[1] == "golden values"
    assert set(TensorFile(path)) == set(TensorFile(GOLDEN))
    far = {n: model_check.distance(TensorFile(path)[n], value) for n, value in TensorFile(GOLDEN).items()}
    assert max(far.values()) < model_check.FRESH


def swap(document: dict) -> None:
    document["hf"]["params"]["h.{i}.fc.weight"].reverse()


def raise_eps(document: dict) -> None:
    document["dims"]["eps"] = 1e-2
    document["hf"]["dims"].pop("eps")
    document["hf"]["ignore"].append("rms_norm_eps")


@with_transformers
def test_tensors_in_the_wrong_order_show_in_the_logits(registry: Registry, tmp_path: Path) -> None:
    path = changed(registry, tmp_path, swap)
    with pytest.raises(CheckFailed, match=r"logits \(auto\): relative error"):
        check_model(str(path), DIMS, registry=registry, **HOW)


def test_a_size_that_export_forgets_is_refused(registry: Registry, tmp_path: Path) -> None:
    path = changed(registry, tmp_path, raise_eps)
    with pytest.raises(BuildError, match="has eps 1e-06, here 0.01"):
        check_model(str(path), DIMS, registry=registry, **HOW)


@with_transformers
def test_another_class_than_the_peer_is_refused(registry: Registry) -> None:
    with pytest.raises(CheckFailed, match="MistralForCausalLM, expected LlamaForCausalLM"):
        check_model(NAME, DIMS, registry=registry, peer="LlamaForCausalLM")
