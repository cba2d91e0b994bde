"""The table of the core's own readers of data."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import ClassVar

from core.data.documents import Reading
from core.data.inputs import Inputs
from core.data.magics import FILES
from core.data.shards import open_shard, verify_shard
from core.data_reader import DataReader

JSON = (".json", ".jsonl", ".ndjson")


class TextReader(DataReader):
    """A file is a document, or holds several with a separator between them. Any file that no other reader takes."""

    name = "text"

    def recognise(self, path: Path, head: bytes) -> bool:
        return not path.is_dir()

    def read(self, source: str, part: str, reading: Reading, notes: list[str]) -> Inputs:
        from core.data.text_files import text_document

        path = Path(source)
        if _json_form(path) == "array":
            notes.append(f"{path}: an array of JSON objects is read as plain text; jq -c '.[]' makes a .jsonl of it")
        return Inputs(documents=[text_document(path, notes, reading)])


class LinesReader(DataReader):
    """A JSON object a line, each a document, with the text in a field, or a conversation."""

    name = "jsonl"

    def recognise(self, path: Path, head: bytes) -> bool:
        return _json_form(path) == "lines"

    def read(self, source: str, part: str, reading: Reading, notes: list[str]) -> Inputs:
        from core.data.json_lines import lines_of_reading

        return lines_of_reading(Path(source), notes, reading)


class ShardReader(DataReader):
    """Token shards: by name (a folder named x.bin too, which is then refused as a shard) or header."""

    name, in_folders, kind = "shards", False, "token shards"

    def recognise(self, path: Path, head: bytes) -> bool:
        return path.suffix == ".bin" or (len(head) >= 4 and int.from_bytes(head[:4], "little") in FILES)

    def read(self, source: str, part: str, reading: Reading, notes: list[str]) -> Inputs:
        shard = open_shard(Path(source))
        verify_shard(shard.path)
        return Inputs(shards=[shard])


class ParquetReader(DataReader):
    """A Parquet file: a row is a document or a conversation."""

    name, module = "parquet", "core.data.parquet"
    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)

    def recognise(self, path: Path, head: bytes) -> bool:
        return path.suffix in self.suffixes and bool(head)

    def read(self, source: str, part: str, reading: Reading, notes: list[str]) -> Inputs:
        inputs: Inputs = import_module(self.module).inputs_of(Path(source), reading)
        return inputs


class ArrayReader(ParquetReader):
    """Arrays by row: a .npy file, or the tensors of a .safetensors file by the names of the inputs."""

    name, module, in_folders, kind = "arrays", "core.data.array_files", False, "arrays"
    suffixes = (".npy", ".safetensors")


class BuiltinReader(DataReader):
    """The documentation that comes with Python."""

    name, files = "builtin", False

    def read(self, source: str, part: str, reading: Reading, notes: list[str]) -> Inputs:
        from core.data.builtin import builtin_documents

        return Inputs(documents=builtin_documents(part))


def _json_form(path: Path) -> str:
    """The layout of JSON in a file: "lines", "array", or "" for any other file."""
    if path.suffix.lower() not in JSON or not path.is_file():
        return ""
    from core.data.json_lines import json_form

    return json_form(path)


READERS = (
    TextReader,
    LinesReader,
    ParquetReader,
    ArrayReader,
    ShardReader,
    BuiltinReader,
)  # tried from the last to the first


@functools.cache
def own_readers() -> Mapping[str, DataReader]:
    """The rows by name: those of a registry without a plugin's readers."""
    return {cls.name: cls() for cls in READERS}
