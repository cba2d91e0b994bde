"""From a run config to a Trainer at its first step, in the order of possible errors.

Typing errors are first and create nothing: config, device, registry, graph, estimate, data. Then the folder is made
and locked, and memory is filled last. The steps themselves: start.py, wiring.py, refusals.py, announce.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import checkpoint
from core.checkpoint import pointers
from core.config import RunConfig, micro_steps, resolve_config
from core.engine import Engine
from core.errors import UsageError
from core.graph import load_model
from core.plan import TRAIN
from core.ranks.group import ALONE, Ranks
from core.ranks.launched import launched
from core.registry import Registry
from core.train.announce import announce, announce_start, made_kernels, table_of_choices, variants_record
from core.train.display import Display
from core.train.loop import Trainer, run_job
from core.train.refusals import check_disk, check_estimate, check_first
from core.train.run import Run, choose_folder, claim, occupied
from core.train.start import fill, find_weights, repair
from core.train.wiring import (
    Parts,
    build_engine,
    check_best,
    check_new,
    find_data,
    keeps_best,
    learning_rate,
    make_job,
    schedule_remarks,
)
from core.verdicts import Verdicts

if TYPE_CHECKING:
    from core.checkpoint import Checkpoint
    from core.train.precheck import Precheck


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

    def resolve(self) -> tuple[RunConfig, Registry]:
        """The run config, and the registry for a run on its device. Raises UsageError, BuildError."""
        overrides, plugins = self.overrides, self.plugins
        return resolve_config(self.config, overrides=overrides, device=self.device, plugins=plugins, whole=False)


def train(arguments: TrainArguments, display: Display) -> int:
    """A whole run. Returns the exit code: 0, 130, 143. Raises CoreError."""
    with ExitStack() as stack:
        return run_job(prepare(arguments, display, stack))


def prepare(arguments: TrainArguments, display: Display, stack: ExitStack) -> Trainer:
    """A Trainer at its first step; `stack` closes the run's folder."""
    config, registry = arguments.resolve()
    ranks = ranks_of(registry, config, arguments)
    if out := arguments.out:
        from core.config.out_folder import check_out

        check_out(out)
    folder = Path(ranks.decide(lambda: str(choose_folder(out, config.path.stem, arguments.resume))))
    run = run_in(folder, ranks)
    if arguments.resume and ranks.decide(lambda: occupied(folder)):
        see_folder(stack.enter_context(run), ranks)
        display.log = run.log
    start = find_origin(arguments, run, display, ranks)
    model = load_model(config.model, registry)
    before = config_before(start, model.to_toml(config.dims)) if start is not None else None
    verdicts = Verdicts(registry)
    engine = build_engine(config, registry, model, start.state if start else None, verdicts=verdicts, ranks=ranks)
    parts, estimate = checked_parts(arguments, config, registry, engine, start, display)
    keep = keeps_best(config, parts.data)
    ranks.decide(lambda: check_disk(config, engine, run, parts.done, keep))
    checks = check_choices(arguments, parts, verdicts, display)
    parts = replace(parts, plan=engine.plan(TRAIN))  # again: a variant that failed its check is not taken
    table = table_of_choices(engine, parts.plan, checks)
    record = variants_record(config, registry, engine, parts.plan, table)
    same_parts(parts, record)

    if display.log != run.log:
        run = claimed(run, start is None, run.path if arguments.out or arguments.resume else None, config, ranks)
        stack.callback(run.close)
        display.log = run.log
    if ranks.watcher is not None:
        ranks.watcher.note = run.log
    resumed = tidy(run, parts, keep, display)
    run.write_config(config.source, config.to_toml())
    run.write_variants(record, made_kernels(engine, parts.plan))
    announce(parts, run, table, display)
    for note in checks.notes():
        display.line(f"  {note}")
    announce_start(parts, before, record, estimate, display)
    for remark in schedule_remarks(config, registry):
        display.line(f"warning: {remark}")
    arrays = fill_parameters(parts, display)
    display.status("compiling kernels")
    ranks.states("compiling kernels", long=True)
    ranks.in_turn(engine.prepare)
    return Trainer(make_job(parts, run, display, record), resumed, arrays)


def ranks_of(registry: Registry, config: RunConfig, arguments: TrainArguments) -> Ranks:
    """The processes of the run: this one alone, unless a launcher started several. UsageError where they do not run the
    same program with the same config."""
    this = launched()
    if this.size == 1:
        return ALONE
    from core.ranks.joining import join  # of runs on several ranks
    from core.train.agreement import compare_programs

    ranks = join(registry.complete().ranks, registry.device(config.device), this, config.train.rank_timeout)
    compare_programs(ranks, config, asdict(arguments))
    return ranks


def run_in(folder: Path, ranks: Ranks) -> Run:
    """The run's folder, to be written to by rank 0 alone."""
    if ranks.leads:
        return Run(folder)
    from core.train.follower import Follower

    return Follower(folder)


def see_folder(run: Run, ranks: Ranks) -> Run:
    """The run, closed and with UsageError on all ranks unless each sees its folder and writes there."""
    if ranks.size > 1:
        from core.train.shared_folder import check_shared  # of runs on several ranks

        try:
            check_shared(run.checkpoints, ranks)
        except UsageError:
            run.close()
            raise
    return run


def claimed(run: Run, fresh: bool, out: Path | None, config: RunConfig, ranks: Ranks) -> Run:
    """The run's folder, locked by rank 0, as `claim` has it; each rank sees it."""
    mine = claim(run, fresh, out, config.path.stem) if ranks.leads else run
    path = Path(ranks.decide(lambda: str(mine.path)))
    return see_folder(mine if ranks.leads else run_in(path, ranks), ranks)


def find_origin(arguments: TrainArguments, run: Run, display: Display, ranks: Ranks) -> Checkpoint | None:
    """The checkpoint that the run continues; None for a fresh run."""
    if not arguments.resume and arguments.origin is None:
        return None
    from core.train.resume import find_start  # of runs that continue

    if ranks.size == 1:
        return find_start(arguments.origin, arguments.resume, run, display)
    from core.train.agreement import compare_start
    from core.train.verified_together import load_together

    start = find_start(arguments.origin, arguments.resume, run, display, lambda path: load_together(ranks, path))
    compare_start(ranks, start)
    return start


def config_before(start: Checkpoint, model: str) -> Mapping[str, Any] | None:
    """The resolved config that the checkpoint was written under. Raises CheckpointError unless the run's model, as
    TOML, is the checkpoint's."""
    from core.train.resume import same_architecture
    from core.train.run_names import resolved_config

    before = resolved_config(start.path.absolute().parents[1])
    same_architecture(start, model)
    return before


def checked_parts(
    arguments: TrainArguments, config: RunConfig, registry: Registry, engine: Engine, start: Checkpoint | None,
    display: Display,
) -> tuple[Parts, str]:  # fmt: skip
    """The parts of a run that fit the machine and each other, and the estimate of its time. Raises CoreError."""
    B, T = engine.graph.batch
    where = config.where("train.tokens_per_step")
    micro = micro_steps(config.train.tokens_per_step, B, T, engine.ranks.size, where)
    plan = engine.plan(TRAIN)
    if engine.device.memory() is not None:  # else the operating system manages it
        from core.plan.figures import check_fit

        check_fit(engine.report(plan))
    done = start.step if start else 0
    estimate = engine.ranks.decide(lambda: check_estimate(config, engine, plan, micro, done, arguments.long))
    check_best(config, engine)
    check_new(config, engine)
    lr = learning_rate(config, registry)
    weights = find_weights(config, registry, engine) if start is None else None
    engine.ranks.states("preparing data", long=True)
    data = engine.ranks.in_turn(lambda: find_data(config, registry, engine.graph, start, weights, display))
    if start is not None:
        from core.train.same_data import check_same_data

        check_same_data(start, data, arguments.allow_data_change, display)
    if config.train.sample_every and data.tokenizer:
        engine.session(1).plan(1)  # a model that cannot generate is refused now, not at the first sample
    return Parts(config, registry, engine, plan, data, micro, lr, start, weights), estimate


def check_choices(arguments: TrainArguments, parts: Parts, verdicts: Verdicts, display: Display) -> Precheck:
    """The checks before step 1, done; on several ranks, the variants that rank 0 has chosen."""
    config, engine = parts.config, parts.engine
    plugins = [*arguments.plugins, *config.plugins.load]
    engine.ranks.states("checking variants", long=True)
    speaks = bool(parts.data.tokenizer)
    checks = engine.ranks.in_turn(lambda: check_first(config, plugins, engine, verdicts, speaks, display))
    if engine.ranks.size > 1:
        from core.train.agreement import take_choices

        take_choices(engine)
    return checks


def same_parts(parts: Parts, record: Mapping[str, Any]) -> None:
    """Raises UsageError where ranks have other data, tokenizers, variants or sources. record: variants.json."""
    if parts.engine.ranks.size > 1:
        from core.train.agreement import compare_parts

        compare_parts(parts, record)


def tidy(run: Run, parts: Parts, keep: bool, display: Display) -> Mapping[str, Any] | None:
    """Remove records after the first step from the run's folder; the state that a resumed run continues."""
    leads = parts.engine.ranks.leads
    run.rewind(parts.done, parts.config.train.health_every > 0)
    resumed = None
    if parts.start is not None:
        from core.train.resume import resumed_state

        resumed = resumed_state(parts.start, run, keep, parts.config.train.best)
    best = resumed["best_step"] if resumed else None
    if not leads:
        return resumed
    repair(run, pointers.BEST, best, display)
    table = parts.config.train
    for problem in checkpoint.retain(run.checkpoints, parts.done, table.keep_last, table.keep_every, best):
        display.line(f"warning: {problem}")  # a kill may have been between a save and its retention
    return resumed


def fill_parameters(parts: Parts, display: Display) -> dict[str, Any]:
    """Weights of the checkpoint, of the model that the config names, or drawn from the seed. Returns the arrays that
    the checkpoint keeps for hooks."""
    if parts.start is None:
        fill(parts.config, parts.engine, parts.weights, display)
        return {}
    from core.train.resume import fill_from

    return fill_from(parts.start, parts.config, parts.engine, display)
