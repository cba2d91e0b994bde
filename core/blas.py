"""The BLAS library that NumPy multiplies with: its name, and its own threads, which are kept at one while a step runs.

A library splits a product by the number of its threads, and the last bits of the product depend on the split. So
core.products cuts products instead, into pieces that follow from shapes alone.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController


@functools.cache
def libraries() -> tuple[Any, ...]:
    """threadpoolctl's controllers of NumPy's BLAS; empty where it knows none (Accelerate).

    Libraries that came with other packages (SciPy's) are left out where NumPy brought its own.
    """
    controllers = tuple(ThreadpoolController().select(user_api="blas").lib_controllers)
    home = Path(np.__file__).resolve().parent
    own = tuple(
        lib for lib in controllers if {home, home.with_name("numpy.libs")} & set(Path(lib.filepath).resolve().parents)
    )
    return own or controllers


def describe() -> str:
    """Name, version, and the kind of core that its kernels are for: `openblas 0.3.31 SkylakeX`."""
    infos = [lib.info() for lib in libraries()]
    if infos:
        keys = ("internal_api", "version", "architecture")
        return ", ".join(" ".join(str(info[key]) for key in keys if info.get(key)) for info in infos)
    built: Any = np.show_config(mode="dicts")
    library = built.get("Build Dependencies", {}).get("blas", {})
    return f"{library.get('name', 'unknown')} {library.get('version', '')}".strip()


def controlled() -> bool:
    """Whether the number of its threads can be set."""
    return bool(libraries())


def limit_this_thread() -> None:
    """One thread for this thread's products: libraries on OpenMP keep a number for each calling thread."""
    for lib in libraries():
        if lib.info().get("threading_layer") == "openmp":
            lib.set_num_threads(1)


class _Limit:
    """The number of blocks that limit BLAS to one thread now, and the libraries' thread counts before the first of
    them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.depth = 0
        self.before: list[int] = []

    def enter(self) -> None:
        with self.lock:
            if self.depth == 0:
                self.before = [lib.get_num_threads() for lib in libraries()]
                for lib in libraries():
                    lib.set_num_threads(1)
            self.depth += 1

    def leave(self) -> None:
        with self.lock:
            self.depth -= 1
            if self.depth == 0:
                for lib, threads in zip(libraries(), self.before, strict=True):
                    lib.set_num_threads(threads)


_LIMIT = _Limit()


@contextmanager
def one_thread() -> Iterator[None]:
    """BLAS takes one thread inside, and as many as before outside: a notebook's own products are as fast as ever."""
    _LIMIT.enter()
    try:
        yield
    finally:
        _LIMIT.leave()
