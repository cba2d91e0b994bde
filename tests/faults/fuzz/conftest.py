"""A folder and a bound of memory for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alterations import MORE_MEMORY


@pytest.fixture(autouse=True)
def here(workdir: Path) -> Path:
    return workdir


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """What asks for much more memory gets a MemoryError, which is no CoreError. POSIX only."""
    resource = pytest.importorskip("resource")
    pages = Path("/proc/self/statm")
    if not pages.exists():
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = int(pages.read_text().split()[0]) * resource.getpagesize() + MORE_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
