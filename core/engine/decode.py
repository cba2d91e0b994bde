"""Decoding: sequences that grow token by token, with a state of the earlier tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from core.engine.batch import Array
from core.engine.bound import BoundPlan
from core.engine.states import States
from core.errors import BuildError, DataError, UsageError
from core.graph import Graph
from core.plan import GENERATE, Plan, trimmed
from core.roles import POSITIONS, S, T


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
        _check_attributes(made, graph)
        return made

    return DecodeSession(rows, capacity, plan, bind, States(engine.device))


def _check_attributes(plan: Plan, graph: Graph) -> None:
    """BuildError for an attribute that B or T settles: in a session they are the rows and the tokens of one call."""
    for node in (part for whole in plan.nodes for part in whole.parts or (whole,)):
        trained = graph.node(node.name)
        if trained is None:
            continue
        for name, value in node.attrs.items():
            if value != trained.attrs[name]:
                raise BuildError(
                    f"{graph.name} cannot generate: {node.where}, node {node.name}: {name} is {trained.attrs[name]} in "
                    f"training and {value} here, since B and T are the rows and the tokens of one call",
                    hint=f"arithmetic over other dims in {name}; sample_every = 0 trains without samples",
                )


class DecodeSession:
    """Sequences that grow token by token. Their state: caches with a place for each token, states of constant size.

    rows: how many sequences. capacity: tokens that each can hold. `start` (rows,) i32: tokens held per row.
    plan(tokens, logits): the plan for further tokens of each row, with or without the logits after the last.
    bind(plan, states): that plan with addresses; all plans of a session share its states.
    """

    BUCKET = 32  # prompts are padded to multiples of this, so that few plans serve all lengths
    PIECE = 512  # tokens of a prompt that run at once: memory does not grow with the square of its length

    def __init__(
        self,
        rows: int,
        capacity: int,
        plan: Callable[[int, bool], Plan],
        bind: Callable[[Plan, States], BoundPlan],
        states: States,
    ) -> None:
        self.rows, self.capacity, self._plan, self._bind = rows, capacity, plan, bind
        self.start = np.zeros(rows, np.int32)
        self._states = states
        self._plans: dict[tuple[int, bool], BoundPlan] = {}

    @property
    def room(self) -> int:
        """Tokens that the fullest row can still take."""
        return self.capacity - int(self.start.max())

    def rewind(self, count: int) -> None:
        """Truncate each row to its first `count` tokens or fewer, `start`; the next tokens follow these.

        A state of constant size does not give earlier ones back: with one, a row that is longer starts again.
        """
        longer = self.start > count
        self.start[longer] = 0 if self._states.constant else count
        self._states.reset(np.flatnonzero(longer & (self.start == 0)))

    def feed(self, tokens: Array, counts: Array | None = None) -> Array:
        """Append tokens (rows, t) i32 and give the logits (rows, V) after each row's last one.

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
                hint="start a new session with the last tokens, or request fewer new ones",
            )
        left = counts - 1
        while left.any():
            left -= self._prefill(tokens, counts - 1 - left, left)
        last = tokens[np.arange(self.rows), counts - 1][:, None]
        plan = self._run(last, np.ones(self.rows, np.int32), logits=True)
        self.start += 1
        (value,) = plan.plan.request.outputs
        output = plan.device.download(plan.tensor(plan.plan.values[value]))
        return trimmed(output, plan.plan.graph.values[value].shape)[:, -1]

    def _prefill(self, tokens: Array, done: Array, left: Array) -> Array:
        """Run the next of the `left` tokens of each row, after those that are `done`; the number of each (rows,).

        Shorter rows are padded: later tokens overwrite the padding's places of a cache, and none of it enters a state
        of constant size.
        """
        length = min(-(-int(left.max()) // self.BUCKET) * self.BUCKET, self.PIECE, self.room)
        places = np.minimum(done[:, None] + np.arange(length), tokens.shape[1] - 1)
        taken = np.minimum(left, length)
        self._run(np.clip(np.take_along_axis(tokens, places, axis=1), 0, None), taken, logits=False)
        self.start += taken
        return taken

    def plan(self, tokens: int, logits: bool = True) -> Plan:
        """The plan for `tokens` more of each row. BuildError for a model that cannot continue token by token."""
        return self._plan(tokens, logits)

    def _run(self, tokens: Array, counts: Array, logits: bool) -> BoundPlan:
        key = (tokens.shape[1], logits)
        if key not in self._plans:
            self._plans[key] = self._bind(self.plan(*key), self._states)
        plan_bound = self._plans[key]
        if not plan_bound.plan.steps:  # without state there is nothing to keep of a prompt
            return plan_bound
        graph, places = plan_bound.plan.graph, self.start[:, None] + np.arange(tokens.shape[1])
        batch = {graph.token_input: tokens}
        if POSITIONS in graph.roles:  # padding may go beyond the last one: nothing reads it
            batch[graph.roles[POSITIONS]] = np.minimum(places, self.capacity - 1)
        plan_bound.write_inputs(batch)
        plan_bound.write_places(self.start, counts)
        plan_bound.run()
        return plan_bound
