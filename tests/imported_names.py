"""The Python files of a folder, and their imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from parsed import nodes_of

ROOT = Path(__file__).parents[1]


def files(folder: str) -> list[Path]:
    return sorted(p for p in (ROOT / folder).rglob("*.py") if "__pycache__" not in p.parts)


def imports(path: Path, package: str) -> Iterator[tuple[int, str, str]]:
    """(line, module, name) of every import in a file, those inside functions included, relative ones resolved."""
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, module, alias.name


def package_of(path: Path, folder: Path, name: str) -> str:
    """The package that relative imports of a file start from."""
    return ".".join([name, *path.relative_to(folder).parent.parts])
