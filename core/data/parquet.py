"""Documents and conversations in Parquet files, read by row group with pyarrow, an extra."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.data.documents import Document, Reading
from core.data.inputs import Inputs
from core.data.marks import Conversations
from core.data.text_files import size_and_digest
from core.errors import DataError, UsageError, did_you_mean, words_of
from core.outside import reads

ROWS = 1024  # of a batch that is in memory


def inputs_of(path: Path, reading: Reading) -> Inputs:
    """A file with a document or a conversation a row. DataError where `reading` names no column of it."""
    with reads(DataError, path):
        size, digest = size_and_digest(path)
    columns = _opened(path).schema_arrow.names
    if reading.messages and reading.messages in columns:
        name, read = reading.messages, lambda: _values(path, reading.messages)
        return Inputs(conversations=[Conversations(str(path), size, f"{digest} {name}", read)])
    field = reading.field
    if field not in columns:
        missing = f'there is no column "{field}"{did_you_mean(field, columns)}' if field else "no column is named"
        raise DataError(
            f"{path}: a row for each document, and {missing}; it has {', '.join(columns[:12])}",
            hint='[data] field = "COLUMN" reads texts, messages = "COLUMN" conversations',
        )
    return Inputs(documents=[Document(str(path), size, f"{digest} {field}", lambda: _texts(path, field), each=True)])


def _texts(path: Path, field: str) -> Iterator[str]:
    for place, value in _values(path, field):
        if not isinstance(value, str):
            raise DataError(
                f'{place}: expected a text in "{field}", got {"no value" if value is None else type(value).__name__}',
                hint="[data] field names the column of the texts",
            )
        yield value


def _values(path: Path, column: str) -> Iterator[tuple[str, Any]]:
    """(file, row N) and the value of a column in each row."""
    number = 0
    with _damage(path):
        for batch in _opened(path).iter_batches(batch_size=ROWS, columns=[column]):
            for value in batch.column(0).to_pylist():
                yield f"{path}, row {number}", value
                number += 1


def _opened(path: Path) -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise UsageError(
            f"{path}: Parquet files need the library pyarrow", hint='pip install "corelm[parquet]", or use .jsonl'
        ) from None
    with _damage(path):
        return parquet.ParquetFile(path)


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    """An error of pyarrow as a DataError."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: damaged, or no Parquet file: {words_of(error)}", hint="fetch it again") from None
