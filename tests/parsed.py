"""Source files, parsed once for all tests of a process."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """All nodes of a file's syntax tree, breadth first; the module is the first."""
    return tuple(ast.walk(ast.parse(path.read_text("utf-8"))))
