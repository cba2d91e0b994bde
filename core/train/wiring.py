"""The parts of a run, made from its config: engine, data, learning rate, batches, and the loop's job."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

import core
from core import checkpoint
from core.config import RunConfig, check_options
from core.config.key_types import named_keys
from core.data import Data, DataSource, open_data
from core.device.process_memory import resident
from core.engine import Engine, Settings
from core.engine.batch import by_input, feeds_of
from core.engine.settings import LossScale, precision_on
from core.errors import UsageError, did_you_mean
from core.graph import Graph, ModelSource
from core.measure.tuned import load_shipped, load_tuned
from core.op import Optimizer
from core.plan import TRAIN, Plan, TunedChoice, check_fusion
from core.plan.layout import ParameterGroup, matches
from core.ranks.group import ALONE, Ranks
from core.registry import Registry
from core.roles import TOKENS
from core.train.detect import Detector
from core.train.display import Display
from core.train.job import Job, ring_columns
from core.train.run import Run
from core.verdicts import Verdicts

if TYPE_CHECKING:
    from core.checkpoint import Checkpoint
    from core.device.protocol import Device
    from core.interop.weights import Start

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Parts:
    """A run's parts, looked up and checked. `start`: the checkpoint that it resumes; `weights`: a model's, for a fresh
    start. `micro`: micro-steps a step. `lr`: step -> learning rate."""

    config: RunConfig
    registry: Registry
    engine: Engine
    plan: Plan
    data: Data
    micro: int
    lr: Callable[[int], float]
    start: Checkpoint | None = None
    weights: Start | None = None

    @property
    def done(self) -> int:
        """Steps of the checkpoint that the run continues; 0 for a fresh one."""
        return self.start.step if self.start is not None else 0


def build_engine(
    config: RunConfig,
    registry: Registry,
    model: ModelSource,
    recorded: Mapping[str, Any] | None,
    device: Device | None = None,
    tuned: Mapping[str, TunedChoice] | None = None,
    verdicts: Verdicts | None = None,
    ranks: Ranks = ALONE,
) -> Engine:
    """The engine that a config describes; the choices of a run that is resumed apply where the config has none.
    Variants that failed their check on the device are not chosen.

    recorded: "variants" and "tiles" of a checkpoint's state; None for a fresh run.
    device: one that is open already. tuned: choices instead of those of `core tune` for the device and the shipped
    ones. verdicts: those that may still change. ranks: the processes of the run.
    """
    check_fusion(config.fuse, registry.ops, config.where)
    opened = _opened(config, registry, ranks, device)
    optimizer = registry.optimizer(config.optimizer.name, config.where("optimizer.name"))
    options = options_of(config, "optimizer", optimizer.options, optimizer.below)
    settings = Settings(
        device=config.device,
        precision=config.precision,
        dims=config.dims,
        ops=config.ops.variants,
        generate=config.ops.generate,
        nodes=config.nodes,
        recorded=(recorded or {}).get("variants", {}),
        configs=(recorded or {}).get("tiles", {}),
        tuned=load_tuned(opened) if tuned is None else tuned,
        shipped=load_shipped(opened, registry.tuned) if tuned is None else {},
        fusion=config.fuse,
        recompute=config.train.recompute,
        tf32=config.train.tf32,
        capture=config.train.capture,
        freeze=frozen_by(config, model, registry),
        optimizer=config.optimizer.name,
        options={**options, "clip": config.optimizer.clip},
        groups=groups_of(config, optimizer),
        seed=config.seed,
        health=ring_columns(config.train.health_every, config.train.log_every),
        shard=config.train.shard,
        overlap=config.train.overlap,
        failed=(verdicts or Verdicts(registry)).failures_on(opened, precision_on(opened, config.precision)),
        loss_scale=LossScale(config.train.loss_scale, config.train.loss_scale_steps),
    )
    return Engine(model, registry, settings, opened, ranks)


def _opened(config: RunConfig, registry: Registry, ranks: Ranks, device: Device | None) -> Any:
    """The device of this rank, with the config's executor and order of launches. device: one that is open already."""
    kind = registry.device(config.device)
    opened: Any = kind.open(ranks.local) if device is None else device
    if kind.simulated and config.executor:
        opened.executor = config.executor
    if config.train.dependent_launch:
        opened.allow_dependent_launch()
    return opened


def frozen_by(config: RunConfig, model: ModelSource, registry: Registry) -> list[str]:
    """Globs of parameters that do not train: [train] freeze, those outside of `only`, and [[reference]]. UsageError for
    a glob of `only` that matches nothing."""
    freeze = list(config.train.freeze)
    if config.train.only or config.reference:
        from core.train.fresh import under_prefixes  # of runs with such parameters

        graph, where = model.build(registry, dict(config.dims)), config.where("train.only")
        trained = {name for glob in config.train.only for name in matches(glob, graph.parameters, where)}
        freeze += [name for name in graph.parameters if config.train.only and name not in trained]
        freeze += under_prefixes(config, graph)
    return freeze


def check_new(config: RunConfig, engine: Engine) -> None:
    """UsageError for `new` without weights, or for globs and prefixes that match nothing."""
    if config.new and not config.weights:
        raise UsageError(f"{config.where('new')}: there are no weights: all parameters start fresh; leave it out")
    if config.new or config.reference:
        from core.train.fresh import expected_of

        expected_of(config, engine.graph)


def groups_of(config: RunConfig, optimizer: Optimizer) -> list[ParameterGroup]:
    """[[optimizer.groups]]. UsageError for an optimizer that cannot have them."""
    table, groups = config.optimizer, config.optimizer.groups
    where = config.where("optimizer.groups")
    if groups and not optimizer.groups:
        raise UsageError(
            f"{where}: optimizer {optimizer.name} has one learning rate for all parameters",
            hint="its class declares `groups = True` where its step updates by `p.groups` (docs/plugins.md)",
        )
    if any(one.weight_decay is not None for one in groups) and "weight_decay" not in optimizer.options:
        raise UsageError(f"{where}: optimizer {optimizer.name} has no option weight_decay")
    if any(one.lr is None and one.weight_decay is None for one in groups):
        raise UsageError(f"{where}: a group gives neither lr nor weight_decay; expected one of them")
    return [
        ParameterGroup(tuple(one.match), None if one.lr is None else one.lr / table.lr, one.weight_decay)
        for one in groups
    ]


def options_of(
    config: RunConfig, table: str, declared: Mapping[str, Any], below: Mapping[str, float] = {}
) -> dict[str, Any]:
    """The options in [optimizer] or [schedule], over the defaults that it declares. UsageError for an unknown one."""
    held = getattr(config, table)
    beside = named_keys(type(held))
    return check_options(held.options, declared, lambda option: config.where(f"{table}.{option}"), beside, below)


def find_data(
    config: RunConfig,
    registry: Registry,
    graph: Graph,
    start: Checkpoint | None,
    weights: Start | None,
    display: Display,
) -> Data:
    """The run's data. A resumed run has the tokenizer that it recorded; one from `weights`, that of the weights.

    Raises DataError for files that cannot be read or that lack tokens, and for inputs of the model without data.
    """
    recorded, why = None, "recorded by the run"
    kinds = registry.tokenizers
    if start is not None and start.tokenizer_json is not None:
        from core.tokenizers.recorded import from_json  # of runs that continue

        recorded = from_json(start.tokenizer_json, str(start.path / checkpoint.TOKENIZER), kinds)
    elif weights is not None:
        default = type(config.data)().tokenizer
        from core.train.tokenizers import tokenizer_for  # with every format of weights

        recorded = tokenizer_for(weights, config.data.tokenizer, default, config.where("data.tokenizer"), kinds)
        why = f"that of the weights at {config.weights}"
        if recorded is None:
            display.line(
                f"warning: no tokenizer came with the weights at {config.weights}: see that the run's is theirs"
            )
    feeds = feeds_of(graph)
    return open_data(
        config.data,
        dims=graph.dims,
        seed=config.seed,
        vocab=feeds[TOKENS].bound if TOKENS in feeds else None,
        feeds=feeds,
        tokenizer=recorded,
        kinds=kinds,
        readers=registry.readers,
        why=why,
        where=config.where,
        progress=lambda at, total, activity: display.status(f"{activity}: {at:,} of {total:,}"),
    )


def learning_rate(config: RunConfig, registry: Registry) -> Callable[[int], float]:
    """step 0 .. steps-1 -> its learning rate. Raises CoreError for a schedule or an option that does not exist."""
    schedule = registry.schedule(config.schedule.name, config.where("schedule.name"))
    options = options_of(config, "schedule", schedule.options)
    return lambda step: float(schedule.lr(step, config.train.steps, config.optimizer.lr, options))


def schedule_remarks(config: RunConfig, registry: Registry) -> list[str]:
    """Remarks on the schedule's options in a run of this many steps."""
    schedule = registry.schedule(config.schedule.name, config.where("schedule.name"))
    options = options_of(config, "schedule", schedule.options)
    return [f"{config.where('schedule.name')}: {r}" for r in schedule.remarks(config.train.steps, options)]


def batches_of(
    source: DataSource, engine: Engine, micro: int, start: Checkpoint | None
) -> Callable[[int], list[dict[str, Array]]]:
    """step -> this rank's micro-batches of it by graph input. A resumed run continues after the tokens already
    consumed, even if tokens_per_step changed."""
    ranks = engine.ranks
    done, drawn = (start.step, start.state["tokens"] // source.T) if start else (0, 0)

    def batches(step: int) -> list[dict[str, Array]]:
        own = ranks.rank, ranks.size
        drawn_now = (source.batch(step - done, index, micro, *own, first=drawn) for index in range(micro))
        return [by_input(batch, engine.graph) for batch in drawn_now]

    return batches


def val_batches_of(source: DataSource, engine: Engine, tokens: int) -> Callable[[], Iterator[dict[str, Array]]]:
    ranks, graph = engine.ranks, engine.graph
    return lambda: (by_input(b, graph) for b in source.val_batches(tokens, rank=ranks.rank, ranks=ranks.size))


def peak_tokens_per_s(engine: Engine, tokens: int) -> float | None:
    """Tokens/s of all ranks' chips at their peak, None for a chip outside of the table; `tokens`: of a micro-batch."""
    if not engine.device.model:
        return None
    from core.kernels.chips import gpu  # the cpu is no chip of that table
    from core.plan.cost import per_token

    peaks = gpu(engine.device.model)
    peak = peaks.peak(engine.precision, engine.settings.tf32) if peaks else None
    return engine.ranks.size * peak / per_token(engine.plan(TRAIN).graph, tokens).full if peak else None


def least_seconds_of(engine: Engine, micro_steps: int) -> Callable[[], float | None]:
    """The least time of a step on the engine's chip, computed at the first call; None on one that is not known."""

    @cache
    def least() -> float | None:
        if not engine.device.model:
            return None
        from core.measure.least_time import least_seconds  # of runs on chips

        return least_seconds(engine, micro_steps)

    return least


def memory_of(device: Device) -> Callable[[], int | None]:
    """Bytes in use where the tensors are: on a GPU its own memory, else this process's."""
    if device.memory() is None:
        return resident

    def in_use() -> int:
        free, total = device.memory() or (0, 0)
        return int(total - free)

    return in_use


def keeps_best(config: RunConfig, data: Data) -> bool:
    """Whether the run keeps the best checkpoint by validation: where it validates and saves any."""
    table = config.train
    return table.keep_best and table.val_every > 0 and table.checkpoint_every != 0 and data.val is not None


def check_best(config: RunConfig, engine: Engine) -> None:
    """UsageError for a key in [train] best that the model's [loss] does not have."""
    best, keys = config.train.best, list(dict.fromkeys(engine.graph.terms.values()))
    if best and best not in keys:
        raise UsageError(
            f'{config.where("train.best")}: the loss of {engine.graph.name} has no term "{best}"'
            f"{did_you_mean(best, keys)} (it has {', '.join(keys)})"
        )


def make_job(parts: Parts, run: Run, display: Display, record: Mapping[str, Any]) -> Job:
    """The loop's job. `record`: the run's variants.json."""
    config, engine, data = parts.config, parts.engine, parts.data
    table = config.train
    B, T = engine.graph.batch
    val_tokens = table.val_tokens or 20 * B * T
    tokenizer = data.tokenizer
    return Job(
        run=run,
        engine=engine,
        ranks=engine.ranks,
        display=display,
        table=table,
        batches=batches_of(data.train, engine, parts.micro, parts.start),
        lr=parts.lr,
        model_toml=engine.model.to_toml(config.dims),
        seed=config.seed,
        detector=Detector(**msgspec.structs.asdict(config.detect)),
        val_batches=val_batches_of(data.val, engine, val_tokens) if data.val else None,
        tokenizer=tokenizer,
        tokenizer_json=tokenizer.to_json() if tokenizer else None,
        keep_best=keeps_best(config, data),
        health_columns=engine.settings.health,
        peak_tokens_per_s=peak_tokens_per_s(engine, B * T),
        least_seconds=least_seconds_of(engine, parts.micro),
        memory=memory_of(engine.device),
        hooks=parts.registry.step_hooks,
        plugin_options=config.plugins.options,
        state=recorded_state(parts, record),
    )


def recorded_state(parts: Parts, record: Mapping[str, Any]) -> dict[str, Any]:
    """The record of the run in each checkpoint, without tensors. `record`: the run's variants.json."""
    config, tokenizer = parts.config, parts.data.tokenizer
    return {
        "corelm": core.__version__,
        "model": parts.engine.graph.name,
        "device": config.device,
        "precision": parts.engine.precision,
        "optimizer": config.optimizer.name,
        "schedule": config.schedule.name,
        "tokenizer": {"name": tokenizer.name, "hash": tokenizer.hash} if tokenizer else None,
        "data": parts.data.describe(),
        "variants": record["nodes"],
        "tiles": record["tiles"],
        "made_with": record["made_with"],
        **generation_of(parts),
    }


def generation_of(parts: Parts) -> Mapping[str, Any]:
    """Settings of generation for state.json: those that came with the weights, or that the checkpoint recorded."""
    if parts.weights is not None:
        return parts.weights.generation.state()
    if parts.start is None:
        return {}
    from core.interop.generation import of_state  # of runs that continue

    return of_state(parts.start.state).state()
