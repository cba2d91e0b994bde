"""Graph and request -> Plan: what runs, in order, and where it lies in memory. It computes nothing."""

from core.plan.choose import AUTO, Choice, Chooser, Kept, first_config, tuning_key
from core.plan.fuse import check_fusion
from core.plan.layout import DECAYS, GROUP, TRAINS, ParameterLayout, Place, trimmed
from core.plan.memory import Buffer
from core.plan.needs import Need, needs_of
from core.plan.schedule import EVALUATE, GENERATE, TRAIN, Plan, Request, Step, make_plan

__all__ = [
    "AUTO",
    "DECAYS",
    "EVALUATE",
    "GENERATE",
    "GROUP",
    "TRAIN",
    "TRAINS",
    "Buffer",
    "Choice",
    "Chooser",
    "Kept",
    "Need",
    "ParameterLayout",
    "Place",
    "Plan",
    "Request",
    "Step",
    "check_fusion",
    "first_config",
    "make_plan",
    "needs_of",
    "trimmed",
    "tuning_key",
]
