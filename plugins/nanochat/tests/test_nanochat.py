"""nanochat's windows: which layers have them, and decoding through the cache with them."""

from __future__ import annotations

import numpy as np

import core
from core.testing import load_model, shared_registry

SMALL = {"T": 16, "S": 16, "V": 61, "C": 16, "H": 2, "L": 5, "windows": [3, 3, 0, 3, 0]}


def test_three_layers_of_four_look_at_half_of_the_positions_and_the_last_at_all():
    graph = load_model("nanochat_d20_windows", shared_registry()).build(shared_registry(), {"L": 10})
    windows = [graph.node(f"h.{i}.attn").attrs["window"] for i in range(10)]
    assert windows == [1024, 1024, 1024, 0, 1024, 1024, 1024, 0, 1024, 0]
    assert len(graph.find("h.*.attn")) == 10 and not [name for name in graph.parameters if "norm" in name]


def test_a_small_one_decodes_through_its_cache_as_without():
    model = core.load("nanochat_d20_windows", precision="f64", dims=SMALL)
    for name, weight in model.params.items():  # those of the residual branches start at 0
        weight[...] = 0.2 * np.random.default_rng(len(name)).standard_normal(weight.shape)
    tokens = model.generate([[1, 2, 3]], max_new_tokens=8, temperature=0)
    for n in range(3, 11):
        assert model.logits(tokens[:, :n])[0, -1].argmax() == tokens[0, n]
    far = tokens.copy()
    far[0, 0] += 1
    assert not np.array_equal(model.logits(far)[0, -1], model.logits(tokens)[0, -1])  # layers without a window see it
