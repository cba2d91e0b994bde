"""Names to ops, variants, models, optimizers and schedules, each with the plugin that brought it.

A registry is built whole from the plugins' contributions. It imports no plugin and chooses no variant.
"""

from __future__ import annotations

from core.registry.building import Building as Building
from core.registry.building import build as build
from core.registry.contribution import BROKEN as BROKEN
from core.registry.contribution import DISABLED as DISABLED
from core.registry.contribution import LOADED as LOADED
from core.registry.contribution import Contribution as Contribution
from core.registry.contribution import CourseFile as CourseFile
from core.registry.contribution import ModelFile as ModelFile
from core.registry.contribution import PluginRecord as PluginRecord
from core.registry.contribution import Rejected as Rejected
from core.registry.fields import LAUNCHERS as LAUNCHERS
from core.registry.fields import check_variant as check_variant
from core.registry.lookup import REFERENCE as REFERENCE
from core.registry.lookup import Registry as Registry
from core.registry.places import place_of_class as place_of_class
from core.registry.places import shorten as shorten
