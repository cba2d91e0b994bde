"""The core's own lenses, in the order of their tabs; those of plugins follow them.

A view that is not opened costs nothing: a module is imported when its lens is used, and `core train` imports none.
"""

from __future__ import annotations

from importlib import import_module

from core.lens import Lens

# module -> its class, in the order of the tabs (keys 1 to 9); the name of a lens is its module's
RESIDENT = {
    "step": "StepLens",
    "texts": "TextLens",
    "health": "HealthLens",
    "curves": "CurvesLens",
    "memory": "MemoryLens",
    "time": "TimeLens",
    "kernel": "KernelLens",
    "trust": "TrustLens",
    "crashes": "CrashLens",
    "about": "AboutLens",
}


def core_lenses() -> list[type[Lens]]:
    """The resident lenses, as the hook of a plugin gives its own."""
    return [getattr(import_module(f"{__name__}.{module}"), name) for module, name in RESIDENT.items()]
