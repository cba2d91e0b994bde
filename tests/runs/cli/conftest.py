"""No plugin but the built-in ops, and no traceback."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORELM_PLUGINS", "")
    monkeypatch.delenv("CORELM_TRACEBACK", raising=False)
