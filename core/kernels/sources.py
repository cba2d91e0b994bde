"""The files of kernels: a source, the headers that its `#include "..."` reach, and the prelude in front of all."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from core.errors import BuildError
from core.outside import read_utf8

PRELUDE = "prelude.cuh"
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.MULTILINE)
ALONE = re.compile(rf"{INCLUDE.pattern}|^[ \t]*#[ \t]*pragma[ \t]+once", re.MULTILINE)  # for several files in one


def shown(path: Path) -> str:
    """A path for messages: relative if it is below the current directory."""
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


_TEXTS: dict[Path, tuple[tuple[int, ...], str]] = {}  # file -> (its state on the disk, its text)
SETTLED = 2.0  # seconds after a write in which another may leave a file's time and size as they are


def read_source(path: Path) -> str:
    """The text of a file, which each launch reads: kept until the file changes. Raises BuildError."""
    state = _state(path)
    held = _TEXTS.get(path)
    if held is not None and held[0] == state:
        return held[1]
    text = read_utf8(BuildError, shown(path)).replace("\r\n", "\n")
    if state:
        _TEXTS[path] = state, text
    return text


def _state(path: Path) -> tuple[int, ...]:
    """A file's state on the disk; () where it does not determine the contents."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ()
    if time.time() - max(status.st_mtime, status.st_ctime) <= SETTLED:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def source_lines(path: Path) -> list[str]:
    """A file's lines as they are shown: tabs as blanks, without blanks at their ends."""
    return [line.expandtabs(4).rstrip() for line in path.read_text("utf-8").splitlines()]


def include_folder() -> Path:
    """The public headers, which a kernel of any plugin includes as `#include "core/NAME.cuh"`: docs/kernels.md."""
    return Path(__file__).with_name("include")


def is_public(path: Path) -> bool:
    """Whether a header is one of the core's own, the prelude among them."""
    return path == prelude_file() or path.is_relative_to(include_folder())


def header_path(name: str, folder: Path) -> Path | None:
    """The file of `#include "name"` in a file of `folder`: there, else a public header; None for neither."""
    return next((path for root in (folder, include_folder()) if (path := root / name).is_file()), None)


def headers_of(text: str, folder: Path, headers: dict[str, str]) -> dict[str, str]:
    """name as written -> text of every file that `#include "..."` reaches; one that is absent is NVRTC's to report.

    Raises BuildError where two files are included under one name, since NVRTC would take the first for both.
    """
    for name in INCLUDE.findall(text):
        path = header_path(name, folder)
        if path is None:
            continue
        source = read_source(path)
        whole = marked(path, source)
        if name not in headers:
            headers[name] = whole
            headers_of(source, path.parent, headers)
        elif headers[name] != whole:
            first = headers[name].partition('"')[2].partition('"')[0]
            raise BuildError(
                f'#include "{name}" reaches {shown(Path(first))} and {shown(path)}', hint="rename one of the headers"
            )
    return headers


def with_headers(source: Path) -> list[Path]:
    """A source and every file that its `#include "..."` reach, those included first."""
    headers: dict[Path, None] = {}
    if source.is_file():
        for name in INCLUDE.findall(read_source(source)):
            if path := header_path(name, source.parent):
                headers |= dict.fromkeys(with_headers(path))
        headers[source] = None
    return list(headers)


def parts_of(source: Path) -> dict[Path, str]:
    """The texts of `with_headers` without an `#include "..."`, each with the lines of its file."""
    return {path: ALONE.sub("", read_source(path)) for path in with_headers(source)}


def whole_text(source: Path) -> str:
    """A source after the files that it includes, as one text without an `#include "..."`."""
    return "\n".join(parts_of(source).values())
