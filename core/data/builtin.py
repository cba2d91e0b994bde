"""The text that every CPython carries: the documentation of the language and the standard library's docstrings.

About 2.3 MB of English and Python, so that a first run needs no network. It differs between Python versions: right
for a demonstration, wrong for numbers to compare. Nothing of the library is run: docstrings are found in its source
files, and `ast` reads the literals.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import os
import re
import sys
import sysconfig
import warnings
from pathlib import Path

from core.cache import cache_folder, read_json, try_write, used
from core.data.documents import Document
from core.errors import DataError

VERSION = 1  # of the rules below: another rule, another cache entry
HELD_OUT = 20  # every 20th document is validation: topics and modules of every kind in both parts
LEFT_OUT = {"test", "tests", "site-packages", "dist-packages", "__pycache__", "idlelib", "lib2to3", "turtledemo"}

# A string in triple double quotes at the start of a file, or first behind the colon of a def or class. The literal's
# inside is written so that no part can match in two ways: one pass for any file.
DOCSTRING = re.compile(
    r'(?:\A(?:[ \t]*(?:#[^\n]*)?\n)*|:[ \t]*(?:#[^\n]*)?\n[ \t]+)([rRuU]?"""(?:[^"\\]|\\.|"(?!""))*""")', re.DOTALL
)


def builtin_documents(part: str) -> list[Document]:
    """The documents of `part`, "train" or "val", which share none. DataError where Python came without its sources."""
    documents = _cached_text()
    held_out = [i % HELD_OUT == HELD_OUT - 1 for i in range(len(documents))]
    return [
        _document(name, text) for (name, text), out in zip(documents, held_out, strict=True) if out == (part == "val")
    ]


def _document(name: str, text: str) -> Document:
    raw = text.encode("utf-8", "replace")
    return Document(f"builtin:{name}", len(raw), hashlib.sha256(raw).hexdigest(), lambda: iter([text]))


def _cached_text() -> list[tuple[str, str]]:
    key = hashlib.sha256(f"{VERSION} {sys.version} {_library()}".encode("utf-8", "replace")).hexdigest()[:32]
    entry = cache_folder() / "builtin" / f"{key}.json"
    record = read_json(entry)
    if isinstance(record, list) and record:
        used(entry)
        return [(str(name), str(text)) for name, text in record]
    documents = [*_topics(), *_docstrings()]
    if not documents:
        raise DataError(
            "builtin: this Python came without its documentation and its sources",
            hint='name text files in [data] train instead, such as train = "my_text.txt"',
        )
    try_write(entry, json.dumps(documents).encode())
    return documents


def _topics() -> list[tuple[str, str]]:
    """The chapters of the language reference that `help()` shows."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return []
    return [(f"topic/{name}", text.strip() + "\n") for name, text in sorted(topics.items())]


def _docstrings() -> list[tuple[str, str]]:
    """A document a module: its docstrings in the order of the file."""
    documents = []
    for path in _library_files():
        try:
            source = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            continue  # a file that is not for everyone's eyes, or one of the few in another encoding
        texts = [text for literal in DOCSTRING.findall(source) if (text := _clean(literal))]
        if texts:
            documents.append((path.relative_to(_library()).as_posix(), "\n\n".join(texts) + "\n"))
    return documents


def _clean(literal: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a doubtful escape is the library's affair
            return inspect.cleandoc(ast.literal_eval(literal)).strip()
    except (SyntaxError, ValueError):
        return ""


def _library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _library_files() -> list[Path]:
    """The standard library's own files: what was installed beside them is not part of it."""
    paths: list[Path] = []
    for root, folders, files in os.walk(_library()):
        top = Path(root) == _library()
        folders[:] = [f for f in folders if f not in LEFT_OUT and (not top or f in sys.stdlib_module_names)]
        paths += [
            Path(root) / f
            for f in files
            if f.endswith(".py") and (not top or f.removesuffix(".py") in sys.stdlib_module_names)
        ]
    return sorted(paths, key=lambda path: path.as_posix())
