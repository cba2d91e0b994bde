"""Documents in JSON lines: an object per line, with the text in the field that `[data] field` names."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.data.documents import Document, Reading
from core.data.inputs import Inputs
from core.data.marks import Conversations
from core.data.text_blocks import BLOCK_BYTES, read_blocks
from core.data.text_files import size_and_digest
from core.errors import DataError, did_you_mean
from core.outside import open_file, parse_json, reads

LINES = (".jsonl", ".ndjson")
OBJECTS, ARRAY = "lines", "array"  # how JSON holds records


def lines_of_reading(path: Path, notes: list[str], reading: Reading) -> Inputs:
    """A file with an object a line, each a document or, where the first has the field of messages, a conversation.
    DataError where `reading` names no field."""
    with reads(DataError, path):
        size, digest = size_and_digest(path)
        if reading.messages and reading.messages in _first(path):
            name, read = reading.messages, lambda: _conversations(path, reading.messages, notes)
            return Inputs(conversations=[Conversations(str(path), size, f"{digest} {name}", read)])
        field = reading.field or no_field(path)
        document = Document(str(path), size, f"{digest} {field}", lambda: lines_of(path, field, notes), each=True)
        return Inputs(documents=[document])


def _first(path: Path) -> dict[str, Any]:
    """The object in the first line; {} where there is none."""
    with contextlib.suppress(ValueError), open_file(path) as file:
        value = parse_json(file.readline(BLOCK_BYTES))
        return value if isinstance(value, dict) else {}
    return {}


def _conversations(path: Path, field: str, notes: list[str]) -> Iterator[tuple[str, Any]]:
    for place, value in _records(path, notes):
        if not isinstance(value, dict) or field not in value:
            raise missing_field(place, field, "a conversation", value, "[data] messages names that field")
        yield place, value[field]


def json_form(path: Path) -> str:
    """OBJECTS, an object a line: by the suffix, or of a .json by its first two lines; ARRAY of objects, of a .json; ""
    for any other text."""
    if path.suffix.lower() in LINES:
        return OBJECTS
    if path.suffix.lower() != ".json":
        return ""
    with open_file(path) as file:
        begin = file.read(BLOCK_BYTES)
    lines = [line for line in begin.split(b"\n", 3)[:3] if line.strip()][:2]
    try:
        if len(lines) == 2 and all(isinstance(parse_json(line), dict) for line in lines):
            return OBJECTS
    except ValueError:
        pass
    return ARRAY if re.match(rb"\s*\[\s*\{", begin) else ""


def no_field(path: Path) -> str:
    """DataError for a .jsonl without a named text field; the message has the fields of its first line."""
    first = _first(path)
    texts = [key for key, value in first.items() if isinstance(value, str)]
    lists = [key for key, value in first.items() if isinstance(value, list)]
    name = "text" if "text" in texts or not texts else texts[0]
    chats = f'[data] messages = "{lists[0]}" reads conversations there; ' if lists else ""
    raise DataError(
        f"{path}: a line of JSON for each document, and no field of them is named"
        + (f"; the first line has {', '.join(map(repr, [*texts, *lists][:8]))}" if first else ""),
        hint=f'{chats}[data] field = "{name}" reads the texts there (--field {name}); as plain text, call it .txt',
    )


def lines_of(path: Path, field: str, notes: list[str]) -> Iterator[str]:
    """The texts of a .jsonl, one a line. DataError names the line that has none."""
    for place, value in _records(path, notes):
        text = value.get(field) if isinstance(value, dict) else None
        if not isinstance(text, str):
            raise missing_field(place, field, "a text", value, "[data] field (--field) names the field of the texts")
        yield text


def missing_field(place: str, field: str, kind: str, value: Any, hint: str) -> DataError:
    """The error for a record without `kind` in its field."""
    keys = list(value) if isinstance(value, dict) else []
    return DataError(
        f'{place}: expected an object with {kind} in "{field}", got {json.dumps(value, default=str):.80}'
        f"{did_you_mean(field, keys)}",
        hint=hint,
    )


def _records(path: Path, notes: list[str]) -> Iterator[tuple[str, Any]]:
    """(file:line, value) of every line that is not empty."""
    number = 0
    for block in _whole_lines(path, notes):
        for line in block.split("\n"):
            number += 1
            if not line.strip():
                continue
            try:
                value = parse_json(line)
            except ValueError as error:
                raise DataError(
                    f"{path}:{number}: not a line of JSON: {error}", hint="correct it, or remove it"
                ) from None
            yield f"{path}:{number}", value


def _whole_lines(path: Path, notes: list[str]) -> Iterator[str]:
    """Blocks of a text that end with a line, without the last line's end."""
    rest = ""
    for block in read_blocks(path, notes):
        lines, newline, last = (rest + block).rpartition("\n")
        if newline:
            yield lines
        rest = last
    if rest:
        yield rest
