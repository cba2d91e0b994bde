"""The test of the planner on one random model, by numeric derivatives and by comparison of its plans.

Each model (core.testing.graph_models) is planned plainly (no fusion, aliases, in-place gradients or recompute) and its
gradients are compared with central differences in f64, one parameter at a time along a random direction. Other plans
are compared with that plan: with fusion, aliases, in-place gradients, recompute and frozen parameters; in micro-steps;
with and without padding; resumed; and logits of all tokens at once to those of a decode session fed in pieces. Before
every run all memory that the plan should write is filled with NaN.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from core.devices import CPU
from core.engine import Engine, Settings
from core.errors import BuildError, CoreError
from core.expr import Padded
from core.graph import TARGETS, Graph, ModelSource
from core.loader import load_registry
from core.op import Reference
from core.pool import Pool, pool, using
from core.registry import Registry
from core.testing.derived import derive_reference
from core.testing.graph_document import RandomModel
from core.testing.processes import processes

STEPS = (
    1e-5,
    1e-6,
    1e-4,
    1e-7,
    1e-3,
)  # of central differences; the first is mostly right, others where a model is steep
NUMERIC, SAME = 1e-5, 1e-10  # relative distance: to a numeric derivative; between two plans of one model
LEAST = 1e-4  # smaller numbers are compared as if of this size: cancellation of terms of size 1 leaves them
PLAIN: Mapping[str, Any] = {"alias": False, "in_place": False}  # and nothing fused: `GraphTrial.engine`
Array = np.ndarray[Any, Any]
Batch = dict[str, Array]
Gradients = dict[str, Array]


class Mismatch(Exception):
    """A model whose plan breaks a promise; the message has the promise and the difference."""


# --- the promises of each model --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _BuiltOnce(ModelSource):
    """A model that builds once for all the engines of a trial."""

    built: dict[Any, Graph] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def build(self, registry: Registry, dims: Mapping[str, Any] | None = None) -> Graph:
        key = tuple(sorted((dims or {}).items()))
        if key not in self.built:
            self.built[key] = super().build(registry, dims)
        return self.built[key]


class GraphTrial:
    """A model, its batch, and the engines that plan it in several ways, all with the same weights."""

    def __init__(self, model: RandomModel, registry: Registry) -> None:
        self.model, self.registry = model, registry
        self.source = _BuiltOnce(model.source.name, model.document, ())
        rng = np.random.default_rng(model.seed)
        self.weights: dict[str, Array] = {}
        self.plain = self.engine(**PLAIN)
        self.plain.initialize(model.seed)
        for name, array in self.plain.parameters().items():
            self.weights[name] = array + 0.3 * rng.standard_normal(array.shape)
        self.restore(self.plain)
        graph = self.plain.graph
        self.batch = {n: rng.integers(0, v.bound or 3, v.shape).astype(np.int32) for n, v in graph.inputs.items()}
        self.batch[TARGETS][rng.random(self.batch[TARGETS].shape) < 0.2] = -1
        self.batch[TARGETS][:, 0] = 0  # something counts in each row
        self.random = any("random" in n.op.uses for n in graph.nodes)
        self.scalar = any(not graph.values[term].shape for term in graph.loss)
        self.rng = rng

    def engine(self, **chosen: Any) -> Engine:
        """An engine on f64 with the trial's weights. chosen: of Settings; nothing is fused unless `fusion` is given."""
        unfused = {op.name: False for op in self.registry.ops.values() if op.replaces}
        common = {"precision": "f64", "optimizer": self.optimizer, "options": {"clip": 0.0}, "fusion": unfused}
        built = Engine(self.source, self.registry, Settings(**{**common, **chosen}))
        if self.weights:
            self.restore(built)
        return built

    @property
    def optimizer(self) -> str:
        """The first that needs no whole matrices."""
        return next(name for name, optimizer in self.registry.optimizers.items() if not optimizer.whole)

    def restore(self, engine: Engine) -> None:
        engine.load_parameters(self.weights)
        engine.set_step(0)

    def measured(self, engine: Engine, parts: Sequence[Batch] | None = None) -> tuple[float, Gradients]:
        """Loss and gradients of a step whose learning rate is 0, in memory that held NaN."""
        engine.set_step(0)
        parts = [self.batch] if parts is None else parts
        spoil(engine, parts)
        record = engine.step(parts, 0.0)
        return record.loss, {name: array.copy() for name, array in engine.parameter_gradients()}

    def parts(self, count: int) -> list[Batch]:
        """The batch's rows in that number of micro-batches."""
        names = list(self.batch)
        return [
            dict(zip(names, p, strict=True)) for p in zip(*(np.split(self.batch[n], count) for n in names), strict=True)
        ]


def spoil(engine: Engine, parts: Sequence[Batch]) -> None:
    """Fill activations and gradients with NaN, which show where a plan writes nothing."""
    for part in parts:
        engine.bound("train", (), engine._dims_of(part))
    engine.arena.fit(1)[...] = 0xFF
    engine.store.grads[...] = np.nan


def numeric(trial: GraphTrial) -> tuple[float, Gradients]:
    """The plain plan's gradients are the loss's derivatives."""
    engine = trial.plain
    loss, gradients = trial.measured(engine)
    if not np.isfinite(loss) or not all(np.isfinite(g).all() for g in gradients.values()):
        raise Mismatch(f"the plain plan reads unwritten memory: loss {loss}, or a gradient, is not finite")
    if not trial.random:
        total, count = engine.evaluate(trial.batch)
        near("the plain plan's loss and the evaluated one", loss, total / count)

    def value() -> float:
        if trial.random:
            return trial.measured(engine)[0]
        total, count = engine.evaluate(trial.batch)
        return float(total / count)

    weights = engine.parameters()
    for name, gradient in gradients.items():
        direction = trial.rng.standard_normal(gradient.shape)
        expected = float((gradient * direction).sum())
        scale = abs(expected) + 1e-4 * abs(loss) + 1e-12
        differences = []
        for h in STEPS:
            sides = []
            for sign in (1, -1):
                weights[name][...] = trial.weights[name] + sign * h * direction
                sides.append(value())
            weights[name][...] = trial.weights[name]
            differences.append((sides[0] - sides[1]) / (2 * h))
            if abs(differences[-1] - expected) <= NUMERIC * scale:
                break
        else:
            raise Mismatch(
                f"d{name} along a direction is {expected:.9g}, by differences {differences[0]:.9g}, "
                f"{differences[1]:.9g}"
            )
    return loss, gradients


def planned(trial: GraphTrial, plain: tuple[float, Gradients]) -> Engine:
    """Fusion, aliases, in-place gradients, recompute, frozen parameters and other variants change nothing.

    Memory placement, recomputation and the choice of the same variant by another rule change no bit.
    """
    settings = trial.model.settings
    engine = trial.engine(**settings)
    result = trial.measured(engine)
    same("as the settings have it", result, plain, exact=False)
    values = ("y", *engine.graph.loss)
    for name, ours, expected in zip(
        values, engine.values(trial.batch, values), trial.plain.values(trial.batch, values), strict=True
    ):
        near(f"{name}, evaluated with others", ours, expected)
    same("a second time, after an evaluation", trial.measured(engine), result)
    with rows_on(THREADS):
        same("on three threads", trial.measured(engine), result)
    moved = trial.engine(**{**settings, "in_place": not settings["in_place"]})
    same("with in_place the other way", trial.measured(moved), result)
    saving = trial.engine(**{**settings, "recompute": ()})
    if settings["recompute"] and chosen(trial, saving) == chosen(trial, engine):  # the same nodes are fused
        same("without recompute", trial.measured(saving), result)
    return engine


def chosen(trial: GraphTrial, engine: Engine) -> dict[str, tuple[str, str]]:
    """The op and variant of each node of the training plan."""
    choices = engine.bound("train", (), engine._dims_of(trial.batch)).plan.choices
    return {name: (choice.variant.op, choice.variant.name) for name, choice in choices.items()}


def recomputed(trial: GraphTrial, plain: tuple[float, Gradients]) -> None:
    """Recompute gives the same bits."""
    ops = trial.model.settings["recompute"]
    if ops:
        same("recomputed", trial.measured(trial.engine(**PLAIN, recompute=ops)), plain)


def divided(trial: GraphTrial, engine: Engine, plain: tuple[float, Gradients]) -> None:
    """Micro-steps of the same rows give the step's loss and gradients, and the same bits when they are run again."""
    count = trial.model.micro_steps
    if count == 1:
        return
    if not trial.scalar:
        parts = trial.parts(count)
        result = trial.measured(engine, parts)
        same(f"in {count} micro-steps", result, plain, exact=False)
        spoil(engine, parts)
        for _ in engine.replay(parts):
            pass
        gradients = {name: array.copy() for name, array in engine.parameter_gradients()}
        same(f"{count} micro-steps run again one launcher at a time", (result[0], gradients), result)
    elif not trial.random:  # a scalar term is a mean over micro-steps: the same one twice has the same mean
        same("the same micro-step twice", trial.measured(engine, [trial.batch] * 2), plain, exact=False)


def unpadded(trial: GraphTrial, plain: tuple[float, Gradients]) -> None:
    """Padding changes nothing."""
    padded = {n: size.unpadded for n, size in trial.plain.graph.dims.items() if isinstance(size, Padded)}
    if not padded:
        return
    same("without padding", trial.measured(trial.engine(**PLAIN, dims=padded)), plain, exact=False)


def resumed(trial: GraphTrial, engine: Engine) -> None:
    """A step from a copy of weights and moments is the step, bit for bit; and padding stays zero."""
    engine.set_step(0)
    for _ in range(2):
        engine.step(trial.parts(trial.model.micro_steps), 0.01)
    weights = {n: a.copy() for n, a in engine.parameters().items()}
    state = {s: {n: a.copy() for n, a in by.items()} for s, by in engine.optimizer_state().items()}
    results = []
    for _ in range(2):
        spoil(engine, trial.parts(trial.model.micro_steps))
        record = engine.step(trial.parts(trial.model.micro_steps), 0.01)
        results.append((record.loss, {n: a.copy() for n, a in engine.parameters().items()}))
        engine.load_parameters(weights)
        engine.load_optimizer_state(state)
        engine.set_step(2)
    same("resumed", results[1], results[0])
    for name in set(weights) - set(engine.store.trainable()):
        if not np.array_equal(results[0][1][name], trial.weights[name]):
            raise Mismatch(f"{name} is frozen, and updates change it")
    for flat in (engine.store.weights, *engine.store.states.values()):
        for name in engine.store.trainable():
            whole = engine.store.place(flat, name)
            inside = tuple(slice(n) for n in engine.store.parameters()[name].shape)
            if np.count_nonzero(whole) != np.count_nonzero(whole[inside]):
                raise Mismatch(f"the padding of {name} is not zero after three updates")
    trial.restore(engine)


def decoded(trial: GraphTrial, engine: Engine) -> str:
    """Logits of all tokens at once are those of a session that is fed in pieces."""
    graph = engine.graph
    B, T = trial.batch[graph.token_input].shape
    tokens = trial.batch[graph.token_input]
    try:
        engine.session(B, T).plan(1)
    except BuildError as error:
        if "cannot generate" not in error.message:
            raise
        return "cannot decode"
    whole = engine.logits(tokens)
    cut = int(trial.rng.integers(1, T))
    session = engine.session(B, T)
    for lo, hi in ((0, cut), *((at, at + 1) for at in range(cut, T))):
        spoil(engine, [trial.batch])
        near(f"logits after {hi} of {T} tokens", session.feed(tokens[:, lo:hi]), whole[:, hi - 1])
    counts = trial.rng.integers(1, T + 1, B).astype(np.int32)
    logits = engine.session(B, T).feed(tokens, counts)
    near("logits after rows of different lengths", logits, whole[np.arange(B), counts - 1])
    return "decode"


def near(quantity: str, value: Any, expected: Any) -> None:
    """Raise Mismatch unless two numbers or arrays are the same up to rounding."""
    distance, size = np.linalg.norm(np.subtract(value, expected)), np.linalg.norm(expected)
    if not distance <= SAME * max(float(size), LEAST):
        raise Mismatch(f"{quantity}: {distance:.3g} apart, of {size:.3g}")


def same(
    quantity: str,
    value: tuple[float, Mapping[str, Array]],
    expected: tuple[float, Mapping[str, Array]],
    exact: bool = True,
) -> None:
    """Raise Mismatch unless loss and arrays agree: in every bit, or else up to rounding. Frozen ones may be missing."""
    for name, array in (("loss", np.asarray(value[0])), *value[1].items()):
        other = np.asarray(expected[0]) if name == "loss" else expected[1][name]
        if not exact:
            near(f"{quantity}: {name}", array, other)
        elif not np.array_equal(array, other):
            raise Mismatch(f"{quantity}: {name} has other bits, {np.max(np.abs(np.subtract(array, other))):.3g} apart")


def examine(model: RandomModel, registry: Registry) -> str:
    """Hold a model to everything; "decode" where it decodes. Raises Mismatch; any other exception is a fault too."""
    with np.errstate(all="ignore"), rows_on(ONE):
        trial = GraphTrial(model, registry)
        plain = numeric(trial)
        recomputed(trial, plain)
        engine = planned(trial, plain)
        divided(trial, engine, plain)
        unpadded(trial, plain)
        said = decoded(trial, engine)
        resumed(trial, engine)
        return said


ONE, THREADS = Pool(1), Pool(3)


@contextmanager
def rows_on(other: Pool) -> Iterator[None]:
    """Rows on the threads of another pool: for most of it on this thread alone, the models are too small to share."""
    other.reserve(max(scratch.nbytes for scratch in pool().scratch))  # requests of plans when they were recorded
    with using(other):
        yield


# --- many models -----------------------------------------------------------------------------------------------------


def fused_everywhere(registry: Registry) -> Registry:
    """The registry, with the derived reference of a fused op as its variant where it has none on the cpu."""
    variants = {name: dict(by_name) for name, by_name in registry.variants.items()}
    for op in registry.ops.values():
        if op.replaces and not any(v.device == CPU.runs for v in variants.get(op.name, {}).values()):
            derived: Reference = derive_reference(op, registry)
            type(derived).priority = 1
            variants.setdefault(op.name, {})[derived.name] = derived
    return dataclasses.replace(registry, variants=variants)


@lru_cache
def registry_of(plugins: tuple[str, ...]) -> Registry:
    return fused_everywhere(load_registry(plugins))


def failure(model: RandomModel, registry: Registry) -> str:
    """The problem of a model, in a line; "" where there is none."""
    try:
        examine(model, registry)
    except (Mismatch, CoreError) as error:
        return str(error)
    except Exception as error:  # of the planner, or of an op on the planner's tensors
        return f"{type(error).__name__}: {error}"
    return ""


def each(work: Callable[[Any], Any], items: Sequence[Any], jobs: int) -> Iterator[Any]:
    """`work` of each item, over processes."""
    if jobs <= 1:
        yield from map(work, items)
        return
    with processes(jobs) as workers:
        yield from workers.map(work, items, chunksize=4)
