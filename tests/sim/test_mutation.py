"""KernelSwap: which sub-checks a replaced text of kernels goes through."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.loader import load_registry
from core.testing import checks
from core.testing.log import Log
from core.testing.mutation import KernelSwap, whole_text
from core.testing.trial import Trial


@pytest.mark.parametrize("method", ["forward", "backward"])
@pytest.mark.parametrize("name", ["gradient", "zeros", "padding", "configs"])
def test_a_replaced_text_goes_through_the_sub_checks_that_its_launcher_has_a_part_in(
    monkeypatch: pytest.MonkeyPatch, method: str, name: str
) -> None:
    registry = load_registry(only=())
    swap = KernelSwap(registry.op("gelu"), registry.variant("gelu", "naive"), registry)
    swap.trials = swap.trials[:1]
    source = Path(swap.kernels[method][0].source)
    texts = {source: whole_text(source) + "// the same code"}
    assert swap.failed_check(method, texts) == ""

    def check(log: Log, trial: Trial) -> None:
        log.failed(name, "a fault that this sub-check alone sees")

    monkeypatch.setitem(checks.SUBCHECKS, name, check)
    assert swap.failed_check(method, texts) == name


def test_a_race_where_a_kernel_adds_to_a_gradient_is_seen() -> None:
    """In strict mode too, a replaced text goes through all of them: plain gradients have no such branch."""
    registry = load_registry(only=())
    swap = KernelSwap(registry.op("gelu"), registry.variant("gelu", "naive"), registry)
    swap.trials = [trial for trial in swap.trials if trial.elements > 64][:1]
    (source,) = {kernel.source for kernel in swap.kernels["backward"]}
    text, racing = whole_text(source), "__shared__ volatile int s; if (add) s = threadIdx.x; "
    broken = text.replace("dx[i] = (add", f"{racing} dx[i] = (add", 1)
    assert broken != text and swap.failed_check("backward", {source: broken}) == "accumulate"
