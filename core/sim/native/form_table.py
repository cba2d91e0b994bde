"""The table of all opcodes that the machine spells otherwise than PTX."""

from __future__ import annotations

from core.sim.native import call_forms, composed, forms, hopper_forms, warp_forms
from core.sim.native.translation import Form

FAMILIES = (forms.FAMILY, call_forms.FAMILY, composed.FAMILY, warp_forms.FAMILY, hopper_forms.FAMILY)
FORMS: dict[str, Form] = {name: form for family in FAMILIES for name, form in family.items()}
