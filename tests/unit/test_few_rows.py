"""Variants for a few rows, as generation has them: where they are chosen, and slices of a sum that a choice records."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.config import load_config
from core.device.planned import PlannedDevice, launches_among
from core.engine import Engine
from core.graph import load_model
from core.loader import load_registry
from core.train.wiring import build_engine
from ops.cuda.matmul_mma import PLACES, best_slices, slices

SIZES = ("precision=bf16", "dims.B=2", "dims.L=1", "train.tokens_per_step=2048")


def engine_of(*overrides: str, recorded: dict[str, str] | None = None) -> Engine:
    registry = load_registry(only=())
    config = load_config("configs/gpt2_124m.toml", overrides=[*SIZES, *overrides], device="cuda")
    device = PlannedDevice("sm_80", 108)
    engine = build_engine(config, registry, load_model(config.model, registry), None, device)
    engine.chooser.settings = replace(engine.chooser.settings, recorded=recorded or {})
    return engine


def variants(engine: Engine, tokens: int) -> dict[str, str]:
    """op -> variant of a generation's plan for so many tokens of one sequence."""
    plan = engine.session(1, 1024)._plan(tokens, True)
    return {node.op.name: plan.choices[node.name].variant.name for node in plan.nodes}


def test_one_token_takes_the_variants_for_few_rows_and_a_prompt_does_not() -> None:
    engine = engine_of()
    chosen = variants(engine, 1)
    assert {chosen[op] for op in chosen if op.startswith(("matmul", "mlp"))} == {"rows"}
    assert chosen["attention"] == "split"
    prompt = variants(engine, 32)
    assert "rows" not in prompt.values() and prompt["attention"] == "flash"


def test_a_choice_that_training_recorded_does_not_bind_generation() -> None:
    recorded = {"h.0.attn": "flash", "logits": "mma"}
    chosen = variants(engine_of(recorded=recorded), 1)
    assert chosen["attention"] == "split" and chosen["matmul"] == "rows"


def test_a_long_cache_is_cut_into_slices_and_a_few_features_into_slices_of_their_depth() -> None:
    session = engine_of().session(1, 1024)
    grids: dict[str, set[tuple[int, ...]]] = {}
    for launch in launches_among(session._bind(session._plan(1, True), session._states).launches()):
        grids.setdefault(launch.kernel.name, set()).add(launch.grid)
    assert grids["split_decode"] == {(12, 8, 1)}, "12 heads, each with slices of 128 keys"
    assert (96, 3, 1) in grids["rows_forward"], "768 features, 8 a thread block, whose depth three share"


@pytest.mark.parametrize("wanted", [1, 3])
def test_slices_of_a_weight_gradient_are_those_of_the_recorded_choice(wanted: int) -> None:
    tile = {"TILE_I": 128, "TILE_J": 128, "TILE_K": 32}
    count, each = slices({**tile, "slices": wanted}, 16384, 2304, 768)
    assert count == wanted and each * (count - 1) < 16384 <= each * count
    assert slices(tile, 16384, 2304, 768)[0] == best_slices(108, 32, PLACES) == 2
