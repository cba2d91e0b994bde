"""The scripts of benchmarks/, which few tests run, import names that exist."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from parsed import nodes_of

ROOT = Path(__file__).parents[2]
FOLDERS = ("core", "ops", "plugins")


def absent_imports(path: Path) -> Iterator[str]:
    """file:line: each name that a script imports from the project and that does not exist."""
    for node in nodes_of(path):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in FOLDERS:
            module = importlib.import_module(node.module)
            submodules = {part.name for part in pkgutil.iter_modules(getattr(module, "__path__", ()))}
            for name in (alias.name for alias in node.names):
                if not hasattr(module, name) and name not in submodules:
                    yield f"{path.name}:{node.lineno}: {node.module}.{name}"


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_a_benchmark_imports_names_that_exist(path: Path) -> None:
    assert not list(absent_imports(path))


def test_an_absent_name_is_reported(tmp_path: Path) -> None:
    script = tmp_path / "a.py"
    script.write_text("def f():\n    from core.engine import Engine, Settings, engine, motor\n")
    assert list(absent_imports(script)) == ["a.py:2: core.engine.motor"]
