"""The simulator's machine in caches that begin empty: it takes a compiler a quarter of a minute, so once for all."""

from __future__ import annotations

import shutil
from pathlib import Path

from core.cache import cache_folder
from core.sim.native.toolchain import compiler, machine


def put(cache: Path) -> None:
    """Copy what was compiled for this computer into an empty cache folder; without a C compiler there is nothing."""
    if compiler() is not None:
        machine()
        (cache / "machine").mkdir(parents=True)
        for library in (cache_folder() / "machine").glob("*.so"):
            shutil.copy(library, cache / "machine")
