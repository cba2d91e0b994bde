"""From a run config to a Trainer at its first step, in the order in which things can go wrong.

Typing errors come first and create nothing: config, device, registry, graph, estimate, data. Then the folder is made
and locked, and memory is filled last. The steps themselves: start.py, wiring.py, refusals.py, announce.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from core.config import check_out, micro_steps, resolve_config
from core.graph import load_model
from core.interop import checkpoint, pointers
from core.plan import TRAIN
from core.roles import BATCH
from core.train.announce import announce, announce_start, table_of_choices, variants_record
from core.train.display import Display
from core.train.loop import Trainer, run_job
from core.train.refusals import check_disk, check_estimate, check_first
from core.train.run import Run, choose_folder, claim, occupied
from core.train.start import fill, find_weights, repair
from core.train.wiring import (
    Parts,
    build_engine,
    find_data,
    keeps_best,
    learning_rate,
    make_job,
    schedule_remarks,
)
from core.verdicts import Verdicts


@dataclass(frozen=True)
class TrainArguments:
    """The arguments of `core train`, as parsed by the command line."""

    config: str
    overrides: Sequence[str] = ()
    device: str = "auto"
    plugins: Sequence[str] = ()
    out: Path | None = None
    resume: bool = False
    origin: Path | None = None  # --from: a checkpoint or run to continue, in a new folder
    allow_data_change: bool = False
    long: bool = False


def train(arguments: TrainArguments, display: Display) -> int:
    """A whole run. Returns the exit code: 0, 130, 143. Raises CoreError."""
    with ExitStack() as stack:
        return run_job(prepare(arguments, display, stack))


def prepare(arguments: TrainArguments, display: Display, stack: ExitStack) -> Trainer:
    """A Trainer at its first step; `stack` closes the run's folder."""
    config, registry = resolve_config(
        arguments.config, overrides=arguments.overrides, device=arguments.device, plugins=arguments.plugins
    )
    folder = choose_folder(check_out(arguments.out) if arguments.out else None, config.path.stem, arguments.resume)
    run = Run(folder)
    if arguments.resume and occupied(folder):
        stack.enter_context(run)
        display.log = run.log
    start = None
    if arguments.resume or arguments.origin is not None:
        from core.train.resume import (  # a fresh run needs nothing of it
            fill_from,
            find_start,
            resumed_state,
            same_architecture,
        )

        start = find_start(arguments.origin, arguments.resume, run, display)

    model, before = load_model(config.model, registry), None
    if start is not None:
        from core.train.run_names import resolved_config

        before = resolved_config(start.path.absolute().parents[1])
        same_architecture(start, model.to_toml(config.dims))
    verdicts = Verdicts(registry)
    engine = build_engine(config, registry, model, start.state if start else None, verdicts=verdicts)
    B, T = (int(engine.graph.dims[name]) for name in BATCH)
    micro = micro_steps(config.train.tokens_per_step, B, T, where=config.where("train.tokens_per_step"))
    done = start.step if start else 0
    plan = engine.plan(TRAIN)
    engine.report(plan).check_fit()
    estimate = check_estimate(config, engine, plan, micro, done, arguments.long)
    lr = learning_rate(config, registry)
    weights = find_weights(config, registry, engine) if start is None else None
    data = find_data(config, engine, start, weights, display)
    if start is not None:
        from core.train.same_data import check_same_data

        check_same_data(start, data, arguments.allow_data_change, display)
    if config.train.sample_every and data.tokenizer:
        engine.session(1).plan(1)  # a model that cannot generate is refused now, not at the first sample
    keep = keeps_best(config, data)
    check_disk(config, engine, run, done, keep)
    plugins = [*arguments.plugins, *config.plugins.load]
    checks = check_first(config, plugins, engine, verdicts, bool(data.tokenizer), display)
    plan = engine.plan(TRAIN)
    table = table_of_choices(engine, plan, checks)

    if display.log != run.log:
        run = claim(run, start is None, run.path if arguments.out or arguments.resume else None, config.path.stem)
        stack.callback(run.close)
        display.log = run.log
    run.rewind(done)
    resumed = resumed_state(start, run, keep) if start else None
    best = resumed["best_step"] if resumed else None
    repair(run, pointers.BEST, best, display)
    for problem in checkpoint.retain(run.checkpoints, done, config.train.keep_last, config.train.keep_every, best):
        display.line(f"warning: {problem}")  # a kill may have come between a save and its retention
    run.write_config(config.source, config.to_toml())
    record = variants_record(config, registry, engine, plan, table)
    run.write_variants(record)
    parts = Parts(config, registry, engine, plan, data, micro, lr, start, weights)
    announce(parts, run, table, display)
    for note in checks.notes():
        display.line(f"  {note}")
    announce_start(parts, before, record, estimate, display)
    for remark in schedule_remarks(config, registry):
        display.line(f"warning: {remark}")
    if start is not None:
        fill_from(start, config, engine, display)
    else:
        fill(config, engine, weights)
    display.status("compiling kernels")
    engine.prepare()
    return Trainer(make_job(parts, run, display, record), resumed)
