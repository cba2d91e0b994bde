"""LoRA on old weights: what may start fresh, what trains, the merged model; and a second, frozen set of weights."""

from __future__ import annotations

import lora_runs
import numpy as np
import pytest

import core
from core import cli
from core.errors import BuildError, UsageError


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with the runs `base` and `lora`."""
    folder = tmp_path_factory.mktemp("lora")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        lora_runs.write(folder)
        assert lora_runs.train("base_run.toml", "--out", "base") == 0
        assert lora_runs.train("lora_run.toml", "--out", "lora") == 0
    return folder


@pytest.fixture
def inside(here, monkeypatch, capsys):
    monkeypatch.chdir(here)
    return capsys


TOKENS = np.random.default_rng(1).integers(0, 257, (2, 16))


def test_adapters_train_and_the_base_does_not(inside):
    base, lora = core.load("base"), core.load("lora")
    assert all((lora.params[name] == values).all() for name, values in base.params.items())
    new = set(lora.params) - set(base.params)
    nodes = ("h.0.qkv", "h.1.qkv", "h.1.down")
    assert new == {f"{node}.lora_{one}.weight" for node in nodes for one in "ab"}
    assert all(lora.params[name].any() for name in new) and lora.params["h.0.qkv.lora_a.weight"].shape == (4, 16)
    assert np.abs(lora.logits(TOKENS) - base.logits(TOKENS)).max() > 0.01


def test_fresh_adapters_change_nothing_and_are_drawn_by_their_init(inside):
    assert lora_runs.train("lora_run.toml", "--out", "zero", "--set", "optimizer.lr=1e-30") == 0
    count = sum(values.size for name, values in core.load("lora").params.items() if "lora" in name)
    assert f"new parameters, drawn: {count:,} elements, h.0.qkv.lora_a.weight" in inside.readouterr().out
    zero = core.load("zero")
    np.testing.assert_allclose(zero.logits(TOKENS), core.load("base").logits(TOKENS), atol=1e-6)
    down = zero.params["h.1.down.lora_a.weight"]
    assert 0.9 / 8 < np.abs(down).max() <= 1 / 8, "uniform up to 1 / sqrt(64), the inputs of down"


def test_the_merged_model_has_the_same_logits_and_no_adapter(inside, here):
    assert cli.run(["lora", "merge", "lora", "--out", "merged"]) == 0
    merged = core.load("merged")
    assert set(merged.params) == set(core.load("base").params)
    np.testing.assert_allclose(merged.logits(TOKENS), core.load("lora").logits(TOKENS), atol=2e-6)
    (here / "tied.toml").write_text('extends = "base.toml"\n[adapt.lora]\nmatch = ["logits"]\n')
    inside.readouterr()
    assert cli.run(["lora", "merge", "tied.toml", "--out", "no"]) == 2
    assert "logits: its weight is tied to another node's" in inside.readouterr().err


def test_adapters_of_pefts_format_are_added_to_their_base_and_others_refused(inside, here):
    assert cli.run(["lora", "save", "lora", "--out", "adapter"]) == 0
    assert cli.run(["lora", "apply", "base", "adapter", "--out", "applied"]) == 0
    np.testing.assert_allclose(core.load("applied").logits(TOKENS), core.load("lora").logits(TOKENS), atol=2e-6)
    config = here / "adapter" / "adapter_config.json"
    plain = config.read_text()
    inside.readouterr()
    for old, new, words in (
        ('"bias": "none"', '"bias": "all"', "bias is 'all'; plain LoRA with bias = 'none' is read"),
        ('"peft_type": "LORA"', '"peft_type": "IA3"', "peft_type is 'IA3'"),
        ('"lora_alpha": 8', '"lora_alpha": "x"', "lora_alpha is 'x'; expected a number"),
        ("{", "[", "not valid JSON"),
    ):
        config.write_text(plain.replace(old, new))
        assert cli.run(["lora", "apply", "base", "adapter", "--out", "no"]) == 7
        assert words in inside.readouterr().err
    config.write_text(plain)
    (here / "other.toml").write_text('extends = "llama_125m"\n[dims]\nV = 257\nC = 16\nH = 2\nL = 1\nT = 16\n')
    assert cli.run(["lora", "apply", "other.toml", "adapter", "--out", "no"]) == 7
    assert "has no matrix" in inside.readouterr().err and not (here / "no").exists()


REFUSED = [
    ("new=[]", 7, "parameters of lora: missing h.0.qkv.lora_a.weight"),
    ("new=['*.lora_a*']", 7, "parameters of lora: missing h.0.qkv.lora_b.weight"),
    ("new=['*.lora_c*']", 2, '"*.lora_c*" matches no parameter of lora'),
    ("train.only=['*.lorra*']", 2, '"*.lorra*" matches no parameter'),
    ("weights=''", 2, "there are no weights: all parameters start fresh"),
]


@pytest.mark.parametrize(("setting", "code", "words"), REFUSED)
def test_what_is_missing_or_matches_nothing_is_refused(inside, setting, code, words):
    assert lora_runs.train("lora_run.toml", "--out", "x", "--set", setting) == code
    assert words in inside.readouterr().err


TABLES = [
    ('match = ["h.*.qvk"]', 'lora match "h.*.qvk": no node of op matmul is called so; did you mean "h.1.qkv"'),
    ("rank = 0", "rank is 0 and dropout 0.0; expected rank >= 1"),
    ("ranks = 2", 'lora ranks: unknown key; did you mean "rank"'),
]


@pytest.mark.parametrize(("line", "words"), TABLES)
def test_a_table_that_fits_no_graph_is_refused(inside, line, words, here):
    (here / "wrong.toml").write_text(f'extends = "base.toml"\n[adapt.lora]\n{line}\n')
    with pytest.raises(BuildError) as refused:
        core.load("wrong.toml")
    assert words in str(refused.value)
    (here / "wrong.toml").write_text('extends = "base.toml"\n[adapt.loar]\nrank = 2\n')
    with pytest.raises(BuildError, match='there is no adapter "loar"; did you mean "lora"'):
        core.load("wrong.toml")


def test_a_model_is_saved_with_its_parameters_and_not_over_another(inside, here):
    model = core.load("base")
    model.params["wte.weight"][...] += 1
    model.save("by_hand")
    assert (core.load("by_hand").params["wte.weight"] == model.params["wte.weight"]).all()
    with pytest.raises(UsageError, match="by_hand exists"):
        model.save("by_hand")
