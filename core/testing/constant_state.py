"""Decoding with a state of constant size compared with all tokens at once.

T tokens are fed at once, T-1 and then 1, one by one, in pieces, and rows of different lengths side by side, the shorter
ones padded. After each call the outputs are the truth's, and the state is that of the reference in f64, since the plans
of a session may run different variants; a row without a token keeps its state bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from core.engine.states import initial
from core.graph.init import settle_state
from core.testing.compare import Array
from core.testing.log import Log, compare, kept_out, no_excuse
from core.testing.token_axes import Tokens
from core.testing.trial import LONG, Trial

SINGLES = 16  # tokens of the longest example that is fed one by one


def first_state(trial: Trial) -> dict[str, Array]:
    """The state before the first token: of constant size, its initial contents; zeros of a cache."""
    state = {}
    for name in trial.op.state:
        shape, rule = trial.case.spec(name, trial.dtype).shape, trial.op.constant_state.get(name, "zeros")
        rule = settle_state(rule, trial.case.dims, f'op "{trial.op.name}", state "{name}"')
        state[name] = np.array(initial(rule, shape))
    return state


def check_constant(log: Log, trial: Trial, tokens: Tokens) -> None:
    """All ways of feeding the tokens; the tile candidates of the variant where the last token follows the others."""
    for name, calls in ways_of(tokens.count, tokens.rows, trial.at_once or tokens.count):
        if trial.case.longest > LONG and name not in ("the last token", "rows apart"):
            continue
        candidates: list[Any] = trial.configs if name == "the last token" and not trial.at_once else []
        for number, config in enumerate([*candidates] or [None]):
            note = f" ({name}{f', config {config}' if number else ''})"
            fed(log, trial, tokens, calls, config, note)


def ways_of(count: int, rows: int, most: int) -> Iterator[tuple[str, list[Array]]]:
    """(name, the tokens of each row in each call) of the ways to feed `count` tokens, at most `most` a call."""
    every = np.ones(rows, np.int32)

    def calls(*sizes: Array) -> list[Array]:
        return [part for size in sizes for part in pieces(size, most)]

    third = max(1, count // 3)
    staggered = np.arange(rows, dtype=np.int32) * (count - 1) // max(1, rows - 1)
    yield "all tokens at once", calls(count * every)
    yield "the last token", calls((count - 1) * every, every)
    if count <= SINGLES:
        yield "one by one", [every] * count
    cuts = sorted({0, third, min(third + 1, count), count})
    yield "in pieces", calls(*(size * every for size in np.diff(cuts)))
    yield "rows apart", calls(staggered, count - staggered)


def pieces(size: Array, most: int) -> list[Array]:
    """The tokens of each row in calls of at most `most`; none for no tokens."""
    parts = []
    while size.any():
        parts.append(np.minimum(size, most).astype(np.int32))
        size = size - parts[-1]
    return parts


def fed(
    log: Log, trial: Trial, tokens: Tokens, calls: list[Array], config: Mapping[str, Any] | None, note: str
) -> None:
    """Feed the tokens by `calls`, and compare each with the truth and with the reference's state."""
    truth = trial.truly()
    state = first_state(trial)
    for name in state.keys() - trial.op.constant_state.keys():
        state[name].fill(np.nan)  # a place of a cache that no token has written yet
    true_state = {n: v.astype(np.float64) for n, v in state.items()}
    start = np.zeros(tokens.rows, np.int32)
    for counts in calls:
        if not counts.any():
            continue
        width = int(counts.max())
        call = trial.feed_call(tokens.some(trial.values, start, width), state, start, counts)
        candidates = trial.variant.configs(call.specs())
        out = trial.fed(call, config if config in candidates else candidates[0] if candidates else {})
        true = truth.feed(tokens.some(truth.values, start, width), true_state, start, counts)
        kept_out(log, out, note)
        for name in trial.op.outputs:
            missing = f"{name}{note}: the tokens after t.counts are not written; later ops read them"
            log.verdict("written", not np.isnan(out.tensors[name]).any(), missing)
            want = tokens.cut(name, trial.truth().outputs[name], start, width)
            got = np.where(tokens.mask(name, want, counts), out.tensors[name], want)
            compare(log, "decode", trial, name, got, want, f"{note}, {counts.tolist()} tokens after {start.tolist()}")
        for name in trial.op.constant_state:
            was, now, want = state[name], out.tensors[name], true.tensors[name]
            idle = counts == 0
            message = f"{name}{note}: the state of a row without a token has changed"
            log.verdict("decode", np.array_equal(was[idle], now[idle]), message)
            label = f"{note}, state after {(start + counts).tolist()} tokens"
            compare(log, "decode", trial, name, now, want, label, no_excuse)
        state = {n: out.tensors[n].copy() for n in state}
        true_state = {n: true.tensors[n].copy() for n in true_state}
        start = start + counts
