"""Plans bound to a device: parameters in flat arenas, recorded steps, forward, backward, update, decoding.

An Engine owns the memory. A plan is bound once: every tensor gets its address and each launcher is called once to
record what it launches; a step replays the record. The first micro-step of a step and the later ones are two
records, since the first writes parameter gradients and the others add to them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.device import open_device
from core.device.cpu import cores
from core.dtypes import check_precision, itemsize, resolve
from core.errors import BuildError, DataError, DeviceError, UsageError, did_you_mean
from core.graph import Graph, ModelSource
from core.graph.init import draw_all
from core.op import CONTROL, SLOT, Optimizer, Pattern, Tensors, make_tensors
from core.plan import (
    EVALUATE,
    GENERATE,
    GROUP,
    TRAIN,
    Buffer,
    Choice,
    Chooser,
    ParameterLayout,
    Plan,
    Request,
    Step,
    make_plan,
    trimmed,
)
from core.registry import Registry

Array = np.ndarray[Any, Any]
Batch = Mapping[str, Array]  # graph input -> integers
TARGETS = "targets"  # the graph input whose negative entries are left out of the loss


@dataclass(frozen=True)
class Settings:
    """How a model is to be run: device, precision, chosen variants, fusion, what trains and how.

    ops, generate: op -> variant. nodes: glob -> variant. recorded: node -> variant, of the run that is resumed.
    fusion: fused op -> False or its attrs. optimizer: name; options: its options, and "clip".
    dims: overrides of the model's dims. alias, in_place: False only in tests.
    """

    device: str = "cpu"
    precision: str = "f32"
    dims: Mapping[str, Any] = field(default_factory=dict)
    ops: Mapping[str, str] = field(default_factory=dict)
    generate: Mapping[str, str] = field(default_factory=dict)
    nodes: Mapping[str, str] = field(default_factory=dict)
    recorded: Mapping[str, str] = field(default_factory=dict)
    fusion: Mapping[str, Any] = field(default_factory=dict)
    recompute: Sequence[str] = ()
    freeze: Sequence[str] = ()
    optimizer: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 1337
    alias: bool = True
    in_place: bool = True


@dataclass(frozen=True)
class Record:
    """What a training step reports. loss: the objective, a mean over targets >= 0. ok: False if nothing was updated
    because the loss or the gradient norm was not finite."""

    loss: float
    norm: float
    ok: bool
    step: int


@dataclass(frozen=True)
class TraceEvent:
    """One step of a traced run: `kind` ("forward", "backward", "add", ...), the node's name ("" for add, copy and
    fill), the variant's name, and every tensor it saw after it ran, by schema name, without padding."""

    kind: str
    node: str
    variant: str
    tensors: dict[str, Array | None]


class Engine:
    """A model on a device. Parameters start at zero: call `initialize` or `load_parameters`."""

    def __init__(self, model: ModelSource, registry: Registry, settings: Settings) -> None:
        self.model, self.registry, self.settings = model, registry, settings
        self.device = open_device(settings.device)
        self.precision = check_precision(settings.precision)
        if self.precision not in self.device.precisions:
            raise DeviceError(
                f"{self.device.name} does not compute in {self.precision}",
                hint=f"it computes in {', '.join(self.device.precisions)}: --set precision=f32",
            )
        self.graph = model.build(registry, dict(settings.dims))
        patterns = model.document["inputs"]
        self.input_dims = {n: Pattern.parse(text, f"inputs.{n}").tokens for n, text in patterns.items()}
        self.layout = ParameterLayout(self.graph, settings.freeze)
        self.chooser = Chooser(
            registry,
            self.device.runs,
            self.precision,
            settings.ops,
            settings.nodes,
            settings.generate,
            settings.recorded,
        )
        self.chooser.check_names(self.graph)
        self.weights = self._flat(self.layout.size, None)
        self.control = self.device.tensor(self.device.allocate(8 * len(CONTROL)), 0, (len(CONTROL),), "f64")
        self._grads: Array | None = None
        self._states: dict[str, Array] | None = None
        self._update: list[Any] = []
        self._graphs: dict[tuple[tuple[str, int], ...], Graph] = {(): self.graph}
        self._bound: dict[Any, BoundPlan] = {}
        self.arena = self.device.allocate(0)

    # --- parameters and state --------------------------------------------------------------------------------

    def _flat(self, size: int, dtype: str | None) -> Array:
        kind = resolve(dtype, self.precision)
        return self.device.tensor(self.device.allocate(size * itemsize(kind)), 0, (size,), kind)

    def place(self, flat: Array, name: str) -> Array:
        """The parameter `name` within a flat arena, with padding."""
        where = self.layout.places[name]
        return flat[where.offset : where.offset + where.size].reshape(where.shape)

    def initialize(self, seed: int) -> None:
        """Draw every parameter; a parameter's values depend on the seed and its name alone."""
        draw_all(self.graph, seed, lambda name: self.place(self.weights, name), cores())

    def parameters(self) -> dict[str, Array]:
        """Views of all parameters without padding, in the graph's order."""
        return self._by_name(self.weights, self.graph.parameters)

    def _by_name(self, flat: Array, names: Mapping[str, Any] | Sequence[str]) -> dict[str, Array]:
        return {n: trimmed(self.place(flat, n), self.layout.places[n].shape) for n in names}

    def _trainable(self) -> list[str]:
        return [n for n in self.graph.parameters if self.layout.places[n].trains]

    def load_parameters(self, values: Mapping[str, Array]) -> None:
        """Set parameters from arrays without padding. Raises BuildError unless names and shapes are exactly ours."""
        _copy_in(self.parameters(), values, f"parameters of {self.graph.name}")

    def optimizer_state(self) -> dict[str, dict[str, Array]]:
        """Views of the optimizer's tensors: state -> parameter -> array without padding."""
        names = self._trainable()
        return {state: self._by_name(flat, names) for state, flat in self.states.items()}

    def load_optimizer_state(self, values: Mapping[str, Mapping[str, Array]]) -> None:
        """Set the optimizer's tensors. Raises BuildError unless states, names and shapes are exactly ours."""
        ours = self.optimizer_state()
        if set(values) != set(ours):
            raise BuildError(f"optimizer state: expected {sorted(ours)}, got {sorted(values)}")
        for state, arrays in ours.items():
            _copy_in(arrays, values[state], f"optimizer state {state}")

    @property
    def grads(self) -> Array:
        """The flat gradients of what trains."""
        if self._grads is None:
            self._grads = self._flat(self.layout.trainable, "acc")
        return self._grads

    @property
    def states(self) -> dict[str, Array]:
        """The optimizer's flat state tensors."""
        if self._states is None:
            self._states = {name: self._flat(self.layout.trainable, "acc") for name in self._optimizer().state}
        return self._states

    def _optimizer(self) -> Optimizer:
        if not self.settings.optimizer:
            raise UsageError("this model was loaded without an optimizer: nothing to update with")
        return self.registry.optimizer(self.settings.optimizer)

    # --- plans -----------------------------------------------------------------------------------------------

    def graph_for(self, dims: Mapping[str, int]) -> Graph:
        """The model with other dims, such as B and T."""
        key = tuple(sorted((k, v) for k, v in dims.items() if self.graph.dims.get(k) != v))
        if key not in self._graphs:
            self._graphs[key] = self.model.build(self.registry, {**self.settings.dims, **dict(key)})
        return self._graphs[key]

    def plan(
        self, kind: str, outputs: Sequence[str] = (), capacity: int = 0, dims: Mapping[str, int] | None = None
    ) -> Plan:
        """The plan for a request, unbound: what `core plan` shows. dims: other sizes, such as B and T."""
        request = Request(
            kind,
            tuple(outputs),
            capacity,
            tuple(self.settings.recompute),
            self.settings.fusion,
            self.settings.alias,
            self.settings.in_place,
        )
        return make_plan(self.graph_for(dims or {}), request, self.chooser, self.layout)

    def bound(self, kind: str, outputs: Sequence[str], dims: Mapping[str, int]) -> BoundPlan:
        """The plan for a request, bound; made once."""
        key = (kind, tuple(outputs), tuple(sorted(dims.items())))
        if key not in self._bound:
            self._bound[key] = BoundPlan(self, self.plan(kind, outputs, dims=dims))
        return self._bound[key]

    def arena_for(self, plan: Plan) -> Array:
        """The arena that all plans share, grown when one needs more; the others bind again when they run next."""
        if plan.arena_bytes > self.arena.nbytes:
            self.arena = self.device.allocate(plan.arena_bytes)
        return self.arena

    def _dims_of(self, batch: Batch) -> dict[str, int]:
        """B and T as the batch has them, by the patterns of the graph's inputs."""
        dims: dict[str, int] = {}
        for name, array in batch.items():
            if name not in self.graph.inputs:
                raise DataError(f'{self.graph.name} has no input "{name}"{did_you_mean(name, self.graph.inputs)}')
            tokens = self.input_dims[name]
            if array.ndim != len(tokens):
                raise DataError(f"input {name} has shape {array.shape}, expected ({', '.join(tokens)})")
            for token, size in zip(tokens, array.shape, strict=True):
                if dims.setdefault(token, size) != size:
                    raise DataError(f"input {name} has {token} = {size}, another one has {dims[token]}")
        return dims

    # --- running ---------------------------------------------------------------------------------------------

    def gradients(self, batch: Batch) -> tuple[float, dict[str, Array]]:
        """(loss, gradients by parameter name, copies without padding) of one batch; nothing is updated."""
        self._start_step()
        self._micro_steps([batch])
        found = self._by_name(self.grads, self._trainable())
        return float(self.control[SLOT["loss"]]), {name: array.copy() for name, array in found.items()}

    def step(self, micro_batches: Sequence[Batch], lr: float) -> Record:
        """Forward and backward over the micro-batches, then one update."""
        update = self._recorded_update()
        self._start_step()
        self.control[SLOT["lr"]] = lr
        self._micro_steps(micro_batches)
        self.device.run(update)
        values = self.device.download(self.control)
        return Record(
            float(values[SLOT["loss"]]),
            float(values[SLOT["norm"]]),
            bool(values[SLOT["ok"]]),
            int(values[SLOT["step"]]),
        )

    def set_step(self, step: int) -> None:
        """The number of updates done, when a run is resumed."""
        self.control[SLOT["step"]] = step

    def _start_step(self) -> None:
        self.control[SLOT["loss"]] = 0.0
        self.control[SLOT["loss_scale"]] = 1.0

    def _micro_steps(self, batches: Sequence[Batch]) -> None:
        count = sum(_count(batch) for batch in batches)
        first_row = 0
        for index, batch in enumerate(batches):
            plan = self.bound(TRAIN, (), self._dims_of(batch))
            plan.write_inputs(batch)
            plan.write_seeds(count, len(batches))
            plan.write_keys(self.settings.seed, int(self.control[SLOT["step"]]), first_row)
            plan.run(first=index == 0)
            first_row += next(iter(batch.values())).size

    def _recorded_update(self) -> list[Any]:
        """The optimizer's step over the flat arenas, recorded once."""
        if not self._update:
            optimizer, n = self._optimizer(), self.layout.trainable
            if not n:
                raise UsageError(f"[train] freeze leaves no parameter of {self.graph.name} to train")
            groups = self.layout.groups()[: n // GROUP]
            group = self.device.tensor(self.device.allocate(groups.nbytes), 0, groups.shape, "u8")
            self.device.upload(group, groups)
            p = Tensors(
                **{"clip": 0.0, **optimizer.options, **self.settings.options},
                **self.states,
                param=self.weights[:n],
                grad=self.grads,
                group=group,
                control=self.control,
                master=None,
            )
            self._update = self.device.record_calls(lambda launch: optimizer.step(p, launch), self.chooser.pick)
        return self._update

    def evaluate(self, batch: Batch) -> tuple[float, int]:
        """(the loss terms' weighted sum, the number of targets >= 0) of a batch, without gradients."""
        terms = tuple(self.graph.loss)
        plan = self.bound(EVALUATE, terms, self._dims_of(batch))
        plan.write_inputs(batch)
        plan.run()
        count = _count(batch)
        total = 0.0
        for value, weight in self.graph.loss.items():
            found = self.device.download(plan.tensor(plan.plan.values[value])).astype(np.float64)
            total += weight * (float(found.sum()) if found.ndim else float(found) * count)
        return total, count

    def values(self, batch: Batch, names: Sequence[str]) -> list[Array]:
        """Copies of the graph's values `names` for a batch, without padding."""
        plan = self.bound(EVALUATE, tuple(names), self._dims_of(batch))
        plan.write_inputs(batch)
        plan.run()
        graph = plan.plan.graph
        return [trimmed(self.device.download(plan.tensor(plan.plan.values[n])), graph.values[n].shape) for n in names]

    def logits(self, tokens: Array) -> Array:
        """(B, T, V) logits of tokens (B, T)."""
        return self.values({self.token_input: tokens}, [self.logits_value])[0]

    @property
    def logits_value(self) -> str:
        if self.graph.logits is None:
            raise UsageError(f"model {self.graph.name} names no logits")
        return self.graph.logits

    @property
    def token_input(self) -> str:
        """The graph input that holds the tokens: the first one that is not the targets."""
        return next(name for name in self.graph.inputs if name != TARGETS)

    def trace(self, batch: Batch) -> Iterator[TraceEvent]:
        """Run one training micro-step, stopping after every step of the plan. Tensors are views: copy to keep."""
        self._start_step()
        plan = self.bound(TRAIN, (), self._dims_of(batch))
        plan.write_inputs(batch)
        plan.write_seeds(_count(batch), 1)
        plan.write_keys(self.settings.seed, int(self.control[SLOT["step"]]), 0)
        yield from plan.trace()

    def session(self, rows: int, capacity: int = 0) -> DecodeSession:
        """A decode session for `rows` sequences; capacity in tokens, by default the model's S, else its T."""
        return DecodeSession(self, rows, capacity or int(self.graph.dims.get("S", self.graph.dims.get("T", 0))))

    # --- what people want to see -----------------------------------------------------------------------------

    def memory(self, plan: Plan) -> dict[str, int]:
        """Bytes of parameters, gradients, optimizer, and the plan's arena with its parts."""
        acc = itemsize(resolve("acc", self.precision))
        optimizer = len(self._optimizer().state) if self.settings.optimizer else 0
        training = plan.request.kind == TRAIN
        return {
            "parameters": self.layout.size * itemsize(resolve(None, self.precision)),
            "gradients": self.layout.trainable * acc if training else 0,
            "optimizer": self.layout.trainable * acc * optimizer if training else 0,
            "activations": plan.arena_bytes,
            "saved": plan.saved_bytes,
            "workspace": plan.workspace_bytes,
        }

    def choices(self, plan: Plan) -> dict[str, Choice]:
        """What runs: the choice of each node of the plan, then by op name those of nested launches and the update."""
        if plan.request.kind == TRAIN and self.settings.optimizer:
            self._recorded_update()
        return {**plan.choices, **self.chooser.picked}

    def table(self, plan: Plan) -> list[dict[str, Any]]:
        """One row per (op, variant, reason): op, variant, how many nodes, source, why, the first node."""
        rows: dict[tuple[str, str, str], dict[str, Any]] = {}
        for name, choice in self.choices(plan).items():
            op, variant = choice.variant.op, choice.variant.name
            first = {"op": op, "variant": variant, "nodes": 0, "source": choice.variant.origin, "why": choice.why}
            row = rows.setdefault((op, variant, choice.why), {**first, "node": name})
            row["nodes"] += 1
        return list(rows.values())


class BoundPlan:
    """A plan with addresses: its tensors, and the recorded first and later micro-steps."""

    def __init__(self, engine: Engine, plan: Plan, states: dict[str, Array] | None = None) -> None:
        self.engine, self.device, self.plan = engine, engine.device, plan
        self._states = states if states is not None else {}
        self._own: dict[Buffer, Array] = {}
        self._flags: dict[bool, list[tuple[Step, Tensors, list[Any]]]] = {}
        self._commands: dict[bool, list[Any]] = {}
        self._arena = engine.arena_for(plan)

    def tensor(self, buffer: Buffer) -> Array:
        """The array of a buffer."""
        if buffer.home == "arena":
            return self.device.tensor(self._arena, buffer.offset, buffer.shape, buffer.dtype)
        if buffer.home == "param":
            return self.engine.place(self.engine.weights, buffer.name)
        if buffer.home == "grad":
            return self.engine.place(self.engine.grads, buffer.name[1:])
        if buffer.home == "state":
            if buffer.name not in self._states:
                self._states[buffer.name] = self._allocate(buffer)
            return self._states[buffer.name]
        if buffer not in self._own:
            self._own[buffer] = self._allocate(buffer)
        return self._own[buffer]

    def _allocate(self, buffer: Buffer) -> Array:
        return self.device.tensor(self.device.allocate(buffer.nbytes), 0, buffer.shape, buffer.dtype)

    # --- what changes between steps --------------------------------------------------------------------------

    def _homed(self, home: str) -> list[Buffer]:
        return [b for b in self.plan.buffers if b.home == home and b.last >= 0]

    def write_inputs(self, batch: Batch) -> None:
        """Copy a batch in. Raises DataError for a missing input or an integer outside its bounds."""
        for buffer in self._homed("input"):
            value = self.plan.graph.inputs[buffer.name]
            if buffer.name not in batch:
                raise DataError(f'input "{buffer.name}" is missing; got {", ".join(batch)}')
            given = np.asarray(batch[buffer.name])
            if given.shape != buffer.shape:
                raise DataError(f"input {buffer.name} has shape {given.shape}, expected {buffer.shape}")
            if given.dtype.kind not in "iu":
                raise DataError(f"input {buffer.name} holds {given.dtype}, expected integers")
            if value.bound is not None and buffer.name != TARGETS and given.size and int(given.min()) < 0:
                raise DataError(f"input {buffer.name} holds {int(given.min())}; only {TARGETS} may be negative")
            if value.bound is not None and given.size and int(given.max()) >= value.bound:
                raise DataError(
                    f"input {buffer.name} holds {int(given.max())}, and the largest that the model knows is "
                    f"{value.bound - 1}"
                )
            self.device.upload(self.tensor(buffer), given)

    def write_seeds(self, count: int, micro_steps: int) -> None:
        """The loss terms' gradients: weight / count for a term per token, weight / micro-steps for a scalar."""
        for value, buffer in self.plan.seeds.items():
            weight = self.plan.graph.loss[value]
            share = weight / max(count, 1) if buffer.shape else weight / micro_steps
            self.device.upload(self.tensor(buffer), np.full(buffer.shape, share))

    def write_keys(self, seed: int, step: int, first_row: int) -> None:
        """The random ops' keys: (seed, crc32 of the node's name, step, first global row)."""
        for buffer in self._homed("key"):
            node = buffer.name.removesuffix(".key")
            key = np.array([seed & 0xFFFFFFFF, zlib.crc32(node.encode()), step, first_row & 0xFFFFFFFF], np.uint32)
            self.device.upload(self.tensor(buffer), key)

    def write_start(self, start: Array) -> None:
        for buffer in self._homed("start"):
            self.device.upload(self.tensor(buffer), start)

    # --- recording and replay --------------------------------------------------------------------------------

    def run(self, first: bool = True) -> None:
        """Replay one micro-step."""
        self._bind()
        if first not in self._commands:
            self._commands[first] = [c for _, _, commands in self._recorded(first) for c in commands]
        self.device.run(self._commands[first])

    def trace(self) -> Iterator[TraceEvent]:
        """Run the first micro-step step by step."""
        self._bind()
        for step, t, commands in self._recorded(True):
            self.device.run(commands)
            if step.kind == "objective":
                continue
            tensors = {}
            for name, buffer in step.tensors.items():
                if name not in ("workspace", "counters"):
                    array = getattr(t, name)
                    tensors[name] = None if array is None or buffer is None else trimmed(array, buffer.shape)
            yield TraceEvent(
                step.kind, step.node.name if step.node else "", step.variant.name if step.variant else "", tensors
            )

    def _bind(self) -> None:
        """See that the recorded addresses are those of the arena of now."""
        if self._arena is not self.engine.arena:
            self._arena = self.engine.arena
            self._flags.clear()
            self._commands.clear()

    def _recorded(self, first: bool) -> list[tuple[Step, Tensors, list[Any]]]:
        if first not in self._flags:
            steps = [s for s in self.plan.steps if first or not s.first_only]
            self._flags[first] = [(step, *self._record(step, first)) for step in steps]
            for value, seed in self.plan.seeds.items():
                dot = self.device.dot_into(
                    self.engine.control, SLOT["loss"], self.tensor(self.plan.values[value]), self.tensor(seed)
                )
                self._flags[first].append((Step("objective", None, None, {}), Tensors(), dot))
        return self._flags[first]

    def _record(self, step: Step, first: bool) -> tuple[Tensors, list[Any]]:
        tensors = {name: None if b is None else self.tensor(b) for name, b in step.tensors.items()}
        if step.node is None or step.variant is None:
            primitive: Callable[..., list[Any]] = getattr(self.device, step.kind)
            arguments = [0.0] if step.kind == "fill" else [tensors["source"]]
            return Tensors(**tensors), primitive(tensors["target"], *arguments)
        flags: dict[str, Any] = {f"add_d{r}": False for r in (*step.node.op.inputs, *step.node.op.params)}
        for name, flag in step.flags.items():
            flags[name] = not first if flag == "later" else bool(flag)
        workspace = tensors.pop("workspace", None)
        t = make_tensors(step.node.dims, tensors, **flags, node=step.node.name)
        method = "forward" if step.kind in ("forward", "recompute") else step.kind
        return t, self.device.record(step.variant, method, t, self.engine.chooser.pick, workspace)


class DecodeSession:
    """Sequences that grow token by token, with the keys and values of what came before.

    rows: how many sequences. capacity: tokens that each can hold. `start` (rows,) i32: tokens held per row.
    """

    BUCKET = 32  # prompts are padded to multiples of this, so that few plans serve all lengths

    def __init__(self, engine: Engine, rows: int, capacity: int) -> None:
        self.engine, self.rows, self.capacity = engine, rows, capacity
        self.start = np.zeros(rows, np.int32)
        self._states: dict[str, Array] = {}
        self._plans: dict[tuple[int, bool], BoundPlan] = {}

    @property
    def room(self) -> int:
        """Tokens that the fullest row can still take."""
        return self.capacity - int(self.start.max())

    def reset(self) -> None:
        """Forget all tokens."""
        self.start[:] = 0

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
        longest = int(counts.max()) - 1
        if longest:
            length = min(-(-longest // self.BUCKET) * self.BUCKET, self.room)
            prompt = np.zeros((self.rows, length), np.int32)
            width = min(length, tokens.shape[1])
            prompt[:, :width] = tokens[:, :width]
            np.clip(prompt, 0, None, out=prompt)
            self._run(prompt, logits=False)
            self.start += counts - 1
        last = tokens[np.arange(self.rows), counts - 1][:, None]
        plan = self._run(last, logits=True)
        self.start += 1
        value = self.engine.logits_value
        found = self.engine.device.download(plan.tensor(plan.plan.values[value]))
        return trimmed(found, plan.plan.graph.values[value].shape)[:, -1]

    def _run(self, tokens: Array, logits: bool) -> BoundPlan:
        engine = self.engine
        name = engine.token_input
        key = (tokens.shape[1], logits)
        if key not in self._plans:
            dims = dict(zip(engine.input_dims[name], tokens.shape, strict=True))
            outputs = (engine.logits_value,) if logits else ()
            plan = engine.plan(GENERATE, outputs, self.capacity, dims)
            self._plans[key] = BoundPlan(engine, plan, self._states)
        plan_bound = self._plans[key]
        plan_bound.write_inputs({name: tokens})
        plan_bound.write_start(self.start)
        plan_bound.run()
        return plan_bound


def _count(batch: Batch) -> int:
    """Targets that count in a batch: those >= 0, or every token where a model has no targets."""
    if TARGETS in batch:
        return int((batch[TARGETS] >= 0).sum())
    return int(next(iter(batch.values())).size)


def _copy_in(ours: Mapping[str, Array], values: Mapping[str, Array], what: str) -> None:
    missing, extra = sorted(set(ours) - set(values)), sorted(set(values) - set(ours))
    if missing or extra:
        raise BuildError(
            f"{what}: "
            + "; ".join(
                f"{label} {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
                for label, names in (("missing", missing), ("unexpected", extra))
                if names
            )
        )
    for name, array in ours.items():
        if values[name].shape != array.shape:
            raise BuildError(f"{what}: {name} has shape {values[name].shape}, expected {array.shape}")
    for name, array in ours.items():
        array[...] = values[name]
