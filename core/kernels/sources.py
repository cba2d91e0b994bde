"""The files of kernels: a source, the headers that its `#include "..."` reach, and the prelude in front of all."""

from __future__ import annotations

import re
from pathlib import Path

from core.errors import BuildError
from core.outside import reads

PRELUDE = "prelude.cuh"
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.MULTILINE)


def shown(path: Path) -> str:
    """A path as people like to read it: relative where it lies below the current directory."""
    try:
        return path.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return str(path)


def prelude_file() -> Path:
    """The header in front of every kernel's file, beside this module."""
    return Path(__file__).with_name(PRELUDE)


def marked(path: Path, text: str) -> str:
    """`text` whose errors and line tables name `path`."""
    return f'#line 1 "{path.as_posix()}"\n{text}\n'


def read_source(path: Path) -> str:
    try:
        with reads(BuildError, shown(path)):
            return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise BuildError(f"{shown(path)}: not UTF-8: {error}", hint="save it as UTF-8") from None


def headers_of(text: str, folder: Path, known: dict[str, str]) -> dict[str, str]:
    """name as written -> text of every file that `#include "..."` reaches; one that is absent is NVRTC's to report."""
    for name in INCLUDE.findall(text):
        path = folder / name
        if name not in known and path.is_file():
            found = read_source(path)
            known[name] = marked(path, found)
            headers_of(found, path.parent, known)
    return known


def with_headers(source: Path) -> list[Path]:
    """A source and every file that its `#include "..."` reach, those included first."""
    found: dict[Path, None] = {}
    if source.is_file():
        for name in INCLUDE.findall(read_source(source)):
            found |= dict.fromkeys(with_headers(source.parent / name))
        found[source] = None
    return list(found)


def whole_text(source: Path) -> str:
    """A source behind the files that it includes, as one text without an `#include "..."`."""
    return "\n".join(INCLUDE.sub("", read_source(path)) for path in with_headers(source))
