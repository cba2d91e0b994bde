"""A cache for each test, and no network."""

from __future__ import annotations

import pytest

from core.errors import DataError
from core.tokenizers import gpt2


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """A cache of its own for each test, nobody's environment, and no network."""
    monkeypatch.setenv("CORELM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "no-tiktoken"))
    monkeypatch.delenv("CORELM_GPT2_RANKS", raising=False)
    monkeypatch.delenv("CORELM_OFFLINE", raising=False)

    def no_network(url, seconds, largest):
        raise DataError("no network in tests")

    monkeypatch.setattr(gpt2.download, "small_file", no_network)
