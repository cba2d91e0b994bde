"""`core check --shape` and `core check --config`: variants at given sizes, or at those of a config's plan."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from core.cli.show import json_text
from core.devices import AUTO, DeviceKind
from core.endings import ending
from core.errors import BuildError, CheckFailed, UsageError
from core.loader import load_registry
from core.registry import Registry
from core.testing.check import find
from core.testing.growing_sizes import dims_of, estimate
from core.testing.model_sizes import OVER, OnActivity, SizesOutcome, Task, rounds, share, task_of
from core.testing.records import keep
from core.testing.shapes import example_of
from core.testing.worker import LAUNCH, Checker, CheckPlace
from core.train.display import Display
from core.verdicts import Verdicts, chip_of, label, sizes_of
from core.words import duration

if TYPE_CHECKING:
    from core.plan import Need, Plan

LIMIT = 600.0  # seconds for a config, without --limit
FOREVER = 1e7  # seconds


@dataclass(frozen=True)
class Item:
    """One thing to check: a task, where, and the sizes that it is about."""

    task: Task
    device: str
    sizes: dict[str, int]
    seconds: float  # estimated


def check_at(
    target: str | None,
    shape: Sequence[str],
    config: str | None,
    overrides: Sequence[str],
    device: str,
    limit: float | None,
    seed: int,
    plugins: Sequence[str],
    as_json: bool,
) -> None:
    """Check and print a line each. CheckFailed when a variant is wrong; BuildError when nothing could be checked."""
    disable: Sequence[str] = ()
    if config is not None:
        registry, items, plugins, disable = items_of_config(config, overrides, device, plugins)
        limit = LIMIT if limit is None else limit
    elif target is None:
        raise UsageError("--shape needs an OP or an OP.VARIANT", hint="core check layernorm --shape x=4,1030")
    else:
        registry = load_registry(plugins)
        items = items_of_shape(target, shape, device, seed, registry)
    if not as_json:
        about = duration(math.ceil(sum(item.seconds for item in items)))
        click.echo(f"{len(items)} to check: about {about}{f', at most {limit:g} s' if limit else ''}")
    rows: dict[int, SizesOutcome] = {}
    display = Display(sys.stderr)
    with ending(partial(as_rows if as_json else summary, items, rows), rows):
        for number, outcome in outcomes(
            items, registry, tuple(plugins), tuple(disable), limit or FOREVER, display.status
        ):
            rows[number] = outcome
            display.close()
            if not as_json:
                click.echo(line_of(items[number], outcome))
    failed = [items[number].task.name for number in sorted(rows) if not rows[number].passed]
    if failed:
        raise CheckFailed(f"failed: {', '.join(dict.fromkeys(failed))}")
    if rows and not any(outcome.checks for outcome in rows.values()):
        raise BuildError("nothing could be checked: " + "; ".join(dict.fromkeys(o.left for o in rows.values())))


def as_rows(items: Sequence[Item], rows: Mapping[int, SizesOutcome], cut_off: str) -> str:
    """All of it as JSON. cut_off: why the check ended early, in the rows of items that it did not come to, which have
    not passed."""
    data = []
    for number, item in enumerate(items):
        row, missing = as_data(item, rows.get(number, SizesOutcome())), number not in rows
        data.append(row | {"passed": row["passed"] and not missing, "cut_off": cut_off if missing else ""})
    return json_text(data)


def summary(items: Sequence[Item], rows: Mapping[int, SizesOutcome], cut_off: str) -> str:
    """The sum of it, and the sizes that were not reached."""
    left = [(items[n], rows[n]) for n in sorted(rows) if rows[n].passed and rows[n].left]
    passed, waiting = sum(outcome.passed for outcome in rows.values()) - len(left), len(items) - len(rows)
    lines = [f"{passed} of {len(rows)} passed" + (f", {waiting} not checked: {cut_off}" if waiting else "")]
    for item, outcome in left:
        beyond = {dim: size for dim, size in item.sizes.items() if size > outcome.sizes.get(dim, 0)}
        lines.append(f"left: {item.task.name} {item.task.dtype} at {label(beyond)}: {outcome.left}")
    return "\n".join(lines)


def items_of_shape(target: str, shape: Sequence[str], device: str, seed: int, registry: Registry) -> list[Item]:
    """The variants that are named, in each of their dtypes, at exactly these sizes."""
    items = []
    for op, variant in find(target, registry, device):
        example = example_of(op, shape)
        where, sizes = device or registry.home(variant).name, sizes_of(op, dims_of(op, example))
        for dtype in variant.dtypes:
            task = Task(op.name, variant.name, dtype, example, whole=True, seed=seed)
            items.append(Item(task, where, sizes, estimate(op, example, registry.device(where).simulated)))
    return items


def items_of_config(
    config: str, overrides: Sequence[str], device: str, plugins: Sequence[str]
) -> tuple[Registry, list[Item], list[str], list[str]]:
    """Every distinct node of the config's plan, with nested launches and the update; the plugins to load and those to
    leave out."""
    from core.config import resolve_config
    from core.graph import load_model
    from core.measure.tuned import load_tuned
    from core.plan import needs_of
    from core.train.wiring import build_engine

    loaded, registry = resolve_config(config, overrides=overrides, device=device or AUTO, plugins=plugins)
    needed = [*plugins, *loaded.plugins.load]
    opened = registry.devices[loaded.device].open()
    twin = opened.unbacked()  # plans need no memory
    engine = build_engine(
        loaded, registry, load_model(loaded.model, registry), None, twin, tuned=load_tuned(opened) or None
    )
    needs: dict[str, Need] = {}
    for plan in plans_of(engine, bool(loaded.train.sample_every)):
        engine.report(plan).choices()
        needs |= {need.key: need for need in needs_of(plan, engine.chooser)}
    items = [item_of(need, registry.devices[loaded.device]) for need in largest_of(list(needs.values()))]
    return registry, items, needed, loaded.plugins.disable


def item_of(need: Need, kind: DeviceKind) -> Item:
    return Item(task_of(need), kind.name, dict(need.sizes), estimate(need.op, need.example, kind.simulated))


def largest_of(needs: Sequence[Need]) -> list[Need]:
    """Without those whose sizes another need of the same variant has too: a decoded token's, for the most part."""

    def within(need: Need, other: Need) -> bool:
        larger = all(size <= other.sizes.get(dim, 0) for dim, size in need.sizes.items())
        return need.name == other.name and larger and need.sizes != other.sizes

    return [need for need in needs if not any(within(need, other) for other in needs)]


def plans_of(engine: Any, samples: bool) -> Iterator[Plan]:
    """A training step's, and where the run samples, a token's."""
    from core.plan import TRAIN

    yield engine.plan(TRAIN)
    if samples:
        yield engine.session(1).plan(1)


def outcomes(
    items: Sequence[Item],
    registry: Registry,
    plugins: tuple[str, ...],
    disable: tuple[str, ...],
    limit: float,
    on_activity: OnActivity,
) -> Iterator[tuple[int, SizesOutcome]]:
    """The number of each item with its result, kept for later runs; within `limit` seconds in all. Where
    time is left in the end, items that were not finished are continued, and yielded again."""
    with ExitStack() as stack:
        session = SizeChecks(items, registry, plugins, disable, time.monotonic() + limit, on_activity, stack)
        for numbers in rounds(len(items), session.outcomes):
            for place, number in enumerate(numbers):
                if time.monotonic() < session.end:
                    yield number, session.check(numbers[place:], f"{place + 1} of {len(numbers)}")
                elif number not in session.outcomes:
                    session.outcomes[number] = SizesOutcome(left=OVER)
                    yield number, session.outcomes[number]


@dataclass
class SizeChecks:
    """The checks of a command under way. end: when its time is over. found: number of an item -> its result."""

    items: Sequence[Item]
    registry: Registry
    plugins: tuple[str, ...]
    disable: tuple[str, ...]
    end: float
    on_activity: OnActivity
    stack: ExitStack
    outcomes: dict[int, SizesOutcome] = field(default_factory=dict)
    checkers: dict[str, Checker] = field(default_factory=dict)

    def check(self, numbers: Sequence[int], place: str) -> SizesOutcome:
        """Check the first of the items that wait, or continue it; keep the verdict. place: `3 of 12`."""
        item, before = self.items[numbers[0]], self.outcomes.get(numbers[0])
        variant = self.registry.variant(item.task.op, item.task.variant)
        doing = f"checking {item.task.name}, {place}"
        self.on_activity(doing)
        task = item.task if before is None else replace(item.task, done=before.done)
        now = self._checker(item.device).check(
            task, self._seconds(numbers), lambda text: self.on_activity(f"{doing}: {text}")
        )
        outcome = self.outcomes[numbers[0]] = now if before is None else before.with_more(now)
        chip = chip_of(self.registry.device(item.device).open())
        verdict = outcome.verdict(item.device, chip, item.task.dtype, [label(item.sizes)])
        if verdict is not None:
            keep(Verdicts(self.registry), variant, verdict)
        return outcome

    def _checker(self, device: str) -> Checker:
        if device not in self.checkers:
            self.checkers[device] = self.stack.enter_context(Checker(CheckPlace(device, self.plugins, self.disable)))
        return self.checkers[device]

    def _seconds(self, numbers: Sequence[int]) -> float:
        """The share of the first of these items in the time that remains."""
        waiting = [(self.registry.op(self.items[n].task.op), self.items[n].task.example) for n in numbers]
        simulated = self.registry.device(self.items[numbers[0]].device).simulated
        return share(self.end - time.monotonic(), waiting, simulated, LAUNCH)


def line_of(item: Item, outcome: SizesOutcome) -> str:
    """`layernorm.warp f32 rows=4 C=1,030  passed 1.2e-07 (0.4 s)`"""
    said = (
        "FAILED"
        if not outcome.passed
        else "passed"
        if not outcome.left
        else "passed in part"
        if outcome.checks
        else "left"
    )
    worst = f" {max(outcome.checks.values()):.1e}" if outcome.checks and outcome.passed else ""
    head = f"{item.task.name} {item.task.dtype} on {item.device}, {label(item.sizes)}"
    lines = [f"{head}: {said}{worst} ({outcome.seconds:.1f} s)"]
    if not outcome.passed:
        lines.append(f"  {outcome.finding}")
    elif outcome.left and outcome.checks:
        lines.append(f"  to {label(outcome.sizes)}: {outcome.left}")
    return "\n".join(lines)


def as_data(item: Item, outcome: SizesOutcome) -> dict[str, Any]:
    return {
        "op": item.task.op,
        "variant": item.task.variant,
        "dtype": item.task.dtype,
        "device": item.device,
        "shape": shape_of(item),
        "passed": outcome.passed,
        "checks": {name: min(worst, 1e300) for name, worst in outcome.checks.items()},
        "sizes": dict(outcome.sizes),
        "smallest": dict(outcome.smallest),
        "finding": outcome.finding,
        "left": outcome.left,
        "seconds": outcome.seconds,
    }


def shape_of(item: Item) -> dict[str, Any]:
    return {name: list(v) if isinstance(v, tuple) else v for name, v in item.task.example.items()}
