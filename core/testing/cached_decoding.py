"""Cached decoding against all tokens at once: T tokens, T-1 and then 1, and rows that start at different places.

Ops that number or mix tokens declare uses=("start",); any other op must treat tokens one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from core.testing.compare import Array
from core.testing.log import Log, compare, kept_out
from core.testing.runner import Outcome
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
        for starts in tokens.starts(trial.at_once):
            state = filled(log, trial, tokens, starts)
            continued(
                log, trial, tokens, state, starts, min(trial.at_once or tokens.count, tokens.count - starts.max())
            )


@dataclass(frozen=True)
class Tokens:
    """The axis of each input and output that counts tokens, their number, and the rows of the batch."""

    axes: Mapping[str, int]
    count: int
    rows: int

    def starts(self, at_once: int) -> list[Array]:
        """The positions at which the rows of the batch continue, for each call: all at 0, all at their last token, each
        at
        its own. With few tokens at once they are spread over all tokens, so that each row sees many cached ones."""
        rows, last = np.arange(self.rows, dtype=np.int32), self.count - 1
        apart = last - rows * last // self.rows if at_once else rows % max(1, last)
        return [np.zeros_like(rows), np.full_like(rows, last), apart.astype(np.int32)]

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
    """State that holds `starts` tokens of each row. Places not yet written are NaN."""
    kind = np.float64 if trial.dtype == "f64" else np.float32
    state = {n: np.full(trial.case.spec(n, trial.dtype).shape, np.nan, kind) for n in trial.op.state}
    cached = int(starts.max())
    if not cached:
        return state
    none, step = np.zeros_like(starts), trial.at_once or cached
    cache = state
    for first in range(0, cached, step):
        at = none + first
        out = trial.feed(tokens.some(trial.values, at, min(step, cached - first)), cache, at)
        kept_out(log, out, " while decoding")
        cache = {n: out.tensors[n].copy() for n in state}
    for name, value in cache.items():
        for b, start in enumerate(starts.tolist()):
            by_token(trial, name, value, b)[start:] = np.nan
    return cache


def at_once(trial: Trial) -> int:
    """The tokens of this example that the variant takes in one call of a decode session: the largest number by halving;
    0 for none, and where no decoding takes place."""
    tokens = tokens_of(trial)
    if tokens is None or not trial.op.state or trial.op.why_no_decode(trial.case.dims):
        return 0
    none, count = np.zeros(tokens.rows, np.int32), tokens.count
    state = {n: np.zeros(trial.case.spec(n, trial.dtype).shape, np.float32) for n in trial.op.state}
    while count:
        call = trial.feed_call(tokens.some(trial.values, none, count), state, none)
        if trial.variant.why_not(call.specs()) is None:
            break
        count //= 2
    return count


def first_tokens(trial: Trial) -> None:
    """Feed the first token of each row, where there is anything to decode: for callers that only record launches."""
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
    """Feed `count` tokens behind `starts`, with each tile candidate: outputs as of all tokens at once, and the state
    appended to."""
    call = trial.feed_call(tokens.some(trial.values, starts, count), state, starts)
    for number, config in enumerate(trial.variant.configs(call.specs()) or [{}]):
        note = f" ({count} tokens behind {starts.tolist()} at once{f', config {config}' if number else ''})"
        held(log, trial, tokens, state, starts, count, trial.fed(call, config), note)


def held(
    log: Log,
    trial: Trial,
    tokens: Tokens,
    state: Mapping[str, Array],
    starts: Array,
    count: int,
    out: Outcome,
    note: str,
) -> None:
    """Hold what a step left to the truth, and to what was cached."""
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
