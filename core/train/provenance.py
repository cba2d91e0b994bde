"""The provenance of a run's numbers, without its config and data: sources of its code, versions, the device.

Each checkpoint records it, and a resumed run reports the changes since then. It decides nothing.
"""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import core
from core.op import Variant
from core.registry import Registry
from core.train.run import commit
from core.variant_sources import sources_of

PACKAGES = (
    "numpy",
    "cuda-python",
    "cuda-bindings",
    "nvidia-cuda-nvrtc",
    "nvidia-cuda-nvrtc-cu12",
    "nvidia-cublas",
)  # that numbers depend on
SHORT = 12  # hexadecimal digits of a hash that is for comparing two runs


def made_with(
    registry: Registry, variants: Iterable[Variant], others: Iterable[Any], device: Mapping[str, str]
) -> dict[str, str]:
    """Name -> version or hash: `corelm`, `python`, packages, dependencies of the `device`, each plugin, and each source
    file of `variants`, with their ops and references, and of the objects `others` (optimizer, schedule)."""
    versions = {"corelm": core.__version__, "commit": commit() or "unknown", "python": platform.python_version()}
    versions |= {name: version for name in PACKAGES if (version := _version(name))}
    versions |= device
    versions |= {f"plugin {r.name}": r.version or "no version" for r in registry.plugins if r.brings_any}
    paths = {path for variant in variants for path in sources_of(variant, registry)}
    paths |= {path for each in others for path in _file_of(each)}
    for path in sorted(paths):
        name = f"source {path.parent.name}/{path.name}"
        contents = path.read_bytes()
        versions[name] = hashlib.sha256(versions.get(name, "").encode() + contents).hexdigest()[:SHORT]
    return versions


def machine_changes(before: Mapping[str, str], now: Mapping[str, str], device: Iterable[str]) -> list[str]:
    """Names of a device's dependencies, and NumPy, that are recorded in both and differ."""
    names = [name for name in ("numpy", *device) if name in before and name in now]
    return [name for name in names if before[name] != now[name]]


def _file_of(thing: Any) -> Iterator[Path]:
    """The source file of an object's class."""
    file = getattr(sys.modules.get(type(thing).__module__), "__file__", None)
    if file is not None and Path(file).is_file():
        yield Path(file)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
