"""A cache for each test, and no network."""

from __future__ import annotations

import pytest

from core.errors import DataError
from core.tokenizers import gpt2


@pytest.fixture(autouse=True)
def offline(empty_caches, monkeypatch):
    """Empty caches, and no network."""

    def no_network(url, seconds, largest):
        raise DataError("no network in tests")

    monkeypatch.setattr(gpt2.download, "small_file", no_network)
