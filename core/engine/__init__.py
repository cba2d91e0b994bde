"""Plans bound to a device: parameters in flat arenas, recorded steps, forward, backward, update, decoding."""

from core.engine.bound import BoundPlan, TraceEvent
from core.engine.engine import Engine
from core.engine.settings import NO_LIMITS, Record, Settings
from core.graph import TARGETS

__all__ = ["NO_LIMITS", "TARGETS", "BoundPlan", "Engine", "Record", "Settings", "TraceEvent"]
