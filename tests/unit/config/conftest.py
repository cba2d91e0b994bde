"""Files in an empty current directory."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes files into an empty current directory."""
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "run.toml") -> str:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")
        return name

    return write
