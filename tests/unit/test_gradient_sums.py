"""The parts in which gradients are summed over ranks: they cover the arena, and follow from the layout alone."""

from __future__ import annotations

import pytest

from core.engine.gradient_sums import LEAST, MOST, parts_of
from core.graph import load_model
from core.loader import load_registry
from core.plan import ParameterLayout


@pytest.mark.parametrize(("least", "most"), [(0, 0), (1 << 20, 1 << 21), (100, 200_000)])
def test_parts_cover_the_gradients_from_the_end_on(least: int, most: int) -> None:
    layout = ParameterLayout(load_model("gpt2_124m", load_registry()).build(load_registry(), {}))
    parts = parts_of(layout, least, most)
    assert [stop for _, stop in parts] == [layout.trainable, *(start for start, _ in parts[:-1])] and parts[-1][0] == 0
    sizes = [stop - start for start, stop in parts]
    assert max(sizes) <= max(most or MOST, 2 * (least or LEAST)) + 1024
    assert len(parts) == 12 if not least else len(parts) > 12


def test_a_small_model_is_one_part() -> None:
    registry = load_registry()
    small = {"C": 64, "H": 2, "L": 1, "V": 256}
    layout = ParameterLayout(load_model("gpt2_124m", registry).build(registry, small))
    assert parts_of(layout) == [(0, layout.trainable)]
