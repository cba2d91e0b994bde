"""The simulator is a room of its own: with core/kernels and twelve small modules it runs kernels by itself."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

CORE = Path(__file__).parents[2] / "core"
ROOMS = ("sim", "kernels", "cache")
LEAVES = (
    "atomic_files",
    "dtypes",
    "errors",
    "expr",
    "files",
    "lazy",
    "outside",
    "processor",
    "scalars",
    "signals",
    "threads",
    "variables",
)
KERNEL = """
import sys
import numpy as np
import core.sim

SOURCE = '''
extern "C" __global__ void twice(float* y, const float* x, int n) {
    int i = global_thread();
    if (i < n) y[i] = 2 * x[i];
}
'''
x, y = np.arange(40, dtype=np.float32), np.zeros(40, np.float32)
core.sim.run(SOURCE, "twice", 2, 32, [y, x, np.int32(40)], strict=True, prelude=True)
assert (y == 2 * x).all()
report = core.sim.run(SOURCE, "twice", 2, 32, [y, x, np.int32(40)], strict=False, count=True, prelude=True)
loaded = {name.split(".")[1] for name in sys.modules if name.startswith("core.")}
print(core.__path__[0], report.counts.total.requests, *sorted(loaded))
"""


def test_the_simulator_runs_a_kernel_in_a_package_that_has_nothing_of_the_trainer(tmp_path: Path) -> None:
    package = tmp_path / "core"
    for room in ROOMS:
        shutil.copytree(CORE / room, package / room, ignore=shutil.ignore_patterns("__pycache__"))
    for leaf in LEAVES:
        shutil.copy(CORE / f"{leaf}.py", package)
    (package / "__init__.py").touch()
    done = subprocess.run([sys.executable, "-c", KERNEL], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    path, requests, *loaded = done.stdout.split()
    assert Path(path) == package, "the copy, not the checkout"
    assert requests == "4"  # two warps, of which each reads and writes
    assert set(loaded) == {*ROOMS, *LEAVES}, "no leaf that is not needed"
