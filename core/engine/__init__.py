"""Plans bound to a device: parameters in flat arenas, recorded steps, forward, backward, update, decoding."""

from typing import TYPE_CHECKING

from core.engine.bound import BoundPlan
from core.engine.engine import Engine
from core.engine.settings import NO_LIMITS, Record, Settings
from core.graph import TARGETS
from core.lazy import imports_of

if TYPE_CHECKING:
    from core.engine.tracing import TraceEvent as TraceEvent

__all__ = ["NO_LIMITS", "TARGETS", "BoundPlan", "Engine", "Record", "Settings", "TraceEvent"]

__getattr__ = imports_of(__name__)
