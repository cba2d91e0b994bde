"""Maps of attention and of routing against a computation of their own, and `Model.maps` on whole models."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import core
from core.loader import load_registry
from core.op import Reference
from core.testing.case import Case, make_case
from core.testing.runner import CpuRunner
from core.testing.trial import Trial

REAL = load_registry()
ATTENTION = REAL.op("attention")
EXAMPLES = [example for example in ATTENTION.examples if np.size(example["qkv"]) != 3 or example["qkv"][1] < 20]


def computed(case: Case) -> tuple[Any, dict[str, Any]]:
    """`t` of the op's reference on a case in f64, and the outputs of forward."""
    reference = REAL.variant(case.op.name, "reference")
    assert isinstance(reference, Reference)
    home = CpuRunner(REAL)
    call = Trial(case, reference, reference, "f64", "forward", home, home).forward_call()
    return core.op.make_tensors(call.dims, call.given), home.run(call).tensors  # type: ignore[attr-defined]


def may_see(t: Any, b: int, i: int, j: int) -> bool:
    near = (not t.causal or j <= i) and (not t.window or i - j < t.window)
    return near and (t.documents is None or t.documents[b, i] == t.documents[b, j])


def weights_of(t: Any) -> np.ndarray[Any, Any]:
    """The formula of arXiv:1706.03762 pair by pair, with the groups of arXiv:2305.13245."""
    weights = np.zeros((t.B, t.heads, t.T, t.T))
    for b, h, i in np.ndindex(*weights.shape[:3]):
        query = t.qkv[b, i, h * t.D : (h + 1) * t.D]
        first = (t.heads + h * t.kv_heads // t.heads) * t.D
        for j in (j for j in range(t.T) if may_see(t, b, i, j)):
            score = (t.scale or t.D**-0.5) * float(query @ t.qkv[b, j, first : first + t.D])
            score = t.softcap * math.tanh(score / t.softcap) if t.softcap else score
            weights[b, h, i, j] = math.exp(score - 100)
        weights[b, h, i] /= weights[b, h, i].sum() or 1
    return weights


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_attentions_maps_are_the_weights_of_the_values_in_its_output(number: int) -> None:
    """Over windows, soft-capped scores, shared heads, documents, and without a causal mask."""
    case = make_case(ATTENTION, EXAMPLES[number])
    t, outputs = computed(case)
    reference = REAL.variant("attention", "reference")
    assert isinstance(reference, Reference)
    weights = reference.maps(t)["weights"]
    np.testing.assert_allclose(weights, weights_of(t), rtol=1e-9, atol=1e-12)
    values = t.qkv.reshape(t.B, t.T, -1, t.D)[:, :, -t.kv_heads :]
    of_head = values.repeat(t.heads // t.kv_heads, axis=2).transpose(0, 2, 1, 3)
    np.testing.assert_allclose((weights @ of_head).swapaxes(1, 2).reshape(t.B, t.T, -1), outputs["y"], atol=1e-12)


def test_a_routers_map_has_the_share_of_each_expert_that_a_token_takes() -> None:
    for example in REAL.op("route").examples:
        t, outputs = computed(make_case(REAL.op("route"), example))
        reference = REAL.variant("route", "reference")
        assert isinstance(reference, Reference)
        shares = reference.maps(t)["shares"]
        np.testing.assert_allclose(np.take_along_axis(shares, outputs["expert"], -1), outputs["share"], rtol=1e-12)
        assert (np.count_nonzero(shares, axis=-1) <= t.k).all() and np.allclose(shares.sum(-1), 1)


def test_a_models_maps_are_by_node_and_start_at_the_tokens_that_are_asked_for() -> None:
    sizes = {"L": 2, "C": 16, "H": 4, "V": 64, "S": 32, "B": 1, "T": 8}
    model = core.load("gpt2_124m", dims=sizes)
    tokens = np.arange(14).reshape(2, 7)
    maps = model.maps(tokens)
    assert [held["weights"].shape for held in maps.values()] == [(2, 4, 7, 7)] * 2
    first = next(iter(maps.values()))["weights"]
    assert np.allclose(first.sum(-1), 1) and not np.triu(first[0, 0], 1).any()
    assert not REAL.variant("gelu", "reference").has_maps  # type: ignore[attr-defined]
