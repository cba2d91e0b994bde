"""Fixtures that tests of several rooms share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest


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
