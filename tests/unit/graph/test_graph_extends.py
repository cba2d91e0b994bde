"""A model TOML that extends another: merged, replaced, removed, and the refusals of each."""

from __future__ import annotations

from tiny_model import TINY, refused

from core.errors import UsageError
from core.graph import load_model


def test_extending_merges_tables_replaces_nodes_and_removes(model, tmp_path):
    (tmp_path / "base.toml").write_text(TINY, encoding="utf-8")
    graph = model(
        'extends = "base.toml"\n[graph]\nx0 = false\nh = { block = "layer", in = "wte", repeat = 3 }\n'
        '[block.layer]\nattn = { op = "attention", in = "qkv", heads = 2 }\n[dims]\nS = false\nC = 16\n'
    )
    assert graph.name == "model" and graph.node("x0") is None and "x0.weight" not in graph.parameters
    assert graph.node("h.0.qkv").inputs == {"x": "wte"} and len(graph.find("h.*.y")) == 3
    assert graph.node("h.0.attn").attrs["heads"] == 2 and "causal" in graph.node("h.0.attn").attrs
    assert [n.name for n in graph.nodes][:3] == ["wte", "h.0.qkv", "h.0.attn"]  # a replaced node keeps its place
    assert graph.node("h.0.attn").where == "model.toml:6 [block.layer] attn"
    assert graph.node("h.0.qkv").where == "base.toml:24 [block.layer] qkv"


def test_gpt2_with_its_positions_removed_builds_by_name(model):
    graph = model('extends = "gpt2_124m"\n[graph]\nx0 = false\nh = { block = "layer", in = "wte", repeat = "L" }\n')
    assert graph.parameter_count == 124_439_808 - 1024 * 768


def test_a_reader_of_a_removed_node_is_told_who_removed_it(model):
    refused(
        lambda: model('extends = "gpt2_124m"\n[graph]\nx0 = false\n'),
        '"in" names "x0"',
        "model.toml:3 removes it",
        "[graph] h",
        "another",
    )


def test_bases_in_a_circle_are_shown_as_a_chain(model, tmp_path):
    (tmp_path / "a.toml").write_text('extends = "model.toml"\n', encoding="utf-8")
    refused(lambda: model('extends = "a.toml"\n'), "model.toml -> a.toml -> model.toml", kind=UsageError)
    refused(lambda: model('extends = "model.toml"\n'), "circle", kind=UsageError)


def test_a_missing_base_is_refused_with_its_chain(model, tmp_path):
    refused(lambda: model('extends = "gone.toml"\n'), "gone.toml", "model.toml -> ", kind=UsageError)
    refused(lambda: model('extends = "gpt2_124"\n'), 'did you mean "gpt2_124m"', kind=UsageError)
    refused(lambda: model("extends = 3\n"), "expected a model's name", kind=UsageError)


def test_a_base_elsewhere_on_the_disk_is_refused(model, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "base.toml"
    outside.write_text(TINY, encoding="utf-8")
    refused(lambda: model(f"extends = '{outside.as_posix()}'\n"), "outside the folders", kind=UsageError)


def test_what_a_third_file_puts_back_is_there_again(model, tmp_path, registry):
    (tmp_path / "base.toml").write_text(TINY, encoding="utf-8")
    (tmp_path / "without.toml").write_text('extends = "base.toml"\n[graph]\nx0 = false\n', encoding="utf-8")
    graph = model('extends = "without.toml"\n[graph]\nx0 = { op = "gelu", in = "wte" }\n')
    assert graph.node("x0").op.name == "gelu" and not graph.source.removed


def test_removing_what_is_not_there_is_refused(model):
    refused(lambda: model('extends = "gpt2_124m"\n[graph]\nln_ff = false\n'), "ln_ff = false", 'did you mean "ln_f"')


def test_required_plugins_are_checked_before_anything_else(model):
    text = 'requires = ["no_such_plugin"]\nextends = "a_model_of_that_plugin"\n'
    refused(lambda: model(text), "no_such_plugin", "requires")


def test_a_self_contained_copy_builds_the_same_graph(registry, tmp_path):
    (tmp_path / "wide.toml").write_text(
        'extends = "gpt2_124m"\n[graph]\nx0 = false\nh = { block = "layer", in = "wte", repeat = "L" }\n', "utf-8"
    )
    source = load_model(tmp_path / "wide.toml", registry)
    dims = {"L": 2, "V": 300, "C": "2*36", "H": 6}
    (tmp_path / "model.toml").write_text(source.to_toml(dims), encoding="utf-8")
    again = load_model(tmp_path / "model.toml", registry)
    assert "extends" not in again.document and again.name == "wide" and again.files == (tmp_path / "model.toml",)
    assert again.build(registry) == source.build(registry, dims)
    assert again.build(registry) != source.build(registry)
    assert again.document["hf"] == source.document["hf"]
    assert again.to_toml() == source.to_toml(dims)
