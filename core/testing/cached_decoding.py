"""Cached decoding compared with all tokens at once: T tokens, T-1 and then 1, and rows that start at different places.

Ops that number or mix tokens declare uses=("start",) or a state; any other op must treat tokens one by one. States of
constant size have a sub-check of their own: core.testing.constant_state.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from core.testing.compare import Array
from core.testing.constant_state import check_constant, first_state
from core.testing.log import Log, compare, kept_out
from core.testing.runner import Outcome
from core.testing.token_axes import Tokens, tokens_of
from core.testing.trial import Trial


def check_decode(log: Log, trial: Trial) -> None:
    tokens = tokens_of(trial)
    if tokens is None:
        return
    why = trial.op.why_no_decode(trial.case.dims)
    causal = tokens.causal(trial)
    if why or not causal:
        said = f'why_no_decode returns "{why}"' if why else "why_no_decode returns nothing"
        seen = "no token depends on later ones" if causal else "a token depends on later ones"
        wanted = (
            'declare it: why_no_decode=lambda dims: "..."' if not causal else "why_no_decode is to return None then"
        )
        log.verdict("decode", bool(why) is not causal, f"{said}, and {seen}", hint=wanted)
        return
    with log.caught("decode"):
        if trial.op.constant_state:
            check_constant(log, trial, tokens)
            return
        if not trial.op.sequential:
            last = np.full(tokens.rows, tokens.count - 1, np.int32)
            continued(log, trial, tokens, {}, last, 1)
            return
        if trial.op.state and not (trial.at_once or at_once(trial)):
            return  # `why_not` refuses every call: a session takes another variant
        for starts in tokens.starts(trial.at_once):
            state = filled(log, trial, tokens, starts)
            continued(
                log, trial, tokens, state, starts, min(trial.at_once or tokens.count, tokens.count - starts.max())
            )


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
    state = first_state(trial)
    while count:
        call = trial.feed_call(tokens.some(trial.values, none, count), state, none)
        if trial.variant.why_not(call.specs()) is None:
            break
        count //= 2
    return count


def first_tokens(trial: Trial, count: int = 1) -> None:
    """Feed the first `count` tokens of each row, where there is anything to decode: for callers that only record
    launches."""
    tokens = tokens_of(trial)
    if tokens is None or not trial.op.sequential or trial.op.why_no_decode(trial.case.dims):
        return
    none = np.zeros(tokens.rows, np.int32)
    state = first_state(trial)
    trial.feed(tokens.some(trial.values, none, count), state, none)


def by_token(trial: Trial, name: str, state: Array, row: int) -> Array:
    """One row of the batch of a state, tokens first: a view."""
    axis = trial.case.axis(name, "S")
    assert axis is not None, f"the state {name} has no S"
    return np.moveaxis(state[row], axis - 1, 0)


def continued(log: Log, trial: Trial, tokens: Tokens, state: Mapping[str, Array], starts: Array, count: int) -> None:
    """Feed `count` tokens after `starts`, with each tile candidate: outputs as of all tokens at once, and the state
    appended to."""
    call = trial.feed_call(tokens.some(trial.values, starts, count), state, starts)
    for number, config in enumerate(trial.variant.configs(call.specs()) or [{}]):
        note = f" ({count} tokens after {starts.tolist()} at once{f', config {config}' if number else ''})"
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
    """Compare the results of a step with the truth, and its cache with the earlier one."""
    kept_out(log, out, note)
    for name in trial.op.outputs:
        want = tokens.cut(name, trial.truth().outputs[name], starts, count)
        compare(log, "decode", trial, name, out.tensors[name], want, note)
    for name, old in state.items():
        for b, start in enumerate(starts.tolist()):
            was, now = by_token(trial, name, old, b), by_token(trial, name, out.tensors[name], b)
            same = was[:start].tobytes() == now[:start].tobytes()
            log.verdict("decode", same, f"{name}{note}: cached entries have changed")
            beyond = now[start + count :]
            log.verdict("decode", bool(np.isnan(beyond).all()), f"{name}{note}: wrote beyond the new tokens")
