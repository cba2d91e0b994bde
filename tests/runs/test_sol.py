"""`sol`, the share of the chip's lower bound in a step: from the kernels' SASS, or the roofline without nvdisasm."""

from __future__ import annotations

import pytest

from core.device.planned import PlannedDevice
from core.engine import Engine, Settings
from core.graph import load_model
from core.kernels.sass import has_nvdisasm
from core.loader import load_registry
from core.measure import least_time
from core.measure.sass_bench import sass_bench

SIZES = {"B": 8, "T": 64, "S": 64, "V": 512, "C": 64, "H": 1, "L": 1}
NAME = "A100-SXM4-80GB"


def engine_on(model: str) -> Engine:
    registry, device = load_registry(only=()), PlannedDevice("sm_80")
    device.model = model
    settings = Settings(device="cuda", precision="auto", dims=SIZES, optimizer="adamw", options={"clip": 1.0})
    return Engine(load_model("gpt2_124m", registry), registry, settings, device)


def test_the_bound_is_that_of_the_model_and_the_roofline_where_there_is_no_sass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The update counts once, each micro-step for itself; an unknown chip has no bound."""
    engine = engine_on(NAME)
    if has_nvdisasm():
        bench = sass_bench(engine)
        assert least_time.least_seconds(engine, 3) == pytest.approx(3 * bench.seconds + bench.update_seconds)
    monkeypatch.setattr(least_time, "has_nvdisasm", lambda: False)
    one, two, three = (least_time.least_seconds(engine, count) for count in (1, 2, 3))
    assert one and two and three and three - two == pytest.approx(two - one) and 0 < one < 2 * (two - one) < two * 2
    assert least_time.least_seconds(engine_on("RTX 9999"), 1) is None
