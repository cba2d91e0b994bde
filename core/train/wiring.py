"""The parts of a run, made from its config: engine, data, learning rate, batches, and the loop's job."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

import core
from core import checkpoint
from core.config import RunConfig, check_options
from core.config.key_types import named_keys
from core.data import Data, TokenSource, open_data
from core.device.process_memory import resident
from core.engine import TARGETS, Engine, Settings
from core.errors import DataError
from core.graph import ModelSource
from core.measure.tuned import load_shipped, load_tuned
from core.plan import TRAIN, Plan, TunedChoice, check_fusion
from core.ranks.group import ALONE, Ranks
from core.registry import Registry
from core.roles import BATCH
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
    """The engine that a config describes; the choices of a run that is resumed stand where the config says nothing.
    Variants that failed their check on the device are not chosen.

    recorded: "variants" and "tiles" of a checkpoint's state; None for a fresh run.
    device: one that is open already. tuned: choices instead of those of `core tune` for the device and the shipped
    ones. verdicts: those that may still change. ranks: the processes of the run.
    """
    check_fusion(config.fuse, registry.ops, config.where)
    kind = registry.device(config.device)
    opened: Any = kind.open(ranks.local) if device is None else device
    if kind.simulated and config.executor:
        opened.executor = config.executor
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
        freeze=config.train.freeze,
        optimizer=config.optimizer.name,
        options={**options, "clip": config.optimizer.clip},
        seed=config.seed,
        health=ring_columns(config.train.health_every, config.train.log_every),
        shard=config.train.shard,
        overlap=config.train.overlap,
        failed=(verdicts or Verdicts(registry)).failures_on(opened, config.precision),
    )
    return Engine(model, registry, settings, opened, ranks)


def options_of(
    config: RunConfig, table: str, declared: Mapping[str, Any], below: Mapping[str, float] = {}
) -> dict[str, Any]:
    """The options in [optimizer] or [schedule], over the defaults that it declares. UsageError for what it has not."""
    held = getattr(config, table)
    beside = named_keys(type(held))
    return check_options(held.options, declared, lambda option: config.where(f"{table}.{option}"), beside, below)


def find_data(
    config: RunConfig,
    engine: Engine,
    start: Checkpoint | None,
    weights: Start | None,
    display: Display,
) -> Data:
    """The run's data. A resumed run has the tokenizer that it recorded; one from `weights`, that of the weights.

    Raises DataError for files that cannot be read or that lack tokens, and for a model with other inputs than tokens.
    """
    recorded, why = None, "recorded by the run"
    kinds = engine.registry.tokenizers
    if start is not None and start.tokenizer_json is not None:
        from core.tokenizers.recorded import from_json  # a fresh run needs nothing of it

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
    others = set(engine.graph.inputs) - {engine.token_input, TARGETS}
    if others:
        raise DataError(
            f"model {engine.graph.name} has the input {', '.join(sorted(others))}; training data gives "
            f"{engine.token_input} and {TARGETS}",
            hint="remove the input in a model that extends this one",
        )
    return open_data(
        config.data,
        dims=engine.graph.dims,
        seed=config.seed,
        vocab=engine.graph.inputs[engine.token_input].bound,
        tokenizer=recorded,
        kinds=kinds,
        readers=engine.registry.readers,
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
    source: TokenSource, engine: Engine, micro: int, start: Checkpoint | None
) -> Callable[[int], list[dict[str, Array]]]:
    """step -> this rank's micro-batches of it by graph input. A resumed run continues after the tokens already
    consumed, even if tokens_per_step changed."""
    name, ranks = engine.token_input, engine.ranks
    done, drawn = (start.step, start.state["tokens"] // source.T) if start else (0, 0)

    def batches(step: int) -> list[dict[str, Array]]:
        own = ranks.rank, ranks.size
        pairs = [source.batch(step - done, index, micro, *own, first=drawn) for index in range(micro)]
        return [{name: tokens, TARGETS: targets} for tokens, targets in pairs]

    return batches


def val_batches_of(source: TokenSource, engine: Engine, tokens: int) -> Callable[[], Iterator[dict[str, Array]]]:
    name, ranks = engine.token_input, engine.ranks

    def batches() -> Iterator[dict[str, Array]]:
        for tokens_of, targets in source.val_batches(tokens, rank=ranks.rank, ranks=ranks.size):
            yield {name: tokens_of, TARGETS: targets}

    return batches


def peak_tokens_per_s(engine: Engine, tokens: int) -> float | None:
    """Of all ranks' chips at their peak, where the table of chips has them; `tokens` are a micro-batch's."""
    if not engine.device.model:
        return None
    from core.kernels.chips import gpu  # the cpu is no chip of that table
    from core.plan.cost import per_token

    peaks = gpu(engine.device.model)
    peak = peaks.peak(engine.precision, engine.settings.tf32) if peaks else None
    return engine.ranks.size * peak / per_token(engine.plan(TRAIN).graph, tokens).full if peak else None


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


def make_job(parts: Parts, run: Run, display: Display, record: Mapping[str, Any]) -> Job:
    """The loop's job. `record`: the run's variants.json."""
    config, engine, data = parts.config, parts.engine, parts.data
    table = config.train
    B, T = (int(engine.graph.dims[name]) for name in BATCH)
    val_tokens = table.val_tokens or 20 * B * T
    tokenizer = data.tokenizer
    return Job(
        run=run,
        engine=engine,
        ranks=engine.ranks,
        display=display,
        steps=table.steps,
        tokens_per_step=table.tokens_per_step,
        batches=batches_of(data.train, engine, parts.micro, parts.start),
        lr=parts.lr,
        model_toml=engine.model.to_toml(config.dims),
        seed=config.seed,
        detector=Detector(**msgspec.structs.asdict(config.detect)),
        val_batches=val_batches_of(data.val, engine, val_tokens) if data.val else None,
        tokenizer=tokenizer,
        tokenizer_json=tokenizer.to_json() if tokenizer else None,
        val_every=table.val_every,
        sample_every=table.sample_every,
        sample_tokens=table.sample_tokens,
        sample_prompt=table.sample_prompt,
        sample_temperature=table.sample_temperature,
        checkpoint_every=table.checkpoint_every,
        keep_best=keeps_best(config, data),
        keep_last=table.keep_last,
        keep_every=table.keep_every,
        save_errors=table.save_errors,
        log_every=table.log_every,
        health_every=table.health_every,
        health_columns=engine.settings.health,
        peak_tokens_per_s=peak_tokens_per_s(engine, B * T),
        memory=memory_of(engine.device),
        hooks=parts.registry.step_hooks,
        state=recorded_state(parts, record),
    )


def recorded_state(parts: Parts, record: Mapping[str, Any]) -> dict[str, Any]:
    """The record of the run in each checkpoint, besides tensors. `record`: the run's variants.json."""
    config, tokenizer = parts.config, parts.data.tokenizer
    return {
        "corelm": core.__version__,
        "model": parts.engine.graph.name,
        "device": config.device,
        "precision": config.precision,
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
    from core.interop.generation import of_state  # a fresh run needs nothing of it

    return of_state(parts.start.state).state()
