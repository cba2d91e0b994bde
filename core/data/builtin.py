"""The text that every CPython carries: the documentation of the language and the standard library's docstrings.

About 2.3 MB of English and Python, so that a first run needs no network. It differs between Python versions: right
for a demonstration, wrong for numbers to compare.
"""

from __future__ import annotations

import hashlib
import json
import sys
import sysconfig
from pathlib import Path

from core.cache import cache_folder, read_json, used
from core.data.documents import Document
from core.errors import DataError

VERSION = 1  # of the rules below: another rule, another cache entry
HELD_OUT = 20  # every 20th document is validation: topics and modules of every kind in both parts


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
    from core.data import python_texts  # once for a Python: a run reads the entry

    documents = [*python_texts.topics(), *python_texts.docstrings(_library())]
    if not documents:
        raise DataError(
            "builtin: this Python came without its documentation and its sources",
            hint='name text files in [data] train instead, such as train = "my_text.txt"',
        )
    from core.cache.writing import try_write

    try_write(entry, json.dumps(documents).encode())
    return documents


def _library() -> Path:
    return Path(sysconfig.get_path("stdlib"))
