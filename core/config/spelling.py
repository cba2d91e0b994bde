"""Keys and values as TOML writes them, and paths, for messages."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import msgspec

Keys = tuple[str, ...]  # of keys, from the top of the document

BARE = re.compile(r"[A-Za-z0-9_-]+")
LONGEST = 60  # characters of a value in a message


def show(value: Any) -> str:
    """A value as TOML writes it, shortened."""
    match value:
        case bool():
            text = "true" if value else "false"
        case str():
            text = msgspec.json.encode(value).decode() if value.isprintable() else ascii(value)
        case list():
            text = "[" + ", ".join(show(v) for v in value[:9]) + (", ..." if len(value) > 9 else "") + "]"
        case dict():
            text = "{ " + ", ".join(f"{bare(k)} = {show(v)}" for k, v in list(value.items())[:9]) + " }"
        case int() if value.bit_length() > 200:  # Python refuses to print an int of thousands of digits
            text = f"a whole number of {value.bit_length()} bits"
        case _:
            text = str(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 4] + " ..."


def shown_value(value: Any) -> str:
    """The actual value with its kind: the same digits may be a string."""
    match value:
        case str():
            return f"the string {show(value)}"
        case list():
            return f"the list {show(value)}"
        case dict():
            return "a table"
        case _:
            return show(value)


def bare(key: str) -> str:
    """A key as TOML writes it: in quotes when it must be."""
    return key if BARE.fullmatch(key) else show(key)


def place(file: str, path: Keys) -> str:
    """`configs/tiny.toml [train] steps`."""
    *table, key = path
    inside = "[" + ".".join(bare(t) for t in table) + "] " if table else ""
    return f"{file} {inside}{bare(key)}"


def show_path(path: Path) -> str:
    """A path for a message: relative to the current directory if inside it."""
    try:
        return Path(os.path.realpath(path)).relative_to(Path.cwd()).as_posix()
    except (ValueError, OSError):
        return str(path)
