"""Arrays in files, by row: .npy, and tensors of .safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from core.checkpoint.tensor_file import TensorFile
from core.data.array_source import UNNAMED, ArrayRows, FileRows
from core.data.documents import Reading
from core.data.inputs import Inputs
from core.errors import CheckpointError, DataError
from core.outside import reads


def inputs_of(path: Path, reading: Reading) -> Inputs:
    """The arrays of a file. DataError for a damaged one."""
    return Inputs(arrays=arrays_in(path))


def arrays_in(path: Path) -> dict[str, list[ArrayRows]]:
    """Input -> its array, (rows, ...); of a .npy file, UNNAMED. DataError for a damaged file."""
    if path.suffix == ".npy":
        return {UNNAMED: [npy_rows(path)]}
    try:
        file = TensorFile(path)
    except CheckpointError as error:
        raise DataError(error.message, hint="write it again") from None
    if not len(file):
        raise DataError(f"{path}: the file has no tensors", hint="leave it out")
    arrays: dict[str, list[ArrayRows]] = {}
    for name in file:
        stored, start, shape, widen = file.place(name)
        arrays[name] = [FileRows(path, f"{path.name}:{name}", stored, start, shape, widen)]
    return arrays


def npy_rows(path: Path) -> FileRows:
    """The array of a .npy file. Nothing is unpickled."""
    try:
        with reads(DataError, path):
            array: Any = np.load(path, mmap_mode="r", allow_pickle=False)
            offset, shape, dtype = int(array.offset), tuple(array.shape), array.dtype
            ordered = array.flags.c_contiguous
            del array
    except ValueError as error:
        raise DataError(f"{path}: not a .npy file of numbers: {error}", hint="write it with numpy.save") from None
    if not ordered:
        raise DataError(
            f"{path}: its array is in Fortran order; expected C order, in which rows follow one another",
            hint="numpy.save(PATH, numpy.ascontiguousarray(array))",
        )
    return FileRows(path, path.name, dtype, offset, shape, native)


def native(array: Any) -> Any:
    """An array in the machine's byte order."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)
