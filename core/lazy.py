"""Names of a package that are imported when they are first used.

Each stands once, below the package's `if TYPE_CHECKING:` as `from core.op import Op as Op`: type checkers read it
there, and so does `imports_of`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any


def imports_of(package: str, *others: str) -> Callable[[str], Any]:
    """The `__getattr__` of a package. Its `__all__` has the names that the package imports as themselves, at once or
    later, and `others`. Its AttributeError is Python's own."""

    @cache
    def places() -> tuple[dict[str, str], dict[str, str]]:
        """The module of each public name, and of those that are imported later."""
        body = ast.parse(Path(str(sys.modules[package].__file__)).read_text("utf-8")).body
        later = named([inner for node in body if isinstance(node, ast.If) for inner in node.body])
        return named(body) | later, later

    def attribute(name: str) -> Any:
        public, later = places()
        if name in later:
            return getattr(import_module(later[name]), name)
        if name == "__all__":
            return [*public, *others]
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return attribute


def named(body: list[ast.stmt]) -> dict[str, str]:
    """Name -> module, of each `from MODULE import NAME as NAME`."""
    imports = [node for node in body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names if alias.asname == alias.name}
