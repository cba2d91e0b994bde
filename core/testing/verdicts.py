"""What the op check said about a variant, kept by where it ran and the hash of everything that its result depends on.

A run on a GPU has the word of that GPU, else the simulator's, which is less: timing and memory order are not in it. A
run prints whether its variants are checked and refuses one that failed; a changed source is simply unchecked again.
A store that is damaged or cannot be written is as good as an empty one: verdicts are a convenience, never a truth.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from core.device.nvrtc import prelude_file, with_headers
from core.op import Variant
from core.registry import REFERENCE, Registry

PASSED, FAILED = "passed", "failed"
SIMULATOR = "sim"
KIT = 2  # raised when the sub-checks ask for more than before, so that old verdicts are void
OLDEST = 2000  # verdicts that are kept; the oldest go first


@dataclass(frozen=True)
class Verdict:
    """What was said of a variant, and where it ran then: "cpu", "sim", or a chip."""

    passed: bool
    where: str

    def __str__(self) -> str:
        said = "checked" if self.passed else "failed"
        return said if self.where != SIMULATOR else f"{said} in the simulator"


class Verdicts:
    """A store of verdicts on the variants of `registry`, in one JSON file."""

    def __init__(self, path: Path, registry: Registry) -> None:
        self.path = path
        self.registry = registry
        self._held: dict[str, str] | None = None

    def lookup(self, variant: Variant, where: str) -> Verdict | None:
        """What was said of a variant as it is now, at `place_of` a device, else in the simulator; None for nothing."""
        if self._held is None:
            self._held = self._read()
        for place in dict.fromkeys((where, SIMULATOR if variant.device == "cuda" else where)):
            found = self._held.get(key_of(variant, self.registry, place))
            if found is not None:
                return Verdict(found == PASSED, place)
        return None

    def keep(self, variant: Variant, passed: bool, where: str) -> None:
        """Remember a verdict. Another process may do the same at the same time: the file is replaced whole."""
        held = self._read()
        key = key_of(variant, self.registry, where)
        held.pop(key, None)
        held[key] = PASSED if passed else FAILED
        self._held = held = dict(list(held.items())[-OLDEST:])
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(held, file, indent=1)
            os.replace(name, self.path)

    def _read(self) -> dict[str, str]:
        try:
            held = json.loads(self.path.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(held, dict):
            return {}
        return {str(k): v for k, v in held.items() if v in (PASSED, FAILED)}


def place_of(device: Any) -> str:
    """Where a check on an open device ran: its chip, or its name where it has none."""
    return f"{device.model}, {device.arch}" if hasattr(device, "model") else str(device.name)


def key_of(variant: Variant, registry: Registry, where: str) -> str:
    """A hash of the place, of the sources of the variant and of what it is held to, of NumPy's version and ours."""
    digest = hashlib.sha256(f"{KIT} {np.__version__} {variant.op}.{variant.name} {where}".encode())
    for path in sorted(sources_of(variant, registry)):
        digest.update(path.name.encode() + b"\0" + _contents(path))
    return digest.hexdigest()


def sources_of(variant: Variant, registry: Registry) -> set[Path]:
    """The files that a verdict depends on: of the op and those that it replaces, of the variant and of the
    references, what these import from their plugins, and the kernels."""
    op = registry.op(variant.op)
    ops = [op, *(registry.op(s.op) for s in op.statements)]
    held_to = [registry.variants.get(o.name, {}).get(REFERENCE) for o in ops]
    kinds = [kind for v in (variant, *held_to) if v is not None for kind in type(v).__mro__]
    start = [sys.modules.get(kind.__module__) for kind in kinds]
    kernels = {path for paths in variant.sources.values() for path in paths}
    paths = {Path(o.where.rpartition(":")[0]) for o in ops}
    paths |= {path for kernel in kernels for path in with_headers(kernel)}
    paths |= {Path(str(m.__file__)) for m in _reachable([m for m in start if m is not None])}
    if variant.sources:
        paths.add(prelude_file())
    return {p for p in paths if p.is_file()}


def _reachable(start: list[ModuleType]) -> Iterator[ModuleType]:
    """Modules of the plugins in `start`, and those of the same plugins that they use."""
    seen: set[str] = set()
    waiting = [m for m in start if _plugin(m.__name__)]
    homes = {_plugin(m.__name__) for m in waiting}
    while waiting:
        module = waiting.pop()
        if module.__name__ in seen or not getattr(module, "__file__", None):
            continue
        seen.add(module.__name__)
        yield module
        for value in list(vars(module).values()):
            name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            found = sys.modules.get(name) if isinstance(name, str) else None
            if found is not None and _plugin(found.__name__) in homes:
                waiting.append(found)


def _plugin(module: str) -> str:
    """The plugin's package that a module belongs to; "" for the engine itself and for everything foreign to it."""
    parts = module.split(".")
    if parts[0] != "core":
        return parts[0] if parts[0] not in sys.stdlib_module_names | {"numpy"} else ""
    if len(parts) > 1 and parts[1] == "ops":
        return "core.ops"
    return ".".join(parts[:3]) if len(parts) > 2 and parts[1] == "plugins" else ""


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
