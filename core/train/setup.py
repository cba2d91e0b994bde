"""From a run config to a Trainer that stands at its first step: everything is looked up, checked and said here.

The order matters. What a typing error can cause comes first and creates nothing: config, device, registry, graph,
estimate, data. Then the folder is made and locked, and memory is filled last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tomli

import core
from core.config import RunConfig, check_options, check_out, load_config, micro_steps
from core.config.check import named_keys
from core.data import Data, Tokenizer, TokenSource, diff_description, open_data
from core.device import open_device
from core.device.chips import gpu
from core.dtypes import itemsize, resolve
from core.engine import TARGETS, Engine, Settings
from core.errors import BuildError, CheckpointError, DataError, UsageError
from core.expr import trim
from core.graph import ModelSource, load_model
from core.interop import checkpoint
from core.interop.checkpoint import Checkpoint
from core.interop.generation import Generation, of_state
from core.interop.weights import Start, open_weights
from core.loader import load_registry
from core.plan import TRAIN, Kept, Plan, check_fusion
from core.plan.cost import per_token
from core.plan.describe import human
from core.plan.describe import table as table_lines
from core.plan.fit import HELD
from core.plan.needs import sizes_by_choice
from core.registry import Registry
from core.train.detect import Detector
from core.train.devices import choose_device
from core.train.display import Display
from core.train.estimate import SLOW, estimate_seconds, refuse_long
from core.train.loop import Job, Trainer, run_job
from core.train.precheck import Precheck
from core.train.provenance import made_with
from core.train.report import duration, memory_in_use
from core.train.run import Run, choose_folder, claim, occupied, resolved_config
from core.train.tokenizers import tokenizer_for
from core.train.tune import load_shipped, load_tuned
from core.verdicts import Verdicts

Array = np.ndarray[Any, Any]
SIZES = ("B", "T")  # dims of a batch, not of the model: they may change when a run is resumed


@dataclass(frozen=True)
class Asked:
    """What the command line asks of `core train`."""

    config: str
    overrides: Sequence[str] = ()
    device: str = "auto"
    plugins: Sequence[str] = ()
    out: Path | None = None
    resume: bool = False
    origin: Path | None = None  # --from: a checkpoint or run to go on from, in a new folder
    allow_data_change: bool = False
    long: bool = False


def train(asked: Asked, display: Display) -> int:
    """Train as asked. Returns the exit code: 0, 130, 143. Raises CoreError."""
    with ExitStack() as stack:
        return run_job(prepare(asked, display, stack))


def prepare(asked: Asked, display: Display, stack: ExitStack) -> Trainer:
    """A Trainer at its first step; `stack` closes the run's folder."""
    config = load_config(asked.config, overrides=asked.overrides, device=choose_device(asked.device))
    folder = choose_folder(check_out(asked.out) if asked.out else None, config.path.stem, asked.resume)
    registry = load_registry([*asked.plugins, *config.plugins.load], disable=config.plugins.disable)
    run = Run(folder)
    if asked.resume and occupied(folder):
        stack.enter_context(run)
        display.log = run.log
    start = find_start(asked, run, display)
    before = resolved_config(start.path.absolute().parents[1]) if start else None

    model = load_model(config.model, registry)
    if start is not None:
        same_architecture(start, model.to_toml(config.dims))
    verdicts = Verdicts(registry)
    engine = build_engine(config, registry, model, start, verdicts=verdicts)
    B, T = (int(engine.graph.dims[name]) for name in SIZES)
    micro = micro_steps(config.train.tokens_per_step, B, T, where=config.where("train.tokens_per_step"))
    done = start.step if start else 0
    plan = engine.plan(TRAIN)
    engine.check_fit(plan)
    estimate = check_estimate(config, engine, plan, micro, done, asked.long)
    lr = learning_rate(config, registry)
    weights = find_weights(config, registry, engine) if start is None else None
    data = find_data(config, engine, start, weights, asked.allow_data_change, display)
    if config.train.sample_every and data.tokenizer:
        engine.session(1).plan(1)  # a model that cannot generate is refused now, not at the first sample
    check_disk(config, engine, run, done)
    plugins = [*asked.plugins, *config.plugins.load]
    checks = check_first(config, plugins, engine, verdicts, bool(data.tokenizer), display)
    plan = engine.plan(TRAIN)
    table = table_of_choices(engine, plan, checks)

    if display.log != run.log:
        run = claim(run, start is None, run.path if asked.out or asked.resume else None, config.path.stem)
        stack.callback(run.close)
        display.log = run.log
    run.rewind(done)
    best = start.state.get("best_step") if start else None
    for problem in checkpoint.retain(run.checkpoints, done, config.train.keep_last, config.train.keep_every, best):
        display.line(f"warning: {problem}")  # a kill may have come between a save and its retention
    run.write_config(config.source, config.to_toml())
    record = variants_record(config, registry, engine, plan, table)
    run.write_variants(record)
    announce(config, run, engine, plan, table, data, micro, display)
    for note in checks.notes():
        display.line(f"  {note}")
    announce_start(config, start, before, record, estimate, display)
    for remark in schedule_remarks(config, registry):
        display.line(f"warning: {remark}")
    fill(config, engine, start, weights, display)
    display.status("compiling kernels")
    engine.prepare()
    job = make_job(config, registry, run, display, engine, data, micro, lr, record, start, weights)
    return Trainer(job, start.state if start else None)


# --- where a run starts ----------------------------------------------------------------------------------------


def find_start(asked: Asked, run: Run, display: Display) -> Checkpoint | None:
    """The checkpoint to go on from, None for a fresh start.

    --resume falls back to an older checkpoint, and says so; --from takes the one that was named or raises. LATEST is
    brought up to date when it names another one than the newest valid, as after a kill.
    """
    if asked.origin is not None:
        named = checkpoint.find(asked.origin)
        if "imported" in named.state:
            raise CheckpointError(
                f"{named.path}: it was imported, not trained: there is no optimizer state to go on with",
                hint=f'weights = "{named.path}" in the config starts from its parameters',
            )
        return named
    if not asked.resume:
        return None
    found, problems = checkpoint.newest(run.checkpoints)
    for problem in problems:
        display.line(f"warning: a checkpoint is passed over: {problem}")
    if found is None and problems:
        raise CheckpointError(
            f"{run.path}: none of its checkpoints is valid; nothing was changed",
            hint="another --out starts anew, with --from CHECKPOINT from one that is valid",
        )
    if found is None:
        if occupied(run.path):
            display.line(f"{run.path} has no checkpoint: it starts at step 1")
        return None
    said = checkpoint.repair_latest(found)
    if said is not None:
        display.line(f"{checkpoint.LATEST} named {said}; now it names {found.path.name}")
    return found


def same_architecture(start: Checkpoint, model_toml: str) -> None:
    """CheckpointError with the differences when the config's model is not the checkpoint's; B and T may differ."""
    ours, theirs = tomli.loads(model_toml), tomli.loads(start.model_toml)
    for document in (ours, theirs):
        for name in SIZES:
            document.get("dims", {}).pop(name, None)
    if ours != theirs:
        raise CheckpointError(
            f"{start.path}: the config's model is another one than the checkpoint's:\n"
            + "\n".join(f"  {line}" for line in differences(flat(theirs), flat(ours))),
            hint="train the new one in a folder of its own (--out), or put the config back",
        )


def flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys."""
    found: dict[str, Any] = {}
    for key, value in document.items():
        name = f"{prefix}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found


def differences(before: Mapping[str, Any], after: Mapping[str, Any], most: int = 20) -> list[str]:
    """`key: before -> after`, a line each."""
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    lines = [f"{key}: {before.get(key, 'absent')!s} -> {after.get(key, 'absent')!s}" for key in keys[:most]]
    return lines + ([f"... and {len(keys) - most} more"] if len(keys) > most else [])


def fill(config: RunConfig, engine: Engine, start: Checkpoint | None, weights: Start | None, display: Display) -> None:
    """Parameters and optimizer state: of the checkpoint, of `weights`, or drawn.

    The states of another optimizer than the run's are left out, whatever their names, and that is said.
    """
    if start is not None:
        before, now = start.state.get("optimizer", config.optimizer.name), config.optimizer.name
        load_state(engine, start, states=before == now)
        engine.set_step(start.step, start.state.get("updates") if before == now else 0)
        if before != now:
            left = ", ".join(start.optimizer) or "none"
            display.line(f"optimizer state: {before}'s ({left}) is left out; {now} begins with its own at 0")
    elif weights is not None:
        with of_weights(config):
            engine.load_parameters(weights.parameters)
    else:
        engine.initialize(config.seed)


def load_state(engine: Engine, found: Checkpoint, states: bool = True) -> None:
    """Copy a checkpoint's tensors into the engine. CheckpointError when names or shapes are not the model's."""
    try:
        engine.load_parameters(found.parameters)
        if states:
            engine.load_optimizer_state(found.optimizer)
    except BuildError as error:
        raise CheckpointError(f"{found.path}: does not fit the model: {error.message}", hint=error.hint) from None


def find_weights(config: RunConfig, registry: Registry, engine: Engine) -> Start | None:
    """What `weights` names, its parameters not yet read; None for a fresh start. CheckpointError if they do not fit."""
    if not config.weights:
        return None
    with of_weights(config):
        return open_weights(config.weights, engine.graph, registry)


@contextmanager
def of_weights(config: RunConfig) -> Iterator[None]:
    """What is wrong with `weights` as a CheckpointError that names the key's place."""
    try:
        yield
    except (BuildError, CheckpointError, UsageError) as error:
        raise CheckpointError(f"{config.where('weights')}: {error.message}", hint=error.hint) from None


# --- engine and data -------------------------------------------------------------------------------------------


def build_engine(
    config: RunConfig,
    registry: Registry,
    model: ModelSource,
    start: Checkpoint | None,
    device: Any = None,
    tuned: Mapping[str, Kept] | None = None,
    verdicts: Verdicts | None = None,
) -> Engine:
    """The engine that a config describes; the choices of a run that is resumed stand where the config says nothing.
    Variants that failed their check on the device are not chosen.

    device: one that is open already. tuned: instead of what `core tune` found for the device, and of what is shipped.
    verdicts: those that may still change.
    """
    check_fusion(config.fuse, registry.ops, config.where)
    device = open_device(config.device) if device is None else device
    optimizer = registry.optimizer(config.optimizer.name, config.where("optimizer.name"))
    options = options_of(config, "optimizer", optimizer.options, optimizer.below)
    return Engine(
        model,
        registry,
        Settings(
            device=config.device,
            precision=config.precision,
            dims=config.dims,
            ops=config.ops.variants,
            generate=config.ops.generate,
            nodes=config.nodes,
            recorded=start.state.get("variants", {}) if start else {},
            configs=start.state.get("tiles", {}) if start else {},
            tuned=load_tuned(device) if tuned is None else tuned,
            shipped=load_shipped(device) if tuned is None else {},
            fusion=config.fuse,
            recompute=config.train.recompute,
            tf32=config.train.tf32,
            capture=config.train.capture,
            freeze=config.train.freeze,
            optimizer=config.optimizer.name,
            options={**options, "clip": config.optimizer.clip},
            seed=config.seed,
            failed=(verdicts or Verdicts(registry)).against(device, config.precision),
        ),
        device,
    )


def check_disk(config: RunConfig, engine: Engine, run: Run, done: int) -> None:
    """Before step 1 and before the run's folder is made: CheckpointError without room for the run's checkpoints."""
    table = config.train
    if not table.checkpoint_every:
        return
    width = itemsize(resolve("acc", config.precision))
    states = len(engine.registry.optimizer(config.optimizer.name).state)
    elements = [(math.prod(trim(place.shape)), place.trains) for place in engine.layout.places.values()]
    sizes = {
        checkpoint.MODEL: width * sum(size for size, _ in elements),
        checkpoint.OPTIMIZER: width * states * sum(size for size, trains in elements if trains),
    }
    left = max(0, table.steps - done)
    saves = math.ceil(left / table.checkpoint_every) if table.checkpoint_every > 0 else int(left > 0)
    best = int(table.keep_best and table.val_every > 0)
    checkpoint.check_room(run.checkpoints, sizes, table.keep_last + best, saves + best)


def options_of(
    config: RunConfig, table: str, declared: Mapping[str, Any], below: Mapping[str, float] = {}
) -> dict[str, Any]:
    """The options in [optimizer] or [schedule], over the defaults that it declares. UsageError for what it has not."""
    held = getattr(config, table)
    beside = named_keys(type(held))
    return check_options(held.options, declared, lambda option: config.where(f"{table}.{option}"), beside, below)


def check_estimate(config: RunConfig, engine: Engine, plan: Plan, micro: int, done: int, allowed: bool) -> float | None:
    """Seconds that the rest of the run may take on a slow device, refused beyond an hour; None on others."""
    if config.device not in SLOW:
        return None
    steps = max(0, config.train.steps - done)
    tokens = steps * config.train.tokens_per_step
    rate, per_launch, _ = SLOW[config.device]
    besides = per_launch * len(plan.steps) * micro * steps
    seconds = estimate_seconds(engine.graph.parameter_count, tokens, rate(), besides)
    refuse_long(seconds, config.device, steps=steps, allowed=allowed, where=config.where("train.steps"))
    return seconds


def find_data(
    config: RunConfig,
    engine: Engine,
    start: Checkpoint | None,
    weights: Start | None,
    allow_change: bool,
    display: Display,
) -> Data:
    """The run's data; on resume, with the recorded tokenizer, and the same data as before or DataError. A run that
    starts from `weights` has the tokenizer that came with them."""
    recorded, why = None, "recorded by the run"
    if start is not None and start.tokenizer_json is not None:
        recorded = Tokenizer.from_json(start.tokenizer_json, str(start.path / checkpoint.TOKENIZER))
    elif weights is not None:
        default = type(config.data)().tokenizer
        recorded = tokenizer_for(weights, config.data.tokenizer, default, config.where("data.tokenizer"))
        why = f"that of the weights at {config.weights}"
        if recorded is None:
            display.line(
                f"warning: no tokenizer came with the weights at {config.weights}: see that the run's is theirs"
            )
    given = set(engine.graph.inputs) - {engine.token_input, TARGETS}
    if given:
        raise DataError(
            f"model {engine.graph.name} has the input {', '.join(sorted(given))}; training data gives "
            f"{engine.token_input} and {TARGETS}",
            hint="remove the input in a model that extends this one",
        )
    data = open_data(
        config.data,
        dims=engine.graph.dims,
        seed=config.seed,
        vocab=engine.graph.inputs[engine.token_input].bound,
        tokenizer=recorded,
        why=why,
        where=config.where,
        progress=lambda at, total, what: display.status(f"{what}: {at:,} of {total:,}"),
    )
    if start is not None:
        check_same_data(start, data, allow_change, display)
    return data


def check_same_data(start: Checkpoint, data: Data, allow_change: bool, display: Display) -> None:
    before, now = start.state.get("data") or {}, data.describe()
    if not before.get("train"):
        return
    lines = diff_description(before["train"], now["train"])
    if before.get("val") and now["val"]:
        lines += diff_description(before["val"], now["val"])
    if not lines:
        return
    if not allow_change:
        raise DataError(
            "the data is not what the checkpoint was trained on:\n" + "\n".join(f"  {line}" for line in lines),
            hint="put it back, or go on with --allow-data-change, which records the change",
        )
    for line in lines:
        display.line(f"data change, allowed: {line}")


def learning_rate(config: RunConfig, registry: Registry) -> Callable[[int], float]:
    """step 0 .. steps-1 -> its learning rate. Raises CoreError for a schedule or an option that does not exist."""
    schedule = registry.schedule(config.schedule.name, config.where("schedule.name"))
    options = options_of(config, "schedule", schedule.options)
    return lambda step: float(schedule.lr(step, config.train.steps, config.optimizer.lr, options))


def schedule_remarks(config: RunConfig, registry: Registry) -> list[str]:
    """What a person should know of the schedule's options in a run of so many steps."""
    schedule = registry.schedule(config.schedule.name, config.where("schedule.name"))
    options = options_of(config, "schedule", schedule.options)
    return [f"{config.where('schedule.name')}: {r}" for r in schedule.remarks(config.train.steps, options)]


def batches_of(
    source: TokenSource, engine: Engine, micro: int, start: Checkpoint | None
) -> Callable[[int], list[dict[str, Array]]]:
    """step -> its micro-batches by graph input. A run that is resumed goes on behind the tokens that it has drawn,
    also where a step has another number of tokens than before."""
    name = engine.token_input
    done, drawn = (start.step, start.state["tokens"] // source.T) if start else (0, 0)

    def batches(step: int) -> list[dict[str, Array]]:
        pairs = [source.batch(step - done, index, micro, first=drawn) for index in range(micro)]
        return [{name: tokens, TARGETS: targets} for tokens, targets in pairs]

    return batches


def val_batches_of(source: TokenSource, engine: Engine, tokens: int) -> Callable[[], Iterator[dict[str, Array]]]:
    name = engine.token_input

    def batches() -> Iterator[dict[str, Array]]:
        for tokens_of, targets in source.val_batches(tokens):
            yield {name: tokens_of, TARGETS: targets}

    return batches


def peak_tokens_per_s(engine: Engine, tokens: int) -> float | None:
    """Of a chip that is in the table of peaks, when every FLOP of the model counts; `tokens` are a micro-batch's."""
    found = gpu(getattr(engine.device, "model", ""))
    peak = found.peak(engine.precision, engine.settings.tf32) if found else None
    return peak / per_token(engine.plan(TRAIN).graph, tokens).full if peak else None


def memory_of(device: Any) -> Callable[[], int | None]:
    """Bytes in use where the tensors are: on a GPU its own memory, else this process's."""
    of_its_own = getattr(device, "memory", None)
    if of_its_own is None:
        return memory_in_use

    def in_use() -> int:
        free, total = of_its_own()
        return int(total - free)

    return in_use


def make_job(
    config: RunConfig,
    registry: Registry,
    run: Run,
    display: Display,
    engine: Engine,
    data: Data,
    micro: int,
    lr: Callable[[int], float],
    record: Mapping[str, Any],
    start: Checkpoint | None,
    weights: Start | None,
) -> Job:
    """Everything that the loop needs, settled."""
    table = config.train
    B, T = (int(engine.graph.dims[name]) for name in SIZES)
    val_tokens = table.val_tokens or 20 * B * T
    tokenizer = data.tokenizer
    return Job(
        run=run,
        engine=engine,
        display=display,
        steps=table.steps,
        tokens_per_step=table.tokens_per_step,
        batches=batches_of(data.train, engine, micro, start),
        lr=lr,
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
        keep_best=table.keep_best,
        keep_last=table.keep_last,
        keep_every=table.keep_every,
        save_errors=table.save_errors,
        log_every=table.log_every,
        peak_tokens_per_s=peak_tokens_per_s(engine, B * T),
        memory=memory_of(engine.device),
        hooks=registry.step_hooks,
        state={
            "corelm": core.__version__,
            "model": engine.graph.name,
            "device": config.device,
            "precision": config.precision,
            "optimizer": config.optimizer.name,
            "schedule": config.schedule.name,
            "tokenizer": {"name": tokenizer.name, "hash": tokenizer.hash} if tokenizer else None,
            "data": data.describe(),
            "variants": record["nodes"],
            "tiles": record["tiles"],
            "made_with": record["made_with"],
            **(weights.generation if weights else of_state(start.state) if start else Generation()).state(),
        },
    )


# --- what is said at the start ---------------------------------------------------------------------------------


def check_first(
    config: RunConfig, plugins: Sequence[str], engine: Engine, verdicts: Verdicts, speaks: bool, display: Display
) -> Precheck:
    """The checks before step 1, done. speaks: whether there is a tokenizer, so that the run's samples can be drawn.

    Raises Refused for a variant that was chosen by name, or recorded, and fails.
    """

    def plans() -> list[Plan]:
        samples = [engine.session(1).plan(1)] if config.train.sample_every and speaks else []
        return [engine.plan(TRAIN), *samples]

    checks = Precheck(config, plugins, engine, verdicts, plans, display)
    checks.run()
    return checks


def table_of_choices(engine: Engine, plan: Plan, checks: Precheck) -> list[dict[str, Any]]:
    """The plan's choices, a row each, with what the op check said of them at the run's sizes."""
    rows, sizes = [], sizes_by_choice(checks.needs())
    for row in engine.table(plan):
        variant = engine.registry.variant(row["op"], row["variant"])
        found = checks.verdicts.lookup(variant, checks.place, engine.precision)
        said = found.at(sizes.get((row["op"], row["variant"]), {})) if found else "unchecked"
        rows.append({**row, "check": said})
    return rows


def variants_record(
    config: RunConfig, registry: Registry, engine: Engine, plan: Plan, table: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """variants.json: the choices on which the run's bits depend, and the sources and versions of what was chosen."""
    choices = engine.choices(plan)
    others = (registry.optimizer(config.optimizer.name), registry.schedule(config.schedule.name))
    return {
        "device": engine.device.describe(),
        "precision": config.precision,
        "tf32": config.train.tf32,
        "table": list(table),
        "nodes": {name: choice.variant.name for name, choice in choices.items()},
        "tiles": engine.tiles(plan),
        "made_with": made_with(registry, (c.variant for c in choices.values()), others, engine.device.describe()),
    }


def announce(
    config: RunConfig,
    run: Run,
    engine: Engine,
    plan: Plan,
    table: Sequence[Mapping[str, Any]],
    data: Data,
    micro: int,
    display: Display,
) -> None:
    """What was folded in, the device, the model, memory, data, and the table of choices: once, at the start."""
    graph = engine.graph
    sizes = ", ".join(f"{name} = {int(graph.dims[name]):,}" for name in SIZES)
    memory = engine.memory(plan)
    for note in config.notes:
        display.line(note)
    display.line(f"run: {run.path}, on {engine.device.describe()}, in {config.precision}")
    display.line(
        f"model: {graph.name}, {graph.parameter_count:,} parameters; {sizes}; "
        f"{micro} micro-step{'s' * (micro > 1)} a step"
    )
    display.line(f"memory: {', '.join(f'{part} {human(memory[part])}' for part in HELD if memory.get(part))}")
    for note in data.notes:
        display.line(note)
    held_out = f", {data.val.tokens:,} to validate on" if data.val else ""
    display.line(f"data: {data.train.tokens:,} tokens to train on{held_out}")
    header = ("op", "variant", "nodes", "source", "why", "check")
    for line in table_lines([[row[name] for name in header] for row in table], header):
        display.line(f"  {line}")


def announce_start(
    config: RunConfig,
    start: Checkpoint | None,
    before: Mapping[str, Any] | None,
    record: Mapping[str, Any],
    estimate: float | None,
    display: Display,
) -> None:
    """Where the run starts from, what has changed since, and how long it may take."""
    if start is not None:
        display.line(f"resumed from {start}")
        for line in differences(flat(before or config.document), flat(config.document)):
            display.line(f"config change: {line}")
        for line in differences(start.state["variants"], record["nodes"]):
            display.line(f"variant change: {line}")
        for line in differences(start.state["made_with"] or record["made_with"], record["made_with"]):
            display.line(f"change since the checkpoint: {line}")
    if start is None and config.weights:
        display.line(f"weights: {config.weights}")
    if estimate is not None:
        steps = config.train.steps - (start.step if start else 0)
        *_, what = SLOW[config.device]
        display.line(f"estimate: {steps:,} steps take {duration(max(1, estimate))} {what}")
