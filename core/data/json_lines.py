"""Documents in JSON lines: an object per line, with the text in the field that `[data] field` names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from core.data.documents import Document, Reading
from core.data.text_blocks import BLOCK_BYTES, read_blocks
from core.data.text_files import size_and_digest
from core.errors import DataError, did_you_mean
from core.outside import open_file, parse_json, reads

LINES = (".jsonl", ".ndjson")
OBJECTS, ARRAY = "lines", "array"  # how JSON holds records


def lines_document(path: Path, notes: list[str], reading: Reading) -> Document:
    """A file with an object a line, each a document. DataError where `reading` names no field."""
    with reads(DataError, path):
        size, digest = size_and_digest(path)
        field = reading.field or no_field(path)
        return Document(str(path), size, f"{digest} {field}", lambda: lines_of(path, field, notes), each=True)


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
    try:
        with open_file(path) as file:
            first = parse_json(file.readline(BLOCK_BYTES))
        texts = [key for key, value in first.items() if isinstance(value, str)]
    except (ValueError, AttributeError):
        texts = []
    name = "text" if "text" in texts or not texts else texts[0]
    raise DataError(
        f"{path}: a line of JSON for each document, and no field of them is named"
        + (f"; the first line has {', '.join(map(repr, texts[:8]))}" if texts else ""),
        hint=f'[data] field = "{name}" reads the texts there (--field {name}); as plain text, call the file .txt',
    )


def lines_of(path: Path, field: str, notes: list[str]) -> Iterator[str]:
    """The texts of a .jsonl, one a line. DataError names the line that has none."""
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
                    f"{path}:{number}: not a line of JSON: {error}", hint="mend it, or take it out"
                ) from None
            text = value.get(field) if isinstance(value, dict) else None
            if not isinstance(text, str):
                keys = list(value) if isinstance(value, dict) else []
                raise DataError(
                    f'{path}:{number}: expected an object with a text in "{field}", got {json.dumps(value):.80}'
                    f"{did_you_mean(field, keys)}",
                    hint="[data] field (--field) names the field of the texts",
                )
            yield text


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
