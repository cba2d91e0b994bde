"""Checks and listings of the pages' commands with fewer compilations.

A check compiles for one architecture of each set of features, and `core ops` shows one instance of each kernel. All
of ours are compiled in tests/sim/test_cuda_compiles.py and for the release, whose verdicts test_released.py holds
against the sources.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from core.device.launch import LaunchRecord
from core.kernels.nvrtc import architectures_of
from core.op import Variant
from core.testing import check, compiles

EACH = {"sm_75", "sm_80", "sm_90a", "sm_100a", "sm_120a"}


def choose(patch: pytest.MonkeyPatch) -> None:
    compilations = compiles.compilations

    def of_each(declared: str) -> tuple[str, ...]:
        every = architectures_of(declared)
        return tuple(arch for arch in every if arch in EACH) or every

    def of_one_instance(
        variant: Variant, launches: Sequence[LaunchRecord], archs: Sequence[str]
    ) -> list[compiles.Compilation]:
        first = {launch.kernel.name: launch for launch in reversed(launches)}
        return compilations(variant, list(first.values()), archs)

    patch.setattr(compiles, "architectures_of", of_each)
    patch.setattr(check, "compilations", of_one_instance)
