"""Random kernels give the same bits in every way in which the simulator runs them.

Any number of them, from any seed:

    python tests/sim/test_random_kernels.py --count 5000 --seed 100000
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # the generator lies beside this folder

from random_kernels import RandomKernel, random_kernel

import core.sim
from core.sim.native.toolchain import compiler

SEEDS = 12  # when the tests run
WAYS: dict[str, dict[str, Any]] = {
    "fast": {"strict": False, "executor": "interpreter"},
    "strict": {"strict": True},
    **({"native": {"strict": False, "executor": "native"}} if compiler() else {}),
}


def results(drawn: RandomKernel, way: str) -> list[np.ndarray]:
    """What the kernel leaves in each of its arrays."""
    arrays = drawn.arrays()
    core.sim.run(drawn.text, "kernel", drawn.grid, drawn.threads, list(arrays), **WAYS[way])
    return list(arrays)


def differences(seed: int) -> list[str]:
    """The ways that differ from the first, each with its first element that does."""
    drawn = random_kernel(seed)
    first, *others = WAYS
    expected, found = results(drawn, first), []
    for way in others:
        for name, a, b in zip(("words", "out", "sums"), expected, results(drawn, way), strict=True):
            if not np.array_equal(a, b):
                place = tuple(int(i[0]) for i in np.nonzero(a != b))
                found.append(f"seed {seed}: {name}{place} is {a[place]:#x} {first} and {b[place]:#x} {way}")
    return found


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_random_kernel_has_the_same_bits_in_every_way(seed: int) -> None:
    assert differences(seed) == []


def main() -> int:
    parser = argparse.ArgumentParser(description="compare random kernels in every way to run them")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    wrong = [line for seed in range(chosen.seed, chosen.seed + chosen.count) for line in differences(seed)]
    print("\n".join(wrong) or f"{chosen.count} kernels from seed {chosen.seed}: the same bits in {' and '.join(WAYS)}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
