"""Every kernel that we ship, plugins' too, compiles for the architectures that it declares, within their limits and
without the warnings that cost speed. No GPU is needed.

Each is compiled as the first example asks for it, in bf16, for the oldest of its architectures that have it and one of
the others in turn; in f32 and fp16 for the oldest that has these. Variants of one file, all of whose kernels are
compiled at once, have the same architectures. In every dtype for all, every head size and every tile: `core check
--all`, whose verdicts on the sources as they are come with the release (test_released.py).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from core.device.launch import LaunchRecord
from core.dtypes import arithmetic
from core.kernels.chips import chip_of
from core.kernels.nvrtc import architectures_of
from core.loader import load_registry
from core.op import Variant
from core.testing.case import make_case
from core.testing.compiles import compilations, elem_of, launches_of
from core.testing.devices import SimRunner
from core.testing.trials import all_trials, trials_of

PLUGINS = [file.parent.name for file in Path("plugins").resolve().glob("*/__init__.py")]
REGISTRY = load_registry(only=PLUGINS)
VARIANTS = {
    f"{v.op}.{v.name}": v
    for held in REGISTRY.variants.values()
    for v in held.values()
    if v.device == "cuda" and v.sources and not v.library
}


def firsts(variant: Variant) -> dict[str, list[LaunchRecord]]:
    """In each dtype, the first launch of each kernel of all that the variant launches at its examples."""
    trials = all_trials(REGISTRY.op(variant.op), variant, REGISTRY, runner=SimRunner(REGISTRY))
    found: dict[str, dict[object, LaunchRecord]] = {}
    for launch in launches_of(trials):
        kernel = launch.kernel
        found.setdefault(elem_of(kernel), {}).setdefault((kernel.source, kernel.name), launch)
    return {dtype: list(launches.values()) for dtype, launches in found.items()}


def source(variant: Variant) -> Path:
    """The first file of its kernels."""
    return next(path for paths in variant.sources.values() for path in paths if path.suffix == ".cu")


FILES = list(dict.fromkeys(source(variant) for variant in VARIANTS.values()))


def sample(name: str) -> tuple[str, str]:
    """The oldest architecture that a variant declares, and one of the others, another one for each file."""
    oldest, *others = architectures_of(VARIANTS[name].arch)
    return oldest, others[FILES.index(source(VARIANTS[name])) % len(others)]


@pytest.mark.parametrize("name", VARIANTS)
def test_kernels_compile_for_the_architectures_that_they_declare(name: str) -> None:
    variant, archs = VARIANTS[name], sample(name)
    launches = firsts(variant)
    found = compilations(variant, launches.pop("bf16", None) or launches.pop("f32"), archs)
    for dtype, others in launches.items():
        able = (arch for arch in archs if chip_of(arch).multiplies(arithmetic(dtype, variant.tf32)))
        found += compilations(variant, others, (next(able),))
    assert {one.arch for one in found} == set(archs)
    assert not [f"{one.kernel.name} for {one.arch}: {one.problems}" for one in found if one.problems]


def test_every_chip_compiles_a_tenth_of_the_files() -> None:
    compiled = [
        arch for file in FILES for arch in {a for n, v in VARIANTS.items() if source(v) == file for a in sample(n)}
    ]
    assert set(compiled) == set(architectures_of("sm_75+"))
    assert min(compiled.count(arch) for arch in set(compiled)) >= len(FILES) // 10


def test_attention_s_forward_spills_nothing_at_the_widest_heads() -> None:
    """With the largest tiles, whose loop leaves no register for a number that is used only after it."""
    op, variant = REGISTRY.op("attention"), VARIANTS["attention.flash"]
    case = make_case(op, {"qkv": (1, 130, 3 * 128), "heads": 1})
    trials, _ = trials_of(op, variant, REGISTRY, dtypes=("bf16",), cases=[case])
    largest = {("BLOCKS", 2), ("TILE", 32)}
    launches = [
        launch
        for launch in launches_of(trials, decoding=False)
        if launch.kernel.name == "flash_forward" and largest <= set(launch.kernel.defines)
    ]
    found = compilations(variant, launches, ("sm_90a", "sm_100a"))
    assert [(one.arch, one.resources.spills) for one in found] == [("sm_90a", 0), ("sm_100a", 0)]
