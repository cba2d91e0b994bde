"""The files of a config: the named one, and those that it extends.

The module reads and parses; validate.py checks keys and values. Shipped configs and bases: core.config.shipped.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import tomli

from core.config.schema import Document
from core.config.spelling import show_path
from core.errors import UsageError
from core.outside import read_whole

LARGEST = 1 << 20  # bytes: a config beyond this is some other file, perhaps a checkpoint given by mistake


@dataclass(frozen=True)
class Source:
    """One file as read: its path, its name in messages, its text, and its contents."""

    path: Path
    shown: str
    text: str
    document: Document


# --- files -----------------------------------------------------------------------------------------------------


def find_config(name: str | Path) -> tuple[Path, str]:
    """The path of a config, and a note when it is a shipped one that was not found here.

    `name` is a path, or the path or stem of a shipped config. Raises UsageError naming the nearest shipped one.
    """
    path = Path(name)  # os.path below: Path's own questions raise at NUL and over-long names
    if os.path.isfile(path):
        return path, ""
    from core.config.shipped import find_shipped

    return find_shipped(str(name))


def read_source(path: Path, text: str | None = None) -> Source:
    """A TOML file; text: its contents, if it was read."""
    text = read_text(path) if text is None else text
    shown = show_path(path)
    return Source(path, shown, text, parse_toml(text, shown))


def read_text(path: Path) -> str:
    """The text of a TOML file. Raises UsageError: no file, too large, or not UTF-8, with line and column."""
    try:
        data = read_whole(path, LARGEST)
    except OSError as error:
        words = f"{show_path(path)}: cannot be read: {error.strerror or error}"
        raise UsageError(words, hint="expected a TOML file") from None
    try:
        return data.decode("utf-8").removeprefix("\ufeff")  # some editors put a byte order mark in front
    except UnicodeDecodeError as error:
        from core.config.unreadable import not_utf8

        raise not_utf8(data, error, show_path(path)) from None


def parse_toml(text: str, shown: str) -> Document:
    """A TOML text, parsed. Raises UsageError with file, line and column, for duplicate keys too."""
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        from core.config.unreadable import not_toml

        raise not_toml(text, error, shown) from None
    except (RecursionError, ValueError) as error:  # nesting without end, a number of thousands of digits
        raise UsageError(f"{shown}:1:1: not TOML that can be read: {error}") from None


def read_toml(path: Path) -> Document:
    """A TOML file, parsed. Raises UsageError with file, line and column."""
    return read_source(path).document


# --- extends ---------------------------------------------------------------------------------------------------


def read_chain(path: Path) -> tuple[list[Source], list[str]]:
    """A config and its bases, the base first; and problems of the chain itself."""
    chain: list[Source] = []  # the top first
    while True:
        source = read_source(path)
        chain.append(source)
        base = source.document.get("extends")
        if not isinstance(base, str) or not base:  # absent, or a wrong type, which the schema's check reports
            return chain[::-1], []
        from core.config.shipped import base_of

        base_path, problem = base_of(base, [source.path for source in chain])
        if base_path is None:
            return chain[::-1], [problem]
        path = base_path
