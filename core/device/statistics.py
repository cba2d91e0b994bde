"""Statistics of tensors by a kernel, on a GPU and in the simulator: the rows of core.device.measured."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from core.device.launch import LaunchRecord
from core.device.measured import VALUES, MeasuredTensor, elements, three
from core.dtypes import NARROW
from core.expr import cdiv
from core.kernels.nvrtc import Kernel
from core.kernels.tensors import DeviceTensor

SOURCE = Path(__file__).with_name("statistics.cu")
THREADS = 256  # of a thread block; as in statistics.cu
EACH = 4096  # elements of a thread block, of a tensor that needs fewer than THREADS of them
ROW = 8 * len(VALUES)  # bytes
TYPES = ("f32", *NARROW)  # of a tensor, by the numbers in `ENTRY`
ENTRY = np.dtype(
    [("data", "u8"), ("before", "u8"), ("sizes", "u8", 3), ("strides", "u8", 2), ("type", "u4"), ("first", "u4"),
     ("blocks", "u4"), ("unused", "u4")]
)  # fmt: skip


def workspace_bytes(shapes: Sequence[Sequence[int]]) -> int:
    """Bytes that the launch over tensors of these shapes needs in addition to its rows."""
    return _layout(shapes)[-1]


def statistics(
    measured: Sequence[MeasuredTensor], out: DeviceTensor, workspace: DeviceTensor
) -> tuple[LaunchRecord, Any]:
    """(the launch, the bytes that must be at the start of `workspace` before it runs).

    out: (len(measured), 8) f64. workspace: `workspace_bytes` of u8 without another writer, zero after those bytes.
    """
    blocks = [_blocks(m.shape) for m in measured]
    entries = np.zeros(len(measured), ENTRY)
    for index, (m, count, end) in enumerate(zip(measured, blocks, accumulate(blocks), strict=True)):
        before = 0 if m.before is None else m.before.pointer
        entries[index] = (m.tensor.pointer, before, *three(m.shape), TYPES.index(m.tensor.dtype), end - count, count, 0)
    counters, partials, _ = _layout([m.shape for m in measured])
    args = (
        workspace.part(0, (entries.nbytes,)),
        workspace.part(partials, (sum(blocks), len(VALUES)), "f64"),
        workspace.part(counters, (len(measured),), "u32"),
        out,
    )
    grid = (max(blocks), len(measured), 1)
    kernel = Kernel(SOURCE, "statistics", (), "device")
    record = LaunchRecord(kernel, args, grid, (THREADS, 1, 1), method="statistics", line=SOURCE.name)
    return record, entries.view(np.uint8)


def _layout(shapes: Sequence[Sequence[int]]) -> tuple[int, int, int]:
    """The offsets of the workspace's counters and partial sums after its entries, and its bytes in all."""
    counters = ENTRY.itemsize * len(shapes)
    partials = cdiv(counters + 4 * len(shapes), 8) * 8
    return counters, partials, partials + ROW * sum(map(_blocks, shapes))


def _blocks(shape: Sequence[int]) -> int:
    return min(THREADS, max(1, cdiv(elements(shape), EACH)))
