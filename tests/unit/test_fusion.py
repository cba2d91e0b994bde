"""Fusion in a plan: the nodes that it takes, the choices and requests that keep a node, and attributes."""

from __future__ import annotations

import pytest
from gpt2_plans import engine, fused, model_file, train_plan

from core.errors import UsageError


def test_fusion_replaces_add_and_layernorm_and_head_and_loss():
    assert fused(train_plan()) == {
        "h.0.ln_2": "add_layernorm",
        "h.1.ln_1": "add_layernorm",
        "h.1.ln_2": "add_layernorm",
        "ln_f": "add_layernorm",
        "loss": "head_loss",
    }


@pytest.mark.parametrize(
    ("kwargs", "gone", "named"),
    [
        ({"fusion": {"head_loss": False}}, "head_loss", None),
        ({"ops": {"cross_entropy": "reference"}}, "head_loss", "cross_entropy"),
        ({"nodes": {"logits": "reference"}}, "head_loss", "matmul"),
        ({"recompute": ("layernorm",)}, "add_layernorm", "layernorm"),
        ({"ops": {"add": "reference"}}, "add_layernorm", "add"),
    ],
)
def test_a_named_op_or_node_is_not_fused_away(kwargs, gone, named):
    """And the plan says which fused op the config kept apart by naming what; one that is switched off is no news."""
    plan = train_plan(**kwargs)
    assert gone not in fused(plan).values()
    assert plan.blocked_fusions == ({gone: {named}} if named else {})


def test_a_requested_value_is_not_fused_away():
    built = engine()
    assert "head_loss" not in fused(built.plan("evaluate", ["logits", "loss"])).values()
    assert "head_loss" in fused(built.plan("evaluate", ["loss"])).values()


def test_auto_in_the_config_is_no_choice():
    assert "head_loss" in fused(train_plan(ops={"matmul": "auto"})).values()


def test_a_fused_node_carries_its_nodes_attributes_and_its_own(tmp_path):
    graph = 'a = { op = "gelu", in = "wte" }\ns = { op = "add", in = ["a", "wte"] }\n'
    graph += (
        'n = { op = "layernorm", in = "s", eps = 1e-3 }\n'
        + 'y = { op = "matmul", in = "n", features = "V", bias = false }'
    )
    plan = engine(model_file(tmp_path, graph), dims={}, fusion={"head_loss": {"chunk": 3}}).plan("train")
    by_op = {n.op.name: n.attrs for n in plan.nodes}
    assert by_op["add_layernorm"]["eps"] == 1e-3
    assert by_op["head_loss"]["chunk"] == 3 and by_op["head_loss"]["features"] == 11


def test_an_unknown_fusion_is_refused():
    with pytest.raises(UsageError, match='no fused op of that name; did you mean "head_loss"'):
        train_plan(fusion={"head_los": False})
