"""The truth of a check, checked itself: a kernel that agrees with a wrong reference is wrong too."""

from __future__ import annotations

from collections.abc import Sequence

from core.op import Op, Reference, Variant
from core.registry import Registry
from core.testing.case import Case
from core.testing.checks import check_gradient
from core.testing.log import Log, StopChecks
from core.testing.trials import smallest, trials_of
from core.variant_sources import key_of

_passed: set[str] = set()  # keys of the references that have passed in this process


def check_truth(
    log: Log, op: Op, variant: Variant, truth: Reference, cases: Sequence[Case], registry: Registry
) -> None:
    """Compare the gradients of the op's own reference with numeric derivatives in f64, at the smallest examples.

    Nothing for a variant that is the reference, an op without gradients, and a truth that follows from other ops'.
    """
    own = registry.variants.get(op.name, {}).get(truth.name)
    if isinstance(variant, Reference) or not op.gradient or own is not truth or not truth.has_backward:
        return
    key = key_of(truth, registry)
    if key in _passed:
        return
    separate = Log()  # whether a process has looked before may not show in the counts of a report
    for trial in smallest(trials_of(op, truth, registry, cases=cases, reference=truth, dtypes=("f64",))[0]):
        separate.case, separate.dtype = trial.case.label, trial.dtype
        with separate.caught("gradient"):
            check_gradient(separate, trial)
    log.failures += separate.failures
    if not separate.failures:
        _passed.add(key)
    elif log.stop:
        raise StopChecks
