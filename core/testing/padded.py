"""Tests an op's claim of `padding`: padded sizes, with zeros in the padding, change no other element.

A case gets padding on each dim and attribute that the op lists: its contents, and zeros after them. The
results are compared with the truth of the case without padding, and must be exact zeros in the padding.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from core.expr import Padded, unpadded
from core.op import Pattern
from core.testing.case import Case, make_case
from core.testing.compare import Array
from core.testing.log import Log, compare, trained
from core.testing.trial import Trial

MULTIPLE = 8  # that padded sizes are rounded up to: rows then start on 16 bytes in each dtype


def check_padding(log: Log, trial: Trial) -> None:
    """Outputs and gradients of the padded case: the real part as without padding, the rest exactly zero."""
    padded = padded_trial(trial) if trial.op.gradient and trial.op.padding else None
    got = trained(log, "padding", padded) if padded is not None else None
    if got is None:
        return
    truth = trial.truth().all
    for name, value in got.all.items():
        real = tuple(slice(0, n) for n in truth[name].shape)
        compare(log, "padding", trial, name, value[real], truth[name], f" (with padding={trial.op.padding!r})")
        rest = value.copy()
        rest[real] = 0
        at = np.unravel_index(int(np.argmax(rest != 0)), rest.shape)
        message = f"{name}: {rest[at]:.3g} at {[int(i) for i in at]}, which is padding, of {list(truth[name].shape)}"
        hint = "an op lists in `padding` the sizes where zeros give zeros and change nothing else"
        log.verdict("padding", not np.any(rest), f"{message}; expected exactly 0", hint=hint)


def padded_trial(trial: Trial) -> Trial | None:
    """The trial on the padded case; None where the variant does not take it, or where nothing of it can be padded."""
    case = padded_case(trial.case)
    if all(n == unpadded(n) for value in case.dims.values() for n in (value if isinstance(value, tuple) else (value,))):
        return None
    other = Trial(case, trial.variant, trial.reference, trial.dtype, trial.mode, trial.runner, trial.home)
    other.fast = True
    return other if other.why_not() is None else None


def padded_case(case: Case) -> Case:
    """The case with every size that the op lists padded to the next multiple: its contents, and zeros after them."""
    op = case.op
    example: dict[str, Any] = {}
    for name in op.attrs:
        value = case.dims[name]
        size = isinstance(value, int) and not isinstance(value, bool) and value > 0
        example[name] = grown(value) if size and name in op.padding else value
    for name, value in case.values.items():
        if value is not None and name not in example:
            example[name] = padded_shape(case.pattern(name), value.shape, op.padding)
    made = make_case(op, example)
    values = {n: None if v is None else embedded(v, made.values[n]) for n, v in case.values.items()}
    gradients = {n: embedded(v, made.gradients[n]) for n, v in case.gradients.items()}
    return replace(made, label=case.label, values=values, gradients=gradients, extras=case.extras)


def padded_shape(pattern: Pattern, shape: tuple[int, ...], padding: tuple[str, ...]) -> tuple[int, ...]:
    """`shape` with the dims that are listed padded; of `...`, the last one."""
    leading = len(shape) - len(pattern.tokens)
    names = ("",) * (leading - 1) + ("...",) * (leading > 0) + pattern.tokens
    return tuple(grown(n) if name in padding else n for n, name in zip(shape, names, strict=True))


def grown(size: int) -> Padded:
    """The next multiple above a size, as the padding of an unpadded size."""
    return Padded((size // MULTIPLE + 1) * MULTIPLE, unpadded(size))


def embedded(value: Array, made: Array | None) -> Array:
    """`value` with zeros after it, in the shape of `made`."""
    assert made is not None
    padding = np.zeros(made.shape, value.dtype)
    padding[tuple(slice(0, n) for n in value.shape)] = value
    return padding
