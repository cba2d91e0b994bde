"""Other programs' files of a header and plain numbers: magic numbers, arrays at an offset, names in order."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from core.checkpoint.tensor_file import CHANGED
from core.errors import CheckpointError
from core.interop.fitting import Array, name_pattern
from core.outside import open_file, read_array, reads


def read_head(path: Path, count: int) -> tuple[bytes, int]:
    """A file's first `count` bytes, or all of a shorter one, and its size. CheckpointError where it cannot be read."""
    with reads(CheckpointError, path), open_file(path) as file:
        return file.read(count), path.stat().st_size


def read_numbers(path: Path, dtype: DTypeLike, offset: int, shape: tuple[int, ...]) -> Array:
    """The array (n, ...) of `shape` and `dtype` that begins at byte `offset`.

    CheckpointError where the file was changed or removed meanwhile.
    """
    try:
        return read_array(path, np.dtype(dtype), offset, shape)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}", hint=CHANGED) from None


def named_by(template: str, names: Iterable[str]) -> list[str]:
    """The names that a template such as `h.{i}.qkv.weight` stands for, in the order of their numbers."""
    pattern = name_pattern(template)
    matches = [(m, name) for name in names if (m := pattern.fullmatch(name))]
    return [name for _, name in sorted(matches, key=lambda match: [int(number) for number in match[0].groups()])]
