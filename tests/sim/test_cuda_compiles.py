"""Every kernel that we ship, plugins' too, compiles for the architectures that it declares, within their limits and
without the warnings that cost speed. No GPU is needed.

Each is compiled as the first example asks for it, in bf16, for the oldest of its architectures and three of the others
in turn, so that each chip compiles a third of the kernels; in f32 for the oldest. In both for all, every head size and
every tile: `core check --all`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from core.device.launch import LaunchRecord
from core.kernels.nvrtc import architectures_of
from core.loader import load_registry
from core.op import Variant
from core.testing.compiles import compilations, launches_of
from core.testing.devices import SimRunner
from core.testing.trials import trials_of

PLUGINS = [file.parent.name for file in Path("plugins").resolve().glob("*/__init__.py")]
REGISTRY = load_registry(only=PLUGINS)
VARIANTS = {
    f"{v.op}.{v.name}": v
    for held in REGISTRY.variants.values()
    for v in held.values()
    if v.device == "cuda" and v.sources and not v.library
}


def firsts(variant: Variant) -> tuple[list[LaunchRecord], list[LaunchRecord]]:
    """In f32 and in bf16, the first launch of each kernel of all that the variant launches at its examples."""
    trials, _ = trials_of(REGISTRY.op(variant.op), variant, REGISTRY, runner=SimRunner(REGISTRY))
    found: tuple[dict[object, LaunchRecord], ...] = {}, {}
    for launch in launches_of(trials):
        kernel = launch.kernel
        found[dict(kernel.defines)["ELEM_BF16"] == 1].setdefault((kernel.source, kernel.name), launch)
    single, half = (list(launches.values()) for launches in found)
    return single, half


def sample(name: str) -> tuple[str, ...]:
    """The oldest architecture that a variant declares, and every third of the others, beginning somewhere else each."""
    oldest, *others = architectures_of(VARIANTS[name].arch)
    return oldest, *others[list(VARIANTS).index(name) % 3 :: 3]


@pytest.mark.parametrize("name", VARIANTS)
def test_kernels_compile_for_the_architectures_that_they_declare(name: str) -> None:
    variant, archs = VARIANTS[name], sample(name)
    single, half = firsts(variant)
    found = compilations(variant, half or single, archs)
    if half:
        found += compilations(variant, single, archs[:1])
    assert {one.arch for one in found} == set(archs)
    assert not [f"{one.kernel.name} for {one.arch}: {one.problems}" for one in found if one.problems]


def test_every_chip_is_in_the_sample_of_a_fifth_of_the_variants() -> None:
    compiled = [arch for name in VARIANTS for arch in sample(name)]
    assert set(compiled) == set(architectures_of("sm_75+"))
    assert min(compiled.count(arch) for arch in set(compiled)) >= len(VARIANTS) // 5
