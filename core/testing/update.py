"""Updates and norms: ops without a gradient, compared with their reference over several calls in a row.

Each call starts from the state that the one before left, as in training; and the control record takes every state of a
step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from core.op import SLOT
from core.testing.compare import Array
from core.testing.log import Log, compare, kept_out, no_excuse
from core.testing.pattern import Compared, Scene
from core.testing.trial import PLAIN, GradientRequest, Trial

CALLS = 3
GOOD = "a good step"
# the control record: slots to set before each call. A loss at its limit is not above it; a scale that is its least one
# halts at an overflow, as one without growth does, and one near it is not halved.
CONTROLS: Mapping[str, Mapping[str, float]] = {
    GOOD: {},
    "a step that is not ok": {"ok": 0.0, "halted": 1.0},
    "a loss that is not a number": {"loss": float("nan")},
    "an infinite loss": {"loss": float("inf")},
    "a learning rate that is not a number": {"lr": float("nan"), "ok": 0.0},
    "a loss above its limit": {"loss_limit": 2.25, "ok": 0.0, "loss_scale": 2.0},
    "a norm above its limit": {"norm_limit": 0.0, "ok": 0.0, "growth_steps": 7.0},
    "a loss scale that grows": {"loss_scale": 32.0, "good_steps": 0.0, "growth_steps": 1.0},
    "a loss scale that waits": {"loss_scale": 1.5, "good_steps": 5.0, "growth_steps": 7.0, "loss_limit": 2.5},
    "a loss scale under an infinite loss": {"loss_scale": 32.0, "growth_steps": 7.0, "loss": float("inf")},
}


def check_update(
    log: Log,
    trial: Trial,
    controls: Mapping[str, Mapping[str, float]] = CONTROLS,
    calls: int = CALLS,
    request: GradientRequest = PLAIN,
    about: str = "",
) -> None:
    """Several calls of variant and reference side by side, for each state of the control record. about: the variant's
    config by `request`, for messages."""
    if trial.op.gradient:
        return
    for label, slots in controls.items() if "step" in trial.op.uses else (("", {}),):
        with log.caught("update"):
            mine, truth = own_extras(trial.again()), own_extras(trial.truly())
            for call in range(calls):
                for side in (mine, truth):
                    disturb(side, call, slots)
                before = dict(mine.values)
                got = mine.runner.run(mine.forward_call(request=request))
                want = truth.runner.run(truth.forward_call())
                note = f" (call {call + 1}{', ' * bool(label)}{label}){about}"
                kept_out(log, got, note)
                compare_all(log, trial, got.tensors, want.tensors, before, note)
                carry(mine, got.tensors)
                carry(truth, want.tensors)


def own_extras(trial: Trial) -> Trial:
    """The trial with a control record of its own, which may be written to."""
    trial.case = replace(trial.case, extras={n: v.copy() for n, v in trial.case.extras.items()})
    return trial


def disturb(trial: Trial, call: int, slots: Mapping[str, float]) -> None:
    """New contents for the read-only tensors, and the control record of the request."""
    for name, value in trial.values.items():
        if call and value is not None and value.dtype.kind == "f" and name not in trial.op.mutates:
            trial.values[name] = np.roll(value, 7) * value.dtype.type(-1)
    for slot, number in slots.items():
        trial.case.extras["step"][SLOT[slot]] = number


def carry(trial: Trial, tensors: Mapping[str, Array]) -> None:
    """Start the next call from the state that this one left."""
    for name in trial.op.mutates:
        if trial.values[name] is not None:
            trial.values[name] = tensors[name]
    for name, value in trial.case.extras.items():
        value[...] = tensors[name]


def compare_record(log: Log, trial: Trial, name: str, got: Array, want: Array, note: str) -> None:
    """The control record slot by slot, each at its own scale; another record (a random key) as a whole."""
    slots = SLOT if len(want) == len(SLOT) else {}
    for slot, at in slots.items():
        slot_name = f"t.{name}[{slot}]"
        if got[at] == want[at]:
            log.passed("update")
        elif want[at] == 0:  # a flag, or a count
            log.failed("update", f"{slot_name}{note}: got {got[at]:.9g}, expected 0")
        else:
            compare(log, "update", trial, slot_name, got[at : at + 1], want[at : at + 1], note, no_excuse)
    if not slots:
        compare(log, "update", trial, name, got, want, note, no_excuse)


def compare_all(
    log: Log,
    trial: Trial,
    got: Mapping[str, Array],
    want: Mapping[str, Array],
    before: Mapping[str, Array | None],
    note: str,
) -> None:
    """Compare all tensors that the op may write with the reference's; all others keep their bits."""
    written = [name for name in (*trial.op.mutates, *trial.op.outputs) if name in got]
    scene = Scene({n: Compared(got[n], want[n]) for n in written}, trial.case.dims, {}, trial.dtype)
    for extra in trial.case.extras:
        compare_record(log, trial, extra, got[extra], want[extra], note)
    for name in written:
        compare(log, "update", trial, name, got[name], want[name], note, no_excuse, scene)
        old = before.get(name)
        if old is not None and not np.count_nonzero(want[name] != old):
            same = got[name].tobytes() == old.tobytes()
            log.verdict("update", same, f"{name}{note}: was to stay as it is, bit for bit")
