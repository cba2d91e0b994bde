"""Fixtures that tests of several rooms share, and one environment, whoever starts them and wherever they print to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

# Results follow from these; where files are kept, how many threads there are and what runs kernels are the starter's.
for name in [name for name in os.environ if name.startswith("CORELM_")]:
    if name not in ("CORELM_CACHE", "CORELM_THREADS", "CORELM_SIM_EXECUTOR"):
        del os.environ[name]
os.environ |= {"COLUMNS": "120", "TERM": "xterm"}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """An ExitStack that closes what a test opens: the folder of a run."""
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory; the cache is in it too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CORELM_CACHE", str(tmp_path / "cache"))
    return tmp_path
