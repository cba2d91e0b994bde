"""Names in `[data] train` and `val` to pieces of tokens and documents, by the readers of `core_data`.

The file decides the meaning of a name: a token shard by its header, a folder by its contents, any other file is text;
`NAME:REST` picks a reader. Shards are checked here: a damaged one stops a run at its start.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from core.containment import of_plugin
from core.data.documents import WHOLE, Reading
from core.data.inputs import Inputs
from core.data.readers import own_readers
from core.data_reader import DataReader
from core.errors import DataError, UsageError, raise_all
from core.outside import open_file, way_out

BUILTIN = "builtin"
LONGEST_NAME = 255  # bytes: the limit of file systems
HEAD = 256  # bytes of a file that a reader looks at
Readers = Mapping[str, DataReader]


def resolve(
    items: Sequence[str],
    part: str,
    where: str,
    notes: list[str],
    reading: Reading = WHOLE,
    readers: Readers | None = None,
) -> Inputs:
    """Names to pieces of tokens, checked when they are found, and documents, read by `reading`.

    readers: a registry's, by name; None for the core's own. UsageError for a name that matches nothing,
    DataError with every damaged source.
    """
    if not items:
        raise UsageError(
            f"{where}: expected a file, folder, glob or {BUILTIN}, got an empty list", hint=f'write "{BUILTIN}"'
        )
    inputs, problems, by_name = Inputs(), list[str](), readers or own_readers()
    for source, picked in _sources(items, where, by_name):
        path = Path(source)
        try:
            if picked is not None and not picked.files:
                _add(inputs, picked, source, part, notes, reading)
            elif path.resolve() in inputs.files:
                continue
            elif (reader := picked or reader_of(path, by_name)) is None:
                from core.data.folders import files_of

                for file, own in files_of(path, partial(reader_of, readers=by_name)):
                    _add(inputs, own, str(file), part, notes, reading)
            else:
                _add(inputs, reader, source, part, notes, reading)
        except DataError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{source}: cannot be read: {error.strerror or error}\n  hint: {way_out(error)}")
    raise_all(problems, DataError)
    return inputs


def _sources(items: Sequence[str], where: str, readers: Readers) -> Iterator[tuple[str, DataReader | None]]:
    """(source, the reader that the name picks) of every item; None where the file decides."""
    for item in dict.fromkeys(items):
        name, colon, rest = item.partition(":")
        picked = readers.get(name)
        if picked is not None and not picked.files:
            yield rest, picked
        elif picked is not None and colon and not os.path.lexists(item):
            yield from ((str(path), picked) for path in expand(rest, where))
        else:
            yield from ((str(path), None) for path in expand(item, where))


def reader_of(path: Path, readers: Readers) -> DataReader | None:
    """The reader of a file: a plugin's before the core's own, which end with plain text. None for a folder."""
    head = b""
    if path.is_file():
        with open_file(path) as file:
            head = file.read(HEAD)
    for reader in reversed(list(readers.values())):
        if reader.files and of_plugin(reader.origin, f"reader {reader.name}", partial(reader.recognise, path, head)):
            return reader
    return None


def _add(inputs: Inputs, reader: DataReader, source: str, part: str, notes: list[str], reading: Reading) -> None:
    read = partial(reader.read, source, part, reading, notes)
    inputs.add(of_plugin(reader.origin, f"reader {reader.name}", read))
    if reader.files:
        inputs.files.add(Path(source).resolve())


def expand(item: str, where: str) -> list[Path]:
    """The paths of a name or glob, in the order of their names. UsageError if there are none."""
    if "\0" in item:
        raise UsageError(f"{where}: expected a path, got {item!r} with a NUL in it", hint="remove it")
    path = Path(os.path.expanduser(item))  # unlike Path's own, it takes "~nobody" for a name
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in path.parts):
        raise UsageError(
            f'{where}: "{item[:40]}..." has a name of more than {LONGEST_NAME} bytes', hint="shorten the name"
        )
    if path.exists():
        return [path]
    matches = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(item) else []
    if matches:
        return [Path(name) for name in matches]
    from core.data.missing_names import missing_name

    raise missing_name(item, path, where)
