"""The error where no variant may run a node: every candidate with its reason."""

from __future__ import annotations

from collections.abc import Mapping

from core.errors import BuildError
from core.op import Variant
from core.plan.steps import EXPLICIT, Refused

ABLE = "it can run"


def no_choice(
    message: str, reasons: Mapping[str, str | None], failed: Variant | None = None, op: str = ""
) -> BuildError:
    """The error. reasons: variant -> why it was not taken; None for one that can run. failed: the variant that a config
    or a recorded run named and that failed its check; the hint is then the choice that passes. op: by name."""
    if not reasons:
        return BuildError(f"{message}: there is none for this device")
    message += ":\n" + "\n".join(f"    {name}: {why or ABLE}" for name, why in reasons.items())
    if failed is None:
        explicit = next((name for name, why in reasons.items() if why == EXPLICIT), None)
        return BuildError(message, hint=f"--set ops.{op}={explicit} takes that one" if explicit and op else "")
    others = [name for name, why in reasons.items() if why is None]
    again = f"`core check {failed.op}.{failed.name}` checks it again"
    return Refused(
        message, hint=f"--set ops.{failed.op}={others[0]} takes one that can run; {again}" if others else again
    )
