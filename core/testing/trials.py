"""The trials of a variant: each example, in each dtype and mode in which a plan may run it, beside the truth."""

from __future__ import annotations

from collections.abc import Sequence

from core.dtypes import widest_first
from core.errors import BuildError
from core.op import Op, Reference, Variant
from core.registry import Registry
from core.testing.cached_decoding import at_once
from core.testing.case import Case, cases_of
from core.testing.derived import derive_reference
from core.testing.runner import CpuRunner, Runner
from core.testing.trial import Trial

QUICK = 3  # examples of a quick check: the smallest
LEAST = 16  # elements below which an example shows too little to be one of them


def reference_of(op: Op, registry: Registry) -> Reference:
    """The truth of the check: the op's reference, or the one that follows from a fused op's pattern."""
    if op.statements:
        return derive_reference(op, registry)
    reference = registry.variant(op.name, "reference")
    if not isinstance(reference, Reference):
        raise BuildError(f"{op.name}.reference is not a Reference")
    return reference


def quick_dtypes(variant: Variant) -> tuple[str, ...]:
    """f64 for a reference, whose gradient is compared with differences there; else f32."""
    wanted = "f64" if isinstance(variant, Reference) else "f32"
    return (wanted,) if wanted in variant.dtypes else tuple(variant.dtypes[:1])


def smallest(trials: Sequence[Trial]) -> list[Trial]:
    """The trials of the few smallest examples; those of next to no elements only where there are no others."""
    cases = sorted({id(t.case): t for t in trials}.values(), key=lambda t: (t.elements < LEAST, t.elements))
    cases_taken = {id(t.case) for t in cases[:QUICK]}
    return [t for t in trials if id(t.case) in cases_taken]


def trials_of(
    op: Op,
    variant: Variant,
    registry: Registry,
    *,
    runner: Runner | None = None,
    cases: Sequence[Case] | None = None,
    reference: Reference | None = None,
    dtypes: Sequence[str] | None = None,
) -> tuple[list[Trial], dict[str, str]]:
    """Every case in every dtype and mode in which the variant can run; and why not elsewhere, by example and dtype.

    runner: the cpu's where nothing is run but recorded. cases, reference, dtypes: the op's and the variant's own.
    """
    home = CpuRunner(registry)
    truth = reference or reference_of(op, registry)
    runner = home if runner is None else runner
    trials, skipped = [], {}
    for case in cases_of(op, variant) if cases is None else cases:
        for dtype in widest_first(dtypes or variant.dtypes):
            for mode in modes_of(op, variant):
                trial = Trial(case, variant, truth, dtype, mode, runner, home)
                why_not = runner.can_run(variant) or runner.lacks(variant, dtype) or trial.why_not()
                if why_not is None:
                    trials.append(trial)
                else:
                    skipped[f"{case.label} in {dtype}"] = why_not
    return trials, skipped


def decoded_trials(
    op: Op,
    variant: Variant,
    registry: Registry,
    *,
    runner: Runner,
    cases: Sequence[Case],
    reference: Reference,
    but: Sequence[Trial],
) -> list[Trial]:
    """Trials of the cases whose tokens the variant does not take all at once (they are not in `but`): in pieces."""
    if not op.state or runner.can_run(variant):
        return []
    home, trials = CpuRunner(registry), []
    held = {(id(trial.case), trial.dtype) for trial in but}
    for case in cases:
        for dtype in variant.dtypes:
            trial = Trial(case, variant, reference, dtype, "forward", runner, home)
            if (id(case), dtype) not in held and (count := at_once(trial)):
                trial.at_once = count
                trials.append(trial)
    return trials


def all_trials(op: Op, variant: Variant, registry: Registry, *, runner: Runner | None = None) -> list[Trial]:
    """The trials of `trials_of`, and those of `decoded_trials`: every way in which a plan may run the variant."""
    cases, truth = cases_of(op, variant), reference_of(op, registry)
    runner = CpuRunner(registry) if runner is None else runner
    trials, _ = trials_of(op, variant, registry, runner=runner, cases=cases, reference=truth)
    fed = decoded_trials(op, variant, registry, runner=runner, cases=cases, reference=truth, but=trials)
    return [*trials, *fed]


def modes_of(op: Op, variant: Variant) -> list[str]:
    """The ways in which a plan may run this variant."""
    if not op.gradient:
        return ["forward"]
    able = {"backward": variant.has_backward, "forward_backward": variant.has_forward_backward}
    modes = [mode for mode, has in able.items() if has]
    return modes if variant.has_backward else ["forward", *modes]
