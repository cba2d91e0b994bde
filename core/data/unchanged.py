"""The look at files that a run reads, once an epoch: each must be the file that it was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.data.digests import file_digests, mark_of
from core.errors import DataError
from core.outside import reads


def check_shards(pieces: Sequence[Any], marks: dict[int, list[int]], sha256: dict[int, str]) -> None:
    """DataError where a shard is another file than at its first reading. marks, sha256: of that, by piece number."""
    for number, mark in list(marks.items()):
        marks[number] = same_file(pieces[number].path, mark, sha256[number])


def same_file(path: Path, mark: list[int], sha256: str) -> list[int]:
    """The mark of a file that has the contents of `mark` and `sha256`. DataError for other contents."""
    with reads(DataError, path):
        if mark_of(path) == mark:
            return mark
        same = file_digests(path).sha256 == sha256
    if not same:
        from core.data.data_faults import changed

        raise changed(path)
    return mark_of(path)
