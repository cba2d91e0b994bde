"""Builds the stub of the driver, tests/stub_driver.c, with the limits of core/kernels/chips.py."""

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
    command = [str(COMPILER), *flags, "-o", str(made), str(HERE / "stub_driver.c")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the stub of the driver does not compile:\n{done.stderr}")
    return made
