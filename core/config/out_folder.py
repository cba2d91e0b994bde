"""Output folders: the paths that `--out` may be."""

from __future__ import annotations

import os
from pathlib import Path

from core.config.spelling import show
from core.errors import UsageError

LONGEST_NAME, LONGEST_PATH = 255, 4000  # bytes that common file systems take in a component, and in a path


def check_out(path: str | Path) -> Path:
    """An output folder that can be: `--out`.

    Any path, absolute ones included, without `..`, NUL or a component over 255 bytes, and whose nearest existing
    ancestor is a folder. Whether it may be written to, and whether it exists, is the caller's question. Raises
    UsageError; touches nothing.
    """
    text = os.fspath(path)
    why = name_problem(text)
    if not why and ".." in Path(text).parts:
        why = 'it holds ".."'
    if not why and text.startswith("~"):
        why = 'a folder called "~" would be made, since the shell has not put your home in its place'
    if not why:
        existing = next((p for p in (Path(text), *Path(text).parents) if os.path.exists(p)), Path("."))
        why = "" if existing.is_dir() else f"{show(str(existing))} is not a folder"
    if why:
        raise UsageError(f"--out {show(text)}: {why}", hint="give a path to a folder, as in --out runs/mine")
    return Path(text)


def name_problem(text: str) -> str:
    """Why no file system takes this path; "" when one does."""
    if not text.strip():
        return "it is empty"
    if any(ord(letter) < 32 for letter in text):
        return "it holds a NUL or control character"
    longest = max(len(os.fsencode(part)) for part in Path(text).parts or ("",))
    if longest > LONGEST_NAME:
        return f"a component has {longest} bytes; at most {LONGEST_NAME} are possible"
    if len(os.fsencode(text)) > LONGEST_PATH:
        return f"it has {len(os.fsencode(text))} bytes; at most {LONGEST_PATH} are possible"
    return ""
