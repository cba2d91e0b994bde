"""Builds the stubs of the driver, tests/stub_driver.c, with the limits of core/kernels/chips.py, and of NCCL."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from core.kernels.chips import CHIPS

HERE = Path(__file__).parent
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def build(folder: Path) -> Path:
    """libcuda.so.1 in `folder`: found there through LD_LIBRARY_PATH, or by loading it before anything asks for it."""
    made = folder / "libcuda.so.1"
    rows = ",".join(
        f"{{{c.number},{c.sm_shared},{c.shared},{c.sm_threads},{c.sm_blocks},{c.cluster}}}" for c in CHIPS.values()
    )
    flags = ["-O1", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", f"-DCHIPS={rows}"]
    return _compile(made, "stub_driver.c", flags)


def build_nccl(folder: Path) -> Path:
    """libnccl.so.2 in `folder`, for a process that loads it before it asks for NCCL: LD_PRELOAD."""
    return _compile(folder / "libnccl.so.2", "stub_nccl.c", ["-O1", "-shared", "-fPIC", "-Wl,-soname,libnccl.so.2"])


def _compile(made: Path, source: str, flags: list[str]) -> Path:
    command = [str(COMPILER), *flags, "-o", str(made), str(HERE / source)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{source} does not compile:\n{done.stderr}")
    return made
