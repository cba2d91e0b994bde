"""The simulator's machine in caches that begin empty: it takes a compiler a quarter of a minute, so once for all."""

from __future__ import annotations

import shutil
from pathlib import Path

from core.cache import cache_folder
from core.sim.native.toolchain import compiler, machine


def link(cache: Path) -> Path:
    """Make a cache folder that has the machine, and translated kernels, in common with the other tests."""
    shared = cache_folder() / "machine"
    shared.mkdir(parents=True, exist_ok=True)
    cache.mkdir()
    (cache / "machine").symlink_to(shared, target_is_directory=True)
    return cache


def put(cache: Path) -> None:
    """Copy what was compiled for this computer into an empty cache folder; without a C compiler there is nothing."""
    if compiler() is not None:
        machine()
        (cache / "machine").mkdir(parents=True)
        for library in (cache_folder() / "machine").glob("*.so"):
            shutil.copy(library, cache / "machine")
