"""Graph and request -> Plan: steps in order, and memory offsets. It computes nothing."""

from core.plan.buffers import Buffer
from core.plan.choose import Chooser, TunedChoice, tuning_key
from core.plan.fuse import check_fusion
from core.plan.layout import DECAYS, GROUP, TRAINS, ParameterLayout, Place, trimmed
from core.plan.make import make_plan
from core.plan.needs import Need, needs_of
from core.plan.steps import AUTO, EVALUATE, GENERATE, TRAIN, Choice, Plan, Request, Step, first_config

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
    "TunedChoice",
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
