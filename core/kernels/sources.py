"""The files of kernels: a source, the headers that its `#include "..."` reach, and the prelude in front of all."""

from __future__ import annotations

import re
from pathlib import Path

from core.errors import BuildError
from core.outside import open_file, read_rest, reads

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


def read_source(path: Path) -> str:
    try:
        with reads(BuildError, shown(path)), open_file(path) as file:
            return read_rest(file).decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise BuildError(f"{shown(path)}: not UTF-8: {error}", hint="save it as UTF-8") from None


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


def whole_text(source: Path) -> str:
    """A source behind the files that it includes, as one text without an `#include "..."`."""
    return "\n".join(ALONE.sub("", read_source(path)) for path in with_headers(source))
