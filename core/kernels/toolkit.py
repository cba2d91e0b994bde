"""The places of CUDA's own headers and of nvcc on this machine: a toolkit, or NVIDIA's packages. Both may be absent.

Kernels of corelm include nothing. Other people's kernels may include CUDA's headers, which come with no GPU driver; C's
standard headers are stubs of our own (stubs/), since NVRTC brings none.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

STUBS = Path(__file__).with_name("stubs")
VARIABLES = ("CUDA_HOME", "CUDA_PATH")  # of CUDA's own installers
USUAL = Path("/usr/local/cuda")
PACKAGES = ("nvidia-cuda-runtime", "nvidia-cuda-crt", "nvidia-cuda-cccl", "nvidia-cuda-nvcc")
MARKS = ("cuda_runtime.h", "crt/host_config.h", "cuda/std/cstdint")  # a file of each folder of headers
VERSION = re.compile(r"#define\s+CUDART_VERSION\s+(\d+)")
EXTRA = 'pip install "corelm[headers]", or CUDA_HOME=... for the folder of a toolkit'


@dataclass(frozen=True)
class Toolkit:
    """include: folders of headers, () where there are none. version: CUDA's, such as 13000. nvcc: the program."""

    include: tuple[Path, ...] = ()
    version: str = ""
    nvcc: Path | None = None


@cache
def toolkit() -> Toolkit:
    """CUDA_HOME or CUDA_PATH; else the folder of the nvcc on PATH; else /usr/local/cuda; else NVIDIA's packages."""
    include = next((folders for root in _roots() if (folders := _headers(root))), ()) or _packaged()
    version = _version(include[0]) if include else ""
    return Toolkit(include, version, _nvcc())


def _roots() -> Iterator[Path]:
    yield from (Path(os.environ[name]) for name in VARIABLES if os.environ.get(name))
    if program := shutil.which("nvcc"):
        yield Path(program).resolve().parents[1]
    yield USUAL


def _headers(root: Path) -> tuple[Path, ...]:
    """The folders of a toolkit's headers: its own, and that of CCCL (cuda/std, cub)."""
    include = root / "include"
    if not (include / MARKS[0]).is_file():
        return ()
    return tuple(folder for folder in (include, include / "cccl") if folder.is_dir())


def _packaged() -> tuple[Path, ...]:
    """The folders of the headers that packages of PyPI brought."""
    unique: dict[Path, None] = {}
    for path in _package_files():
        for mark in MARKS:
            if path.as_posix().endswith(f"/{mark}"):
                unique[path.parents[mark.count("/")]] = None
    folders = tuple(unique)
    return folders if any((folder / MARKS[0]).is_file() for folder in folders) else ()


def _package_files() -> Iterator[Path]:
    for package in PACKAGES:
        for name in (package, f"{package}-cu12"):
            try:
                listed = files(name) or ()
            except PackageNotFoundError:
                continue
            wanted = (f for f in listed if f.as_posix().endswith((*MARKS, "bin/nvcc", "bin/nvcc.exe")))
            yield from (Path(str(f.locate())) for f in wanted)


def _nvcc() -> Path | None:
    for root in _roots():
        for name in ("nvcc", "nvcc.exe"):
            if (root / "bin" / name).is_file():
                return root / "bin" / name
    return next((path for path in _package_files() if path.stem == "nvcc"), None)


def _version(folder: Path) -> str:
    try:
        match = VERSION.search((folder / "cuda_runtime_api.h").read_text("utf-8", "replace"))
    except OSError:
        return ""
    return match[1] if match else ""


def include_folders() -> tuple[Path, ...]:
    """The folders of `#include <...>` after those of the file: CUDA's headers, then the stubs of C's."""
    own = toolkit().include
    return (*own, STUBS) if own else (STUBS, STUBS / "cuda")
