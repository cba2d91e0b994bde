"""Files that are no TOML: the error, with line and column."""

from __future__ import annotations

import re

import tomli

from core.errors import UsageError

AT = re.compile(r"\s*\(at line (\d+), column (\d+)\)$")  # after the parser's message


def not_utf8(data: bytes, error: UnicodeDecodeError, shown: str) -> UsageError:
    """The error for a file that is not UTF-8."""
    before = data[: error.start]
    line, column = before.count(b"\n") + 1, len(before) - (before.rfind(b"\n") + 1) + 1
    return UsageError(
        f"{shown}:{line}:{column}: not UTF-8 (byte 0x{data[error.start]:02x})", hint="save the file as UTF-8"
    )


def not_toml(text: str, error: tomli.TOMLDecodeError, shown: str) -> UsageError:
    """The error for a text that is not TOML, with the line at fault."""
    message, place = AT.sub("", str(error)), AT.search(str(error))
    lines = text.splitlines() or [""]
    line, column = (int(place[1]), int(place[2])) if place else (len(lines), len(lines[-1]) + 1)
    written = lines[line - 1].strip() if line <= len(lines) else ""
    return UsageError(f"{shown}:{line}:{column}: not TOML: {message}\n    {written[:100]}")
