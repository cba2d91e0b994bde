"""Names to ops, variants, models, optimizers and schedules, each with the plugin that brought it.

A registry is built whole from the plugins' contributions. It imports no plugin and chooses no variant.
"""

from __future__ import annotations

from core.registry.building import Building, build
from core.registry.contribution import (
    BROKEN,
    DISABLED,
    LOADED,
    Contribution,
    CourseFile,
    ModelFile,
    PluginRecord,
    Rejected,
)
from core.registry.fields import LAUNCHERS, check_variant
from core.registry.lookup import REFERENCE, Registry
from core.registry.places import place_of_class, shorten

__all__ = [
    "BROKEN",
    "DISABLED",
    "LAUNCHERS",
    "LOADED",
    "REFERENCE",
    "Building",
    "Contribution",
    "CourseFile",
    "ModelFile",
    "PluginRecord",
    "Registry",
    "Rejected",
    "build",
    "check_variant",
    "place_of_class",
    "shorten",
]
