"""A registry, and an empty folder without downloads."""

from __future__ import annotations

import pytest

from core.loader import load_registry


@pytest.fixture(scope="module")
def registry():
    return load_registry()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory; nothing is downloaded, and the cache is here too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CORELM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CORELM_OFFLINE", "1")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "none"))
    return tmp_path
