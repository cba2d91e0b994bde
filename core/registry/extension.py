"""Completes a registry that was built for one device: other devices' variants, and the results of hooks that waited."""

from __future__ import annotations

from collections.abc import Sequence

from core.registry.building import Building, add_classes, add_courses, add_on_host, add_rest, add_variants
from core.registry.contribution import Contribution, Rejected


def extend(building: Building, more: Sequence[Contribution]) -> None:
    """Register the rest of each contribution. BuildError for a part of it that does not fit.

    more: the rest of `building.contributions`, in the same order.
    """
    first = building.contributions
    try:
        building.contributions = more
        for step in (add_variants, add_courses, add_classes, add_rest):
            step(building)
        building.contributions, building.device = first, ""
        add_on_host(building)
    except Rejected as rejected:
        raise rejected.error from None
    for conflict in building.conflicts:
        raise conflict.error
    for contribution, rest in zip(first, more, strict=True):
        contribution.add(rest)
