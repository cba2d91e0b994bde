"""A cache for a test that looks for tokenizers."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty caches of corelm and tiktoken, and no variable that names or forbids a download."""
    monkeypatch.setenv("CORELM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "tiktoken"))
    monkeypatch.delenv("CORELM_GPT2_RANKS", raising=False)
    monkeypatch.delenv("CORELM_OFFLINE", raising=False)
