"""Fixtures of the model TOML: a registry with odd ops, and models by their text."""

from __future__ import annotations

import dataclasses

import pytest
from tiny_model import FAULTY, ROUTER, TABLE, TINY

from core.graph import Graph, load_model
from core.loader import load_registry


@pytest.fixture(scope="module")
def registry():
    real = load_registry()
    ops = {**real.ops, **{op.name: op for op in (ROUTER, TABLE, FAULTY)}}
    return dataclasses.replace(real, ops=ops, models=dict(real.models))


@pytest.fixture
def model(tmp_path, registry, monkeypatch):
    """model(text, *(old, new), dims) -> Graph; the file is tmp_path/model.toml, the current directory tmp_path."""
    monkeypatch.chdir(tmp_path)

    def build(text: str = TINY, *changes: tuple[str, str], dims=None) -> Graph:
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        (tmp_path / "model.toml").write_text(text, encoding="utf-8")
        return load_model("model.toml", registry).build(registry, dims or {})

    return build
