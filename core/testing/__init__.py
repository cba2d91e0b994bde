"""The conformance kit: what an op, a variant and a plugin are held to.

`check_op("rmsnorm")` in a plugin's test is all that most authors need. It knows no op by name.
"""

from __future__ import annotations

from core.testing.check import Report, VariantReport, check_op, check_variant
from core.testing.derived import derive_reference

__all__ = ["Report", "VariantReport", "check_op", "check_variant", "derive_reference"]
