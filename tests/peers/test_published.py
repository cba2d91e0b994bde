"""Folders as they were published: each config of tests/published.py, shrunk, against transformers.

What transformers computes is committed (tests/golden/published.json); where it is installed, it computes it here, and
reads back what is exported.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import published
import pytest
from core.plugins.huggingface import export as export_huggingface
from core.plugins.huggingface.config import MISSING, expected, listed, look_up, read_config, sizes
from core.plugins.huggingface.rules import rules as huggingface_rules

import core
from core.errors import CheckpointError
from core.graph import load_model
from core.interop.export import prepare
from core.interop.opened import open_path
from core.loader import load_registry

HERE = Path(__file__).parents[1]
READ, REFUSED = published.READ, published.REFUSED

LOSS, LOGITS, GRADIENT = 2e-6, 1e-5, 2e-5  # relative
each = pytest.mark.parametrize("name", READ)


@pytest.fixture(scope="module")
def registry():
    return load_registry()


def shapes(name, registry):
    """Hugging Face's tensors of a small published model by our [hf.params], with their shapes."""
    source = load_model(READ[name].model, registry)
    dims, problems = read_config(source, READ[name].config)
    assert not problems, problems
    graph = source.build(registry, {**dims, "T": 16})
    prefix = (listed(source, "prefix") or [""])[0]
    found = {}
    for parameter, rule in huggingface_rules(graph).items():
        whole = np.broadcast_to(np.float32(0), core.expr.trim(graph.parameters[parameter].shape))
        for e, group in enumerate(rule.tensors):
            for r, tensor in enumerate(group):
                found[prefix + tensor] = rule.part(whole, e, r).shape
    return found


def folder_of(path, name, registry):
    return published.write_folder(path, READ[name].config, shapes(name, registry))


def cross_entropy(logits, targets):
    shifted = logits - logits.max(-1, keepdims=True)
    log = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return -np.take_along_axis(log, targets[..., None], -1).mean()


def only_cross_entropy(model):
    return sum(bool(weight) for weight in model.graph.loss.values()) == 1


@pytest.fixture(scope="module")
def golden():
    return json.loads(published.GOLDEN.read_text())


@each
def test_a_published_config_is_read_and_computes_what_transformers_computes(name, registry, golden, tmp_path):
    wanted = golden[name]
    model = core.load(folder_of(tmp_path / "hf", name, registry))
    tokens, targets = published.batch()
    assert abs(cross_entropy(model.logits(tokens).astype(np.float64), targets) / wanted["loss"] - 1) < LOSS
    if only_cross_entropy(model):
        norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in model.gradients(tokens, targets).values()))
        assert abs(norm / wanted["norm"] - 1) < GRADIENT
    greedy = model.generate(tokens[:, :4], max_new_tokens=published.GREEDY, temperature=0)
    assert greedy[:, 4:].tolist() == wanted["greedy"]


@each
def test_transformers_computes_it_here_and_reads_the_export_back(name, registry, golden, tmp_path):
    pytest.importorskip("transformers")
    folder = folder_of(tmp_path / "hf", name, registry)
    theirs = published.computed(published.peer(folder))
    assert abs(theirs["loss"] / golden[name]["loss"] - 1) < 1e-6 and theirs["greedy"] == golden[name]["greedy"]

    model, (tokens, targets) = core.load(folder), published.batch()
    ours = model.logits(tokens)
    assert np.linalg.norm(ours - theirs["logits"]) < LOGITS * np.linalg.norm(theirs["logits"])
    if len(model.graph.loss) == 1:  # tensors of experts have other names in transformers' memory than in its files
        rules, prefix = huggingface_rules(model.graph), (listed(model.graph.source, "prefix") or [""])[0]
        for parameter, gradient in model.gradients(tokens, targets).items():
            for e, group in enumerate(rules[parameter].tensors):
                for r, tensor in enumerate(group):
                    got, wanted = rules[parameter].part(gradient, e, r), theirs["gradients"][prefix + tensor]
                    assert np.linalg.norm(got - wanted) < 1e-4 * np.linalg.norm(wanted) + 1e-7, tensor

    out = tmp_path / "out"
    export_huggingface.write(prepare(open_path(folder, registry), registry, "f32"), registry, out)
    back = published.computed(published.peer(out))
    np.testing.assert_allclose(back["logits"], theirs["logits"], rtol=0, atol=1e-9)
    assert back["greedy"] == theirs["greedy"]


@each
def test_what_transformers_of_today_saves_of_it_is_read_too(name, registry, tmp_path):
    pytest.importorskip("transformers")
    model = published.peer(folder_of(tmp_path / "hf", name, registry))
    model.float().save_pretrained(tmp_path / "saved")
    tokens = published.batch()[0]
    found, before = (core.load(tmp_path / part).logits(tokens) for part in ("saved", "hf"))
    np.testing.assert_allclose(found, before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", REFUSED)
def test_a_published_config_that_is_another_model_is_refused_by_name(name, tmp_path):
    with pytest.raises(CheckpointError) as caught:
        core.load(published.write_folder(tmp_path / "hf", REFUSED[name].config, {"a": (1,)}))
    assert REFUSED[name].refused in caught.value.message, caught.value.message


NEAREST = {  # an unknown architecture -> the models that are nearest, and words of how they differ
    "qwen1.5-moe": ({"qwen3_30b_a3b"}, ["shared_expert_intermediate_size", "norm_topk_prob is false"]),
    "olmoe": ({"qwen3_30b_a3b"}, ["norm_topk_prob is false", "clip_qkv"]),
    "pythia-1b": (None, ["rotary_pct", "use_parallel_residual"]),
    "deepseek-v3": (None, ["kv_lora_rank", "more"]),
}


@pytest.mark.parametrize("name", NEAREST)
def test_an_unknown_architecture_is_refused_with_the_nearest_model_and_its_differences_alone(name, registry, tmp_path):
    with pytest.raises(CheckpointError) as caught:
        core.load(published.write_folder(tmp_path / "hf", REFUSED[name].config, {"a": (1,)}))
    first, *problems = caught.value.message.splitlines()
    assert first.split(": ", 1)[1].startswith(f"{REFUSED[name].refused}; the nearest is ")
    named, (models, words) = first.partition("the nearest is ")[2].split()[0], NEAREST[name]
    assert named in (models or registry.models) and len(problems) <= 13
    assert not [other for other in registry.models if other != named and other in caught.value.message]
    assert all(any(word in problem for problem in problems) for word in words), problems
    assert "ForCausalLM" not in caught.value.hint


def test_at_least_38_of_the_52_models_of_the_survey_are_read():
    counted = [entry for entry in published.TABLE.values() if entry.counted]
    assert len(counted) == 52 and sum(bool(entry.model) for entry in counted) >= 38
    assert {2023, 2024, 2025} <= {entry.year for entry in counted if entry.model and entry.copy}


def test_a_table_that_is_refused_is_one_problem_and_its_other_keys_are_none(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        core.load(published.write_folder(tmp_path / "hf", REFUSED["phi3.5-mini"].config, {"a": (1,)}))
    assert "rope_scaling.type" in caught.value.message and "rope_scaling.short" not in caught.value.message


@pytest.mark.parametrize("name", sorted({entry.model for entry in READ.values()}))
def test_the_defaults_of_absent_keys_are_those_of_transformers_config_classes(name, registry):
    transformers = pytest.importorskip("transformers")
    source = load_model(name, registry)
    kind = source.document["hf"]["expect"]["model_type"][0]
    default = transformers.AutoConfig.for_model(kind)
    for dim, size in sizes(source).items():
        if isinstance(size.absent, int | float):
            values = [value for key in size.keys if (value := look_up(default.to_dict(), key)) is not MISSING]
            values += [getattr(default, key) for key in size.keys if hasattr(default, key)]
            if not values and size.keys[0].rpartition(".")[2] in ("beta_slow", "beta_fast", "sliding_window_pattern"):
                continue  # of the function that scales, or of a table that the class has made
            value = values[0]
            assert (size.sentinel if value is None else value) == size.absent, (dim, value)


PARAMETERS = {
    "cerebras_gpt_111m": 111_050_496,
    "distilgpt2_82m": 81_912_576,
    "phi3_mini": 3_821_079_552,
    "phi4": 14_659_507_200,
    "granite3_2b": 2_533_531_648,
    "starcoder2_3b": 3_030_371_328,
    "starcoder2_15b": 15_957_889_024,
    "deepseek_coder_1b": 1_346_471_936,
    "smollm3_3b": 3_075_098_624,
    "gemma2_2b": 2_614_341_888,
    "gemma3_1b": 999_885_952,
    "olmo_1b": 1_176_764_416,
    "olmo3_7b": 7_298_011_136,
    "phi1": 1_418_270_720,
    "phi2": 2_779_683_840,
    "falcon_7b": 6_921_720_704,
    "command_r7b": 8_028_033_024,
    "gptj_6b": 6_050_882_784,
    "stablelm_3b": 2_795_443_200,
    "nanochat_d20": 560_988_160,
    "mamba_130m": 129_135_360,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_model_has_the_published_number_of_parameters(name, registry):
    assert load_model(name, registry).build(registry).parameter_count == PARAMETERS[name]


PAGE = HERE.parent / "docs" / "interop.md"


def page(text):
    """docs/interop.md with the table as it should be."""
    table = published.family_table(lambda name: load_model(name, load_registry()), sizes, expected)
    begin, end = text.index(published.BEGIN), text.index(published.END) + len(published.END)
    return text[:begin] + table + text[end:]


def test_the_table_of_families_is_up_to_date():
    text = PAGE.read_text("utf-8")
    assert text == page(text), "run: python tests/peers/test_published.py"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
    import tempfile

    golden_values = {}
    with tempfile.TemporaryDirectory() as place:
        for config in READ:
            made = published.computed(published.peer(folder_of(Path(place) / config, config, load_registry())))
            golden_values[config] = {key: made[key] for key in ("loss", "norm", "greedy")}
    published.GOLDEN.write_text(json.dumps(golden_values, indent=1) + "\n")
