"""The page of one launch of a kernel of any file, as `core sim --view` writes it: the Kernel lens without a variant."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.device.launch import LaunchRecord
from core.kernels.nvrtc import Kernel
from core.outputs import write_target
from core.sim.faults import KernelError
from core.sim.launching.launch_report import Report
from core.sim.standalone import KernelFile
from core.view.lenses.kernel import MOST, KernelLens, error_words, fault, taped_blocks
from core.view.page import View, page_of
from core.view.taped_launch import TapedLaunch

Sizes = tuple[int, ...]


def view_of_launch(
    loaded: KernelFile, file: Path, kernel: str, grid: Sizes, block: Sizes, args: Sequence[Any], smem: int,
    cluster: int, error: KernelError | None,
) -> View:  # fmt: skip
    """Run a kernel once more, taped, and look at that launch.

    grid, block: one to three sizes. args: as of `KernelFile.run`. error: of an earlier run with the same arguments,
    shown at its accesses.
    """
    whole = _three(grid), _three(block)
    record = LaunchRecord(Kernel(file.resolve(), kernel), (), *whole, smem, cluster, method="launch", line=file.name)
    accesses = error.accesses if error is not None else ()
    blocks = taped_blocks(math.prod(whole[0]), accesses)
    try:
        report = loaded.run(kernel, grid, block, args, smem, cluster, strict=False, count=True, tape=blocks)
    except KernelError as stopped:
        if stopped.tape is None:
            raise
        error, accesses = error or stopped, accesses or stopped.accesses
        report = Report(kernel, whole[0], whole[1], tape=stopped.tape)
    assert report.tape is not None
    launch = TapedLaunch(record, report.tape, report.counts, MOST).as_json()
    launch["faults"] = [fault(access, launch) for access in accesses]
    shown = {
        "name": kernel, "dtype": "", "example": "", "others": "", "launches": [launch],
        "error": None if error is None else error_words(error, record),
    }  # fmt: skip
    command = f"core sim {file.name} {shlex.quote(kernel)} ... --view -"
    return View(KernelLens(), command, {"kernels": [shown], "warp": 0}, own=True)


def write_page(view: View, title: str, out: Path) -> None:
    """The page of that view alone. Raises UsageError for a file that cannot be written."""
    write_target(out, page_of([view], title).encode(), "--view")


def _three(sizes: Sizes) -> tuple[int, int, int]:
    x, y, z = (*sizes, 1, 1)[:3]
    return x, y, z
