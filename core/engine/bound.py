"""A plan with addresses: the inputs that change between steps, the recorded launches, and their replay."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from core.engine.batch import NO_SEEDS, Array, Batch, Seeds
from core.engine.store import ParameterStore
from core.errors import DataError
from core.plan import Buffer, Plan, Step
from core.plan.record import Pick, RecordedStep, record_steps
from core.roles import DOCUMENTS, POSITIONS, TARGETS

if TYPE_CHECKING:
    from core.device.protocol import Device
    from core.engine.states import States
    from core.engine.tracing import TraceEvent

Beside = Callable[[RecordedStep], Sequence[Any]]
AfterSteps = Callable[[Sequence[RecordedStep]], Mapping[int, Sequence[Any]]]


class Arena:
    """The memory that all plans of an engine share, grown for the largest; the others bind again when they run next."""

    def __init__(self, device: Device) -> None:
        self.device, self.memory = device, None

    def fit(self, nbytes: int) -> Any:
        """The memory, of at least `nbytes`."""
        if self.memory is None or nbytes > self.memory.nbytes:
            self.memory = self.device.allocate(nbytes)
        return self.memory


class BoundPlan:
    """A plan with addresses: its tensors, and the recorded first and later micro-steps."""

    def __init__(
        self,
        plan: Plan,
        store: ParameterStore,
        arena: Arena,
        control: Any,
        pick: Pick,
        capture: bool = True,
        states: States | None = None,
    ) -> None:
        """control: the control record, on the store's device. pick: `Chooser.pick`. capture: replay in the form that
        the device replays fastest. states: those of a decode session, which its plans share."""
        self.plan, self.store, self.arena, self.control, self.pick = plan, store, arena, control, pick
        self.device, self.capture = store.device, capture
        self._states = states
        self._own: dict[Buffer, Any] = {}
        self._flags: dict[bool, list[RecordedStep]] = {}
        self._commands: dict[tuple[bool, bool, bool], Sequence[Any]] = {}
        self._arena = arena.fit(plan.arena_bytes)

    def tensor(self, buffer: Buffer) -> Any:
        """The device's tensor of a buffer; on the cpu, an array."""
        if buffer.home == "arena":
            return self.device.tensor(self._arena, buffer.offset, buffer.shape, buffer.dtype)
        if buffer.home == "param":
            return self.store.place(self.store.weights, buffer.name)
        if buffer.home == "grad":
            return self.store.place(self.store.grads, buffer.name[1:])
        if buffer.home == "state":
            assert self._states is not None, "a plan with a state is of a decode session"
            return self._states.tensor(buffer)
        if buffer not in self._own:
            self._own[buffer] = self._allocate(buffer)
        return self._own[buffer]

    def _allocate(self, buffer: Buffer) -> Any:
        return self.device.tensor(self.device.allocate(buffer.nbytes), 0, buffer.shape, buffer.dtype)

    # --- changes between steps -------------------------------------------------------------------------------

    def _homed(self, home: str) -> list[Buffer]:
        return [b for b in self.plan.buffers if b.home == home and b.last >= 0]

    def write_inputs(self, batch: Batch) -> None:
        """Copy a batch in: integers, or numbers where the model declares activations. Without documents and positions,
        each row is one document.

        Raises DataError for a missing input, contents of another kind, or an integer outside its bounds.
        """
        roles = self.plan.graph.roles
        for buffer in self._homed("input"):
            value = self.plan.graph.inputs[buffer.name]
            if buffer.name in batch:
                array = np.asarray(batch[buffer.name])
            elif buffer.name in (roles.get(DOCUMENTS), roles.get(POSITIONS)):
                places = np.arange(buffer.shape[-1]) if buffer.name == roles.get(POSITIONS) else 0
                array = np.broadcast_to(np.int32(places), buffer.shape)
            else:
                raise DataError(f'input "{buffer.name}" is missing; got {", ".join(batch)}')
            if array.shape != buffer.shape:
                raise DataError(f"input {buffer.name} has shape {array.shape}, expected {buffer.shape}")
            kinds, expected = ("fiu", "numbers") if value.dtype in (None, "acc") else ("iu", "integers")
            if array.dtype.kind not in kinds:
                raise DataError(f"input {buffer.name} holds {array.dtype}, expected {expected}")
            if value.bound is not None and not value.negative and array.size and int(array.min()) < 0:
                raise DataError(f"input {buffer.name} holds {int(array.min())}; only {TARGETS} may be negative")
            if value.bound is not None and array.size and int(array.max()) >= value.bound:
                raise DataError(
                    f"input {buffer.name} holds {int(array.max())}, and the largest that the model knows is "
                    f"{value.bound - 1}"
                )
            self.device.upload(self.tensor(buffer), array)

    def write_seeds(self, count: int, micro_steps: int, seeds: Seeds = NO_SEEDS) -> None:
        """The loss terms' gradients: weight / count for a term per token, weight / micro-steps for a scalar. seeds:
        term -> its own instead, in the term's shape, f32 or f64."""
        for value, buffer in self.plan.seeds.items():
            weight = self.plan.graph.loss[value]
            share = weight / max(count, 1) if buffer.shape else weight / micro_steps
            seed = seeds[value] if value in seeds else np.full(buffer.shape, share)
            self.device.upload(self.tensor(buffer), seed)

    def write_keys(self, seed: int, step: int, first_rows: Mapping[str, int]) -> None:
        """The random ops' keys: (seed, crc32 of the node's name, step, the node's first row within the whole step).

        first_rows: node -> rows of its tensor in the step's micro-batches before this one; 0 where a node is missing.
        """
        for buffer in self._homed("key"):
            node = buffer.name.removesuffix(".key")
            first = first_rows.get(node, 0) & 0xFFFFFFFF
            key = np.array([seed & 0xFFFFFFFF, zlib.crc32(node.encode()), step, first], np.uint32)
            self.device.upload(self.tensor(buffer), key)

    def write_places(self, start: Array, counts: Array) -> None:
        """Tokens that each row holds, and how many of the next ones it has: (rows,) i32."""
        for home, values in (("start", start), ("counts", counts)):
            for buffer in self._homed(home):
                self.device.upload(self.tensor(buffer), values)

    # --- recording and replay --------------------------------------------------------------------------------

    def run(self, first: bool = True, beside: Beside | None = None, after: AfterSteps | None = None) -> None:
        """Replay one micro-step. beside: gives commands to run after each step; after: gives commands to run after
        steps, by the step's number among all. Both are the same ones in every call."""
        self._bind()
        key = first, beside is not None, after is not None
        if key not in self._commands:
            recorded, commands = self._recorded(first), list[Any]()
            further = after(recorded) if after else {}
            for number, record in enumerate(recorded):
                commands += [*record.commands, *(beside(record) if beside else ()), *further.get(number, ())]
            self._commands[key] = self.device.captured(commands) if self.capture else commands
        self.device.run(self._commands[key])

    def launches(self) -> list[Any]:
        """The recorded commands of the first micro-step."""
        self._bind()
        return [c for recorded in self._recorded(True) for c in recorded.commands]

    def trace(self, first: bool = True) -> Iterator[TraceEvent]:
        """Run one micro-step step by step."""
        from core.engine.tracing import events  # training needs none

        self._bind()
        return events(self._recorded(first), self.device)

    def timed(self) -> list[tuple[Step, float]]:
        """Run the first micro-step, each step timed separately: (step, seconds)."""
        self._bind()
        recorded = self._recorded(True)
        seconds = self.device.elapsed([r.commands for r in recorded])
        return [(r.step, taken) for r, taken in zip(recorded, seconds, strict=True)]

    def _bind(self) -> None:
        """See that the recorded addresses are those of the arena of now."""
        if self._arena is not self.arena.memory:
            self._arena = self.arena.memory
            self._flags.clear()
            self._commands.clear()

    def _recorded(self, first: bool) -> list[RecordedStep]:
        if first not in self._flags:
            self._flags[first] = record_steps(self.plan, self.device, self.pick, self.tensor, self.control, first)
        return self._flags[first]
