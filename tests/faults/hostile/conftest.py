"""A bound of memory for each test."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOM = 1 << 30  # bytes of address space that a test may take on top of what its process has


@pytest.fixture(autouse=True)
def bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What would take more than ROOM is a MemoryError, which no test here expects."""
    monkeypatch.chdir(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
