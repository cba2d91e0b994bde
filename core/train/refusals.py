"""Reasons to refuse a run before step 1: too long on a slow device, no room for its checkpoints, changed
data, a variant that fails its check."""

from __future__ import annotations

import math
from collections.abc import Sequence

from core import checkpoint
from core.config import RunConfig
from core.dtypes import itemsize, resolve
from core.engine import Engine
from core.expr import trim
from core.measure.estimate import estimate_seconds, refuse_long
from core.plan import TRAIN, Plan
from core.train.display import Display
from core.train.precheck import Precheck
from core.train.run import Run
from core.verdicts import Verdicts
from core.words import duration


def check_disk(config: RunConfig, engine: Engine, run: Run, done: int, best: bool) -> None:
    """Before step 1 and before the run's folder is made: CheckpointError without room for the run's checkpoints.

    best: whether the best by validation is kept in addition to the last ones.
    """
    table = config.train
    if not table.checkpoint_every:
        return
    width = itemsize(resolve("acc", engine.precision))
    states = len(engine.registry.optimizer(config.optimizer.name).state)
    elements = [(math.prod(trim(place.shape)), place.trains) for place in engine.layout.places.values()]
    sizes = {
        checkpoint.MODEL: width * sum(size for size, _ in elements),
        checkpoint.OPTIMIZER: width * states * sum(size for size, trains in elements if trains),
    }
    if engine.slices:
        from core.train.sliced_saving import state_sizes  # of runs on several ranks

        del sizes[checkpoint.OPTIMIZER]
        sizes |= state_sizes(engine.slices, width * states)
    every = [table.checkpoint_every, table.val_every] if best else [table.checkpoint_every]
    saves = due_steps(table.steps, done, [period for period in every if period > 0])
    checkpoint.check_room(run.checkpoints, sizes, table.keep_last + best, saves)


def due_steps(steps: int, done: int, every: Sequence[int]) -> int:
    """The number of steps among done + 1 .. `steps` that one of up to two periods divides, the last step always
    counted."""
    both = math.lcm(*every) if len(every) == 2 else 0

    def until(last: int) -> int:
        return sum(last // period for period in every) - (last // both if both else 0)

    ends = int(all(steps % period for period in every))
    return until(steps) - until(done) + ends if done < steps else 0


def check_estimate(config: RunConfig, engine: Engine, plan: Plan, micro: int, done: int, allowed: bool) -> str:
    """The duration of the rest of the run on a slow device, as text, refused beyond an hour; "" on others."""
    pace = engine.registry.device(config.device).measured_pace(engine.device)
    if pace is None:
        return ""
    steps = max(0, config.train.steps - done)
    tokens = steps * config.train.tokens_per_step
    extra = pace.per_launch * len(plan.steps) * micro * steps
    seconds = estimate_seconds(engine.graph.parameter_count, tokens, pace.flops, extra)
    refuse_long(seconds, config.device, steps=steps, allowed=allowed, where=config.where("train.steps"))
    return f"{duration(max(1, seconds))} {pace.note}"


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
    if dict(checks.missing()):
        from core.train.check_rounds import CheckRounds  # for runs that check any

        CheckRounds(checks).run()
    return checks
