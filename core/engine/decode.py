"""Decoding: sequences that grow token by token, with a cache of keys and values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from core.engine.batch import Array
from core.engine.bound import BoundPlan
from core.errors import BuildError, DataError, UsageError
from core.plan import GENERATE, Plan, trimmed
from core.roles import S, T


def session_of(engine: Any, bind: Callable[..., BoundPlan], rows: int, capacity: int) -> DecodeSession:
    """A decode session of an engine: `Engine.session`. bind(plan, states): a plan with addresses."""
    graph = engine.graph
    most = graph.positions
    if S in graph.dims and capacity > most:
        raise UsageError(f"a session of {capacity} tokens: {graph.name} has S = {most} positions")
    capacity = capacity or most
    try:
        engine.graph_for({T: capacity} if T in graph.dims else {})
    except BuildError as error:
        raise UsageError(f"a session of {capacity} tokens: {error.message}", hint=error.hint) from None

    def plan(tokens: int, logits: bool) -> Plan:
        dims = dict(zip(engine.input_dims[engine.token_input], (rows, tokens), strict=True))
        made: Plan = engine.plan(GENERATE, (engine.logits_value,) if logits else (), capacity, dims)
        return made

    return DecodeSession(rows, capacity, plan, bind)


class DecodeSession:
    """Sequences that grow token by token, with the keys and values of what came before.

    rows: how many sequences. capacity: tokens that each can hold. `start` (rows,) i32: tokens held per row.
    plan(tokens, logits): the plan for so many more tokens of each row, with or without the logits behind the last one.
    bind(plan, states): that plan with addresses; all plans of a session share its states, the KV cache.
    """

    BUCKET = 32  # prompts are padded to multiples of this, so that few plans serve all lengths
    PIECE = 512  # tokens of a prompt that run at once: memory does not grow with the square of its length

    def __init__(
        self,
        rows: int,
        capacity: int,
        plan: Callable[[int, bool], Plan],
        bind: Callable[[Plan, dict[str, Any]], BoundPlan],
    ) -> None:
        self.rows, self.capacity, self._plan, self._bind = rows, capacity, plan, bind
        self.start = np.zeros(rows, np.int32)
        self._states: dict[str, Any] = {}
        self._plans: dict[tuple[int, bool], BoundPlan] = {}

    @property
    def room(self) -> int:
        """Tokens that the fullest row can still take."""
        return self.capacity - int(self.start.max())

    def rewind(self, count: int) -> None:
        """Truncate each row to its first `count` tokens; the next tokens follow these."""
        np.minimum(self.start, count, out=self.start)

    def feed(self, tokens: Array, counts: Array | None = None) -> Array:
        """Append tokens (rows, t) i32 and give the logits (rows, V) behind each row's last one.

        counts (rows,): how many of the t tokens each row has, at least 1; the rest is ignored. All but the last
        token of each row run without logits. Raises DataError when a row would hold more than `capacity`.
        """
        tokens = np.asarray(tokens, np.int32).reshape(self.rows, -1)
        counts = np.full(self.rows, tokens.shape[1], np.int32) if counts is None else np.asarray(counts, np.int32)
        if tokens.shape[1] < 1 or counts.min() < 1 or counts.max() > tokens.shape[1]:
            raise DataError(f"each row needs 1 to {tokens.shape[1]} tokens, got {counts.tolist()}")
        if int((self.start + counts).max()) > self.capacity:
            raise DataError(
                f"{int((self.start + counts).max())} tokens do not fit into a session of {self.capacity}",
                hint="start a new session with the last tokens, or ask for fewer new ones",
            )
        left = counts - 1
        while left.any():
            left -= self._prefill(tokens, counts - 1 - left, left)
        last = tokens[np.arange(self.rows), counts - 1][:, None]
        plan = self._run(last, logits=True)
        self.start += 1
        (value,) = plan.plan.request.outputs
        output = plan.device.download(plan.tensor(plan.plan.values[value]))
        return trimmed(output, plan.plan.graph.values[value].shape)[:, -1]

    def _prefill(self, tokens: Array, done: Array, left: Array) -> Array:
        """Run the next of the `left` tokens of each row, behind those that are `done`; how many of each (rows,).

        Shorter rows are padded; the padding's K/V entries are overwritten by later tokens.
        """
        length = min(-(-int(left.max()) // self.BUCKET) * self.BUCKET, self.PIECE, self.room)
        places = np.minimum(done[:, None] + np.arange(length), tokens.shape[1] - 1)
        self._run(np.clip(np.take_along_axis(tokens, places, axis=1), 0, None), logits=False)
        taken = np.minimum(left, length)
        self.start += taken
        return taken

    def plan(self, tokens: int, logits: bool = True) -> Plan:
        """The plan for `tokens` more of each row. BuildError for a model that cannot continue token by token."""
        return self._plan(tokens, logits)

    def _run(self, tokens: Array, logits: bool) -> BoundPlan:
        key = (tokens.shape[1], logits)
        if key not in self._plans:
            self._plans[key] = self._bind(self.plan(*key), self._states)
        plan_bound = self._plans[key]
        if not plan_bound.plan.steps:  # without state there is nothing to keep of a prompt
            return plan_bound
        plan_bound.write_inputs({plan_bound.plan.graph.token_input: tokens})
        plan_bound.write_start(self.start)
        plan_bound.run()
        return plan_bound
