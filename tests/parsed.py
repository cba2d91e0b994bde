"""Source files, parsed once for all tests of a process."""

from __future__ import annotations

import ast
import gc
from functools import cache
from pathlib import Path


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """All nodes of a file's syntax tree, breadth first; the module is the first."""
    collects = gc.isenabled()
    gc.disable()  # a million nodes that stay: the collector would go through them again and again
    try:
        return tuple(ast.walk(ast.parse(path.read_text("utf-8"))))
    finally:
        gc.freeze()
        if collects:
            gc.enable()
