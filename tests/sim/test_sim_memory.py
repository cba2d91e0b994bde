"""Simulated global memory: zeroed at each allocation, its contents kept when it grows, its pages taken at their use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from core.sim.machine.address_space import Memory


def test_an_allocation_is_zero_where_another_one_was() -> None:
    memory = Memory()
    first = memory.allocate(1000)
    memory.write(first, np.full(1000, 7, np.uint8))
    memory.free(first)
    second = memory.allocate(5000)
    assert second == first and not any(memory.read(second, 5000))


def test_contents_stay_when_memory_grows() -> None:
    memory = Memory()
    places = [memory.allocate(n << 18) for n in range(1, 9)]
    for number, place in enumerate(places):
        memory.write(place, np.full(1 << 18, number, np.uint8))
    last = memory.allocate(64 << 20)
    assert [set(memory.read(place, 1 << 18).tolist()) for place in places] == [{n} for n in range(8)]
    assert not any(memory.read(last, 1 << 18))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the size of a process is read from /proc")
def test_memory_that_nothing_writes_takes_no_page() -> None:
    """A plan on the simulator allocates a model's parameters and never writes them. In a process of its own, since
    threads of other tests take memory at any time."""
    code = """
from core.device.process_memory import pages
from core.sim.machine.address_space import Memory
memory, before = Memory(), pages()[1]
memory.allocate(256 << 20)
memory.allocate(64)
print(pages()[1] - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 16 << 20
