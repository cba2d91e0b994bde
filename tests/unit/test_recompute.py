"""Recomputation in a plan: the same bits, the steps that run again, and the memory that it saves."""

from __future__ import annotations

import numpy as np
import pytest
from gpt2_plans import engine, random_batch, steps_of, train_plan

from core.errors import UsageError


@pytest.mark.parametrize(
    "ops", [("gelu",), ("matmul", "gelu"), ("layernorm", "matmul", "attention"), ("add", "matmul", "embedding", "gelu")]
)
def test_recompute_gives_the_same_bits(ops):
    gradients = []
    for recompute in ((), ops):
        built = engine(recompute=recompute, fusion={"add_layernorm": False, "head_loss": False})
        built.initialize(1)
        gradients.append(built.gradients(random_batch(0, 50, (2, 8)))[1])
    for name, gradient in gradients[0].items():
        np.testing.assert_array_equal(gradients[1][name], gradient, err_msg=name)


def test_recompute_follows_a_chain_of_dropped_nodes_and_runs_only_what_backward_reads():
    plan = train_plan(recompute=("matmul", "gelu"))
    again = {s.node.name for s in steps_of(plan, "recompute")}
    assert again == {"h.0.qkv", "h.0.fc", "h.0.act", "h.1.qkv", "h.1.fc", "h.1.act", "logits"}


def test_recompute_runs_the_forward_again_and_saves_memory():
    plain, less = train_plan(), train_plan(recompute=("gelu",))
    assert len(steps_of(less, "recompute")) == 2
    assert less.saved_bytes < plain.saved_bytes
    with pytest.raises(UsageError, match='recompute "gellu"'):
        train_plan(recompute=("gellu",))
