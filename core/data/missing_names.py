"""The error for a name of data that matches no file, with the names in the nearest folder."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from core.errors import UsageError, did_you_mean


def _names(folder: Path) -> list[str]:
    """The names in a folder; none where it may not be listed."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return []


def missing_name(item: str, path: Path, where: str) -> UsageError:
    """The error for `item`, a name or glob, expanded to `path`; where: its place in the config."""
    folder = next((p for p in path.parents if p.is_dir() and not glob.has_magic(str(p))), Path())
    names = _names(folder)
    holds = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "nothing"
    missing = path.relative_to(folder).parts[0] if path.is_relative_to(folder) else item
    problem = "matches no file" if glob.has_magic(item) else "does not exist"
    if path.is_symlink():
        problem, names = f"is a link to {os.readlink(path)}, which does not exist", []
    return UsageError(
        f'{where}: "{item}" {problem}; the nearest folder that exists is {folder.resolve()}, which holds {holds}'
        f"{did_you_mean(missing, names)}",
        hint='name token shards, text files, a folder of text, or "builtin"',
    )
