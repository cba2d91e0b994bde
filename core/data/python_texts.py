"""The text of every CPython: help()'s topics, and the docstrings of the standard library's files.

Nothing of the library is run: docstrings are found in its source files, and `ast` reads the literals.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import sys
import warnings
from pathlib import Path

LEFT_OUT = {"test", "tests", "site-packages", "dist-packages", "__pycache__", "idlelib", "lib2to3", "turtledemo"}

# A string in triple double quotes at the start of a file, or first after the colon of a def or class. The literal's
# inside is written so that no part can match in two ways: one pass for any file.
DOCSTRING = re.compile(
    r'(?:\A(?:[ \t]*(?:#[^\n]*)?\n)*|:[ \t]*(?:#[^\n]*)?\n[ \t]+)([rRuU]?"""(?:[^"\\]|\\.|"(?!""))*""")', re.DOTALL
)


def topics() -> list[tuple[str, str]]:
    """The chapters of the language reference that `help()` shows."""
    try:
        from pydoc_data import topics as chapters
    except ImportError:
        return []
    return [(f"topic/{name}", text.strip() + "\n") for name, text in sorted(chapters.topics.items())]


def docstrings(library: Path) -> list[tuple[str, str]]:
    """A document a module: its docstrings in the order of the file."""
    documents = []
    for path in _library_files(library):
        try:
            source = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            continue  # a file that is not for everyone's eyes, or one of the few in another encoding
        texts = [text for literal in DOCSTRING.findall(source) if (text := _clean(literal))]
        if texts:
            documents.append((path.relative_to(library).as_posix(), "\n\n".join(texts) + "\n"))
    return documents


def _clean(literal: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a doubtful escape is the library's affair
            return inspect.cleandoc(ast.literal_eval(literal)).strip()
    except (SyntaxError, ValueError):
        return ""


def _library_files(library: Path) -> list[Path]:
    """The standard library's own files, without others that were installed beside them."""
    paths: list[Path] = []
    for root, folders, files in os.walk(library):
        top = Path(root) == library
        folders[:] = [f for f in folders if f not in LEFT_OUT and (not top or f in sys.stdlib_module_names)]
        paths += [
            Path(root) / f
            for f in files
            if f.endswith(".py") and (not top or f.removesuffix(".py") in sys.stdlib_module_names)
        ]
    return sorted(paths, key=lambda path: path.as_posix())
