"""Names in `[data] train` and `val` to token shards and documents.

The file decides the meaning of a name: a token shard by its header, a folder by its contents, anything else is
text. Shards are checked when they are found, so that a damaged one stops a run at its start.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.data.builtin import builtin_documents
from core.data.magics import FILES
from core.data.shards import Shard, magic_of, open_shard, verify_shard
from core.data.text import WHOLE, Document, Reading, folder_files, text_document
from core.errors import DataError, UsageError, did_you_mean, raise_all
from core.outside import way_out

BUILTIN = "builtin"
LONGEST_NAME = 255  # bytes: what file systems allow


@dataclass
class Inputs:
    """One of train and val: shards and documents, and the files that they come from."""

    shards: list[Shard] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    files: set[Path] = field(default_factory=set)


def resolve(items: Sequence[str], part: str, where: str, notes: list[str], reading: Reading = WHOLE) -> Inputs:
    """Names to shards, checked against their headers and sidecars, and documents, read as `reading` says."""
    if not items:
        raise UsageError(
            f"{where}: expected a file, folder, glob or {BUILTIN}, got an empty list", hint=f'write "{BUILTIN}"'
        )
    inputs = Inputs()
    problems: list[str] = []
    for item in dict.fromkeys(items):
        if item == BUILTIN:
            inputs.documents += builtin_documents(part)
            continue
        for path in expand(item, where):
            if path.resolve() in inputs.files:
                continue
            try:
                _add(inputs, path, notes, reading)
            except DataError as error:
                problems.append(str(error))
            except OSError as error:
                problems.append(f"{path}: cannot be read: {error.strerror or error}\n  hint: {way_out(error)}")
    raise_all(problems, DataError)
    return inputs


def _add(inputs: Inputs, path: Path, notes: list[str], reading: Reading) -> None:
    if path.is_dir() and path.suffix != ".bin":
        files = folder_files(path)
        shards = [file for file in files if is_shard(file)]
        if shards:
            raise DataError(
                f"{path}: expected a folder of text, it holds token shards such as {shards[0].name}",
                hint=f'write "{path}/*.bin"',
            )
        if not files:
            raise DataError(f"{path}: the folder holds no files", hint="name a folder with text files")
        inputs.documents += [text_document(file, notes, reading) for file in files]
        inputs.files |= {file.resolve() for file in files}
        return
    if is_shard(path):
        shard = open_shard(path)
        verify_shard(path)
        inputs.shards.append(shard)
    else:
        inputs.documents.append(text_document(path, notes, reading))
    inputs.files.add(path.resolve())


def is_shard(path: Path) -> bool:
    """By name (a folder named x.bin too, so that it is refused as what it was meant to be) or by header."""
    return path.suffix == ".bin" or (path.is_file() and magic_of(path) in FILES)


def expand(item: str, where: str) -> list[Path]:
    """The paths that a name or glob stands for, in the order of their names. UsageError if there are none."""
    if "\0" in item:
        raise UsageError(f"{where}: expected a path, got {item!r} with a NUL in it", hint="remove it")
    path = Path(os.path.expanduser(item))  # unlike Path's own, it takes "~nobody" for a name
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in path.parts):
        raise UsageError(
            f'{where}: "{item[:40]}..." has a name of more than {LONGEST_NAME} bytes', hint="no file can be called so"
        )
    if path.exists():
        return [path]
    found = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(item) else []
    if found:
        return [Path(name) for name in found]
    folder = next((p for p in path.parents if p.is_dir() and not glob.has_magic(str(p))), Path())
    names = _names(folder)
    holds = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "nothing"
    missing = path.relative_to(folder).parts[0] if path.is_relative_to(folder) else item
    what = "matches no file" if glob.has_magic(item) else "does not exist"
    if path.is_symlink():
        what, names = f"is a link to {os.readlink(path)}, which does not exist", []
    raise UsageError(
        f'{where}: "{item}" {what}; the nearest folder that exists is {folder.resolve()}, which holds {holds}'
        f"{did_you_mean(missing, names)}",
        hint=f'name token shards, text files, a folder of text, or "{BUILTIN}"',
    )


def _names(folder: Path) -> list[str]:
    """What a listing of a folder shows; nothing where it may not be listed."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return []
