"""Cached decoding against all tokens at once: T tokens, T-1 and then 1, and rows that start at different places.

Ops that number or mix tokens say so by uses=("start",); any other op has to treat tokens one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from core.testing.compare import Array
from core.testing.log import Log, compare, kept_out
from core.testing.trial import Trial


def check_decode(log: Log, trial: Trial) -> None:
    tokens = tokens_of(trial)
    if tokens is None:
        return
    why = trial.op.why_no_decode(trial.case.dims)
    causal = tokens.causal(trial)
    if why or not causal:
        said = f'why_no_decode says "{why}"' if why else "why_no_decode says nothing"
        seen = "no token depends on later ones" if causal else "a token depends on later ones"
        wanted = 'say so: why_no_decode=lambda dims: "..."' if not causal else "why_no_decode is to return None then"
        log.verdict("decode", bool(why) is not causal, f"{said}, and {seen}", hint=wanted)
        return
    with log.caught("decode"):
        if any("S" not in slot.pattern.tokens for slot in trial.op.state.values()):
            return  # `schema` says so
        if "start" not in trial.op.uses:
            last = np.full(tokens.rows, tokens.count - 1, np.int32)
            continued(log, trial, tokens, {}, last, 1)
            return
        T = tokens.count
        apart = np.arange(tokens.rows, dtype=np.int32) % max(1, T - 1)
        for starts in (np.zeros_like(apart), np.full_like(apart, T - 1), apart):
            state = filled(log, trial, tokens, starts)
            continued(log, trial, tokens, state, starts, T - int(starts.max()))


@dataclass(frozen=True)
class Tokens:
    """Which axis of each input and output counts tokens, how many there are, in how many rows of the batch."""

    axes: Mapping[str, int]
    count: int
    rows: int

    def some(self, values: Mapping[str, Array | None], starts: Array, count: int) -> dict[str, Array | None]:
        """`values` with `count` tokens of each row, from the row's own start on."""
        return {n: v if v is None or n not in self.axes else self.cut(n, v, starts, count) for n, v in values.items()}

    def cut(self, name: str, value: Array, starts: Array, count: int) -> Array:
        axis = self.axes[name] - 1
        return np.stack([value[b].take(range(s, s + count), axis=axis) for b, s in enumerate(starts.tolist())])

    def causal(self, trial: Trial) -> bool:
        """Whether no token depends on later ones here, by the reference: else there is nothing to decode."""
        if self.count < 2 or "start" not in trial.op.uses:
            return True
        truth, none = trial.truly(), np.zeros(self.rows, np.int32)
        values = self.some(truth.values, none, self.count - 1)
        shorter = truth.again(replace(trial.case, dims=trial.case.solve(values), extras={}), values).train().outputs
        whole = trial.truth().outputs
        return all(
            np.allclose(v, self.cut(n, whole[n], none, self.count - 1), rtol=1e-9, atol=1e-12)
            for n, v in shorter.items()
        )


def tokens_of(trial: Trial) -> Tokens | None:
    """The token axis of each tensor: "T" in the schema; of "...", the axis that T has in another tensor, or the last.

    None where nothing is decoded.
    """
    op, case = trial.op, trial.case
    inputs = [n for n in op.inputs if trial.values[n] is not None]
    if not op.gradient or "random" in op.uses or any(op.inputs[n].optional for n in inputs):
        return None
    axes: dict[str, int] = {}
    named = {name: case.axis(name, "T") for name in (*inputs, *op.outputs)}
    of_others = next((axis for axis in named.values() if axis is not None), len(case.dims.get("...", ())) - 1)
    for name, axis in named.items():
        if axis is None and case.pattern(name).leading:
            axis = of_others
        if axis is None or axis < 1:
            return None
        axes[name] = axis
    shape = case.spec(inputs[0], trial.dtype).shape
    return Tokens(axes, shape[axes[inputs[0]]], shape[0])


def filled(log: Log, trial: Trial, tokens: Tokens, starts: Array) -> dict[str, Array]:
    """State that holds `starts` tokens of each row. What is not written yet is not a number."""
    kind = np.float64 if trial.dtype == "f64" else np.float32
    state = {n: np.full(trial.case.spec(n, trial.dtype).shape, np.nan, kind) for n in trial.op.state}
    cached = int(starts.max())
    if not cached:
        return state
    none = np.zeros_like(starts)
    out = trial.feed(tokens.some(trial.values, none, cached), state, none)
    kept_out(log, out, " while decoding")
    held = {n: out.tensors[n].copy() for n in state}
    for name, value in held.items():
        for b, start in enumerate(starts.tolist()):
            by_token(trial, name, value, b)[start:] = np.nan
    return held


def first_tokens(trial: Trial) -> None:
    """Feed the first token of each row, where there is anything to decode: for those who ask what is launched."""
    tokens = tokens_of(trial)
    if tokens is None or "start" not in trial.op.uses or trial.op.why_no_decode(trial.case.dims):
        return
    none = np.zeros(tokens.rows, np.int32)
    state = {n: np.zeros(trial.case.spec(n, trial.dtype).shape, np.float32) for n in trial.op.state}
    trial.feed(tokens.some(trial.values, none, 1), state, none)


def by_token(trial: Trial, name: str, state: Array, row: int) -> Array:
    """One row of the batch of a state, tokens first: a view."""
    axis = trial.case.axis(name, "S")
    assert axis is not None, f"the state {name} has no S"
    return np.moveaxis(state[row], axis - 1, 0)


def continued(log: Log, trial: Trial, tokens: Tokens, state: Mapping[str, Array], starts: Array, count: int) -> None:
    """Feed `count` tokens behind `starts`: outputs as of all tokens at once, and the state appended to."""
    out = trial.feed(tokens.some(trial.values, starts, count), state, starts)
    note = f" ({count} tokens behind {starts.tolist()} at once)"
    kept_out(log, out, note)
    for name in trial.op.outputs:
        want = tokens.cut(name, trial.truth().outputs[name], starts, count)
        compare(log, "decode", trial, name, out.tensors[name], want, note)
    for name, old in state.items():
        for b, start in enumerate(starts.tolist()):
            was, now = by_token(trial, name, old, b), by_token(trial, name, out.tensors[name], b)
            same = was[:start].tobytes() == now[:start].tobytes()
            log.verdict("decode", same, f"{name}{note}: what was cached has changed")
            beyond = now[start + count :]
            log.verdict("decode", bool(np.isnan(beyond).all()), f"{name}{note}: wrote beyond the new tokens")
