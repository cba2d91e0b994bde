"""The sub-checks of the op check, one function each, in the order in which they run.

Each takes a `Trial` (one variant, one case, one dtype) and reports into its `Log`. The declarations of the op and the
variant decide which of them apply.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence

import numpy as np

from core.graph import init
from core.op import Op, Reference, Variant
from core.testing.cached_decoding import check_decode
from core.testing.case import padding
from core.testing.compare import Array, bounds_of
from core.testing.log import Log, compare_gradients, compare_outputs, trained
from core.testing.made_of import check_parts
from core.testing.numeric import check_derivative
from core.testing.padded import check_padding
from core.testing.random_bits import check_random
from core.testing.trial import PLAIN, GradientRequest, Trial
from core.testing.update import GOOD, check_update


def check_forward(log: Log, trial: Trial) -> None:
    """Outputs compared with the reference's. The f64 reference is the truth, so there it only has to run."""
    got = trained(log, "forward", trial)
    if got is None:
        return
    compare_outputs(log, "forward", trial, got)


def check_gradient(log: Log, trial: Trial) -> None:
    """The reference in f64 compared with numeric derivatives; everything else with the reference."""
    got = trained(log, "gradient", trial)
    if got is None or not got.gradients:
        return
    if trial.dtype == "f64" and isinstance(trial.variant, Reference):
        for name, gradient in got.gradients.items():
            with log.caught("gradient"):
                check_derivative(log, trial, name, gradient)
    else:
        compare_gradients(log, "gradient", trial, got, PLAIN)


def check_accumulate(log: Log, trial: Trial) -> None:
    """Gradients that are added to: each alone, then all at once; of a brief trial all at once only."""
    for chosen in sets_of(addable(trial))[-1 if trial.brief else 0 :]:
        request = GradientRequest(add=frozenset(chosen))
        got = trained(log, "accumulate", trial, request)
        if got is not None:
            compare_gradients(log, "accumulate", trial, got, request, f" (adding to {', '.join(chosen)})")


def addable(trial: Trial) -> list[str]:
    """The gradients that a plan may have the variant add to."""
    return [n for n in trial.wanted() if n[1:] in trial.variant.can_add or n[1:] in trial.op.params]


def check_absent(log: Log, trial: Trial) -> None:
    """Gradients that are not needed, each in turn and all but one; output gradients that do not exist."""
    wanted = trial.wanted()
    alone = [frozenset(wanted) - {n} for n in wanted] if len(wanted) > 2 else []
    for unwanted in [*(frozenset((n,)) for n in wanted if len(wanted) > 1), *alone]:
        request = GradientRequest(unwanted=unwanted)
        got = trained(log, "absent", trial, request)
        if got is not None:
            compare_gradients(log, "absent", trial, got, request, f" (without {', '.join(sorted(unwanted))})")
    missing = list(trial.seeds) if len(trial.seeds) > 1 else []
    for name, add in itertools.product(missing, [frozenset[str](), frozenset(addable(trial))]):
        request = GradientRequest(absent=frozenset((name,)), add=add)
        got = trained(log, "absent", trial, request)
        if got is not None:
            compare_gradients(log, "absent", trial, got, request, f" (no {name} from above)")


def check_alias(log: Log, trial: Trial) -> None:
    """Aliased gradients are the tensor that the variant declares, where it does not write them."""
    if not any(trial.aliased(n) for n in trial.wanted()):
        return
    request = GradientRequest(alias=True)
    got = trained(log, "alias", trial, request)
    if got is not None:
        compare_gradients(log, "alias", trial, got, request, " (as the alias)")


def check_inplace(log: Log, trial: Trial) -> None:
    """Gradients in the memory of the tensor that the variant declares, for every absence that it allows."""
    shared = [n for n in trial.wanted() if n in trial.variant.inplace]
    if not shared:
        return
    more = [frozenset((n,)) for n in trial.seeds if len(trial.seeds) > 1 and n not in trial.variant.inplace.values()]
    aliases = {False, any(trial.aliased(n) for n in trial.wanted())}
    for absent, alias in itertools.product([frozenset[str](), *more], sorted(aliases)):
        request = GradientRequest(in_place=True, absent=absent, alias=alias)
        got = trained(log, "in place", trial, request)
        if got is not None:
            compare_gradients(log, "in place", trial, got, request, " (in place)")


def check_repeat(log: Log, trial: Trial) -> None:
    """The same bits again, in the orders that the runner knows."""
    if not trial.variant.repeatable:
        return
    first = trained(log, "repeat", trial)
    for order, message in trial.runner.orders.items():
        again = trained(log, "repeat", trial, GradientRequest(order=order))
        if first is None or again is None:
            return
        for name, value in first.all.items():
            same = value.tobytes() == again.all[name].tobytes()
            log.verdict("repeat", same, f"{name}: other bits in a second run, {message}")


def check_blocks(log: Log) -> None:
    """Each place that shares out rows did so in several ranges at least once: else no seam between two was tested."""
    for place, count in log.ranges.items():
        log.verdict(
            "blocks",
            count > 1,
            f"the rows at {place} are one range in every example: give the variant a larger example",
        )


def check_configs(log: Log, trial: Trial) -> None:
    """The other tile candidates: forward and gradient, of large examples too."""
    for index in range(1, len(trial.configs)):
        request = GradientRequest(config=index)
        note = f" (config {trial.configs[index]})"
        check_update(log, trial, {GOOD: {}}, 1, request, note)
        got = trained(log, "configs", trial, request) if trial.op.gradient else None
        if got is None:
            continue
        compare_outputs(log, "configs", trial, got, note)
        compare_gradients(log, "configs", trial, got, request, note)


def check_zeros(log: Log, trial: Trial) -> None:
    """Elements that are exactly zero in the truth (padding, ignored rows and others) are exactly zero.

    That is whole rows, trailing columns, and the padding of the schema's sizes: rounding cannot touch it.
    """
    got = trained(log, "zeros", trial)
    if got is None:
        return
    truth = trial.truth().all
    for name, value in got.all.items():
        zero = must_be_zero(truth[name], trial.case.spec(name, trial.dtype).shape)
        if zero.any():
            wrong = zero & (value != 0)
            if wrong.any() and name in got.gradients:  # zero by chance, as where two terms are equal, is not by rule
                wrong &= must_be_zero(trial.truth_from_above(name), value.shape)
            at = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
            index = [int(i) for i in at]
            log.verdict("zeros", not wrong.any(), f"{name}: {value[at]:.3g} at {index}, expected exactly 0")


def must_be_zero(want: Array, shape: tuple[int, ...]) -> Array:
    """The mask of elements that must be exactly zero, by the truth and by the padding of `shape`."""
    zero = padding(shape)
    if want.ndim and want.any():
        if want.ndim > 1:
            zero |= (want == 0).all(-1, keepdims=True)
        columns = (want == 0).reshape(-1, want.shape[-1]).all(0)
        used = want.shape[-1] - int(np.argmax(~columns[::-1]))
        zero[..., used:] = True  # trailing columns that are zero in every row
    return zero


# name of the sub-check -> function; in this order
SUBCHECKS: dict[str, Callable[[Log, Trial], None]] = {
    "forward": check_forward,
    "gradient": check_gradient,
    "accumulate": check_accumulate,
    "absent": check_absent,
    "alias": check_alias,
    "in place": check_inplace,
    "zeros": check_zeros,
    "padding": check_padding,
    "decode": check_decode,
    "random": check_random,
    "repeat": check_repeat,
    "configs": check_configs,
    "update": check_update,
    "parts": check_parts,
}
# the requirement of each sub-check; `bounds` and those after it are tested in every run of the others
MEANING: dict[str, str] = {
    "schema": "examples fit, declarations have a meaning",
    "forward": "outputs compared with the reference in f64",
    "gradient": "gradients compared with the reference, the reference with numeric derivatives",
    "accumulate": "adds to a gradient on request",
    "absent": "gradients that are not needed or do not exist",
    "alias": "a gradient that is declared to be another tensor is that tensor",
    "in place": "a gradient in the memory of another tensor",
    "zeros": "padding and ignored rows are exactly zero",
    "padding": "padded sizes change nothing, and stay zero",
    "decode": "token by token equals all tokens at once",
    "random": "the key settles the bits, by row",
    "repeat": "the same bits again, also in another order",
    "blocks": "examples that need more than one block of rows",
    "configs": "every tile candidate",
    "update": "several calls in a row, every state of a step",
    "parts": "numbers depend on the parts that the reference states, on all and no others",
    "coverage": "lines and loops of its kernels that no example reaches: advice",
    "compile": "kernels for every architecture declared, without spills, within its limits",
    "bounds": "no write outside of the tensors",
    "unchanged": "read-only tensors are unchanged",
    "written": "every output and gradient is written",
    "reads": "only declared tensors are read",
}
NAMES = tuple(MEANING)
# Sub-checks of a brief trial (Trial.brief): those that depend on sizes. The others are made on smaller examples
BRIEF = ("forward", "gradient", "accumulate", "zeros", "decode", "configs", "update")


def applies(name: str, trial: Trial) -> bool:
    """Whether a sub-check is made of this trial: all are, but for those that a brief one leaves to smaller examples. An
    example of which the variant takes few tokens at once is there to be decoded."""
    return name == "decode" if trial.at_once else not trial.brief or name in BRIEF


def sets_of(names: list[str]) -> list[tuple[str, ...]]:
    """Each name alone, then all together."""
    return [*itertools.combinations(names, 1), *([tuple(names)] if len(names) > 1 else [])]


def check_declared(log: Log, op: Op | None) -> None:
    """The op's params, and its states of constant size, have initial values: a graph would refuse others later."""
    if op is None:
        return
    for name, rule in op.constant_state.items():
        with log.caught("schema"):
            init.settle_state(re.sub(r"\(.+\)", "(1)", rule), {}, f'op "{op.name}", state "{name}"')
    for name, param in op.params.items():
        with log.caught("schema"):
            init.settle(re.sub(r"\(.+\)", "(1)", param.init), {}, f'op "{op.name}", param "{name}"')


def check_schema(log: Log, variant: Variant, trials: Sequence[Trial], refusals: Sequence[str]) -> None:
    """The variant can run on some example, and its declarations have a meaning."""
    log.verdict("schema", bool(trials), "it can run on no example: " + "; ".join(sorted(set(refusals))))
    for dtype in variant.dtypes:
        with log.caught("schema"):
            bounds_of(variant, dtype)
    check_declared(log, trials[0].op if trials else None)
    for trial in (t for t in trials if not t.at_once):
        with log.caught("schema"):
            t = trial.forward_call().specs()
            configs, nbytes, counters = variant.configs(t), variant.workspace(t), variant.counters(t)
            log.verdict("schema", bool(configs), "`configs` is empty; expected at least [{}]")
            log.verdict("schema", nbytes >= 0, f"`workspace` is {nbytes} bytes")
            log.verdict("schema", counters >= 0, f"`counters` is {counters}")
