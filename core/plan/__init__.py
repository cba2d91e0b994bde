"""Graph and request -> Plan: steps in order, and memory offsets. It computes nothing."""

from core.plan.buffers import Buffer as Buffer
from core.plan.choose import Chooser as Chooser
from core.plan.choose import TunedChoice as TunedChoice
from core.plan.choose import tuning_key as tuning_key
from core.plan.fuse import check_fusion as check_fusion
from core.plan.layout import DECAYS as DECAYS
from core.plan.layout import GROUP as GROUP
from core.plan.layout import TRAINS as TRAINS
from core.plan.layout import ParameterLayout as ParameterLayout
from core.plan.layout import Place as Place
from core.plan.layout import trimmed as trimmed
from core.plan.make import make_plan as make_plan
from core.plan.needs import Need as Need
from core.plan.needs import needs_of as needs_of
from core.plan.steps import AUTO as AUTO
from core.plan.steps import EVALUATE as EVALUATE
from core.plan.steps import GENERATE as GENERATE
from core.plan.steps import TRAIN as TRAIN
from core.plan.steps import Choice as Choice
from core.plan.steps import Plan as Plan
from core.plan.steps import Request as Request
from core.plan.steps import Step as Step
from core.plan.steps import first_config as first_config
