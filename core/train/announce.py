"""The first lines of a run: device, model, memory, data, the table of choices, and changes since a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.cache import cache_folder
from core.config import RunConfig
from core.engine import Engine
from core.plan import Plan
from core.plan.buffers import HELD
from core.plan.needs import sizes_by_choice
from core.registry import Registry
from core.roles import BATCH
from core.train.display import Display
from core.train.precheck import Precheck
from core.train.provenance import made_with
from core.train.run import Run
from core.train.wiring import Parts
from core.words import human
from core.words import table as table_lines

STATES = "optimizer"  # the part of the memory of which ranks may have slices


def table_of_choices(engine: Engine, plan: Plan, checks: Precheck) -> list[dict[str, Any]]:
    """The plan's choices, a row each, with the op check's verdict at the run's sizes."""
    rows, sizes = [], sizes_by_choice(checks.needs())
    for row in engine.report(plan).table():
        variant = engine.registry.variant(row["op"], row["variant"])
        verdict = checks.verdicts.lookup(variant, checks.place, engine.precision)
        said = verdict.at(sizes.get((row["op"], row["variant"]), {})) if verdict else "unchecked"
        rows.append({**row, "check": said})
    return rows


def variants_record(
    config: RunConfig, registry: Registry, engine: Engine, plan: Plan, table: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """variants.json: the choices on which the run's bits depend, and the sources and versions of the choices."""
    choices = engine.report(plan).choices()
    others = (registry.optimizer(config.optimizer.name), registry.schedule(config.schedule.name))
    return {
        "device": engine.device.describe(),
        "precision": engine.precision,
        "tf32": config.train.tf32,
        "table": list(table),
        "nodes": {name: choice.variant.name for name, choice in choices.items()},
        "tiles": engine.report(plan).tiles(),
        "made_with": made_with(registry, (c.variant for c in choices.values()), others, engine.device.depends()),
    }


def made_kernels(engine: Engine, plan: Plan) -> list[Path]:
    """The files of chosen kernels in the cache: those made from formulas, which no plugin holds."""
    files = (f for c in engine.report(plan).choices().values() for those in c.variant.sources.values() for f in those)
    return sorted({path for path in files if path.is_relative_to(cache_folder())})


def copies_of(engine: Engine, plan: Plan) -> list[str]:
    """The cost of ops that run on the host beside a device with kernels, a line an op."""
    if not engine.device.compiles:
        return []
    from core.device.launch import HostRecord

    calls = [c for step in engine.report(plan).recorded[1] for c in step.commands if isinstance(c, HostRecord)]
    return [
        f"on the host: {origin}, {len(own)} calls a micro-step, {human(sum(c.nbytes for c in own))} copied; "
        "the device waits for each"
        for origin in dict.fromkeys(call.origin for call in calls)
        if (own := [call for call in calls if call.origin == origin])
    ]


def groups_in_words(config: RunConfig, engine: Engine) -> list[str]:
    """The groups of parameters with a learning rate or weight decay of their own, a line each."""
    lines = []
    for stretch in engine.layout.stretches if config.optimizer.groups else ():
        places = engine.layout.places.items()
        names = [name for name, place in places if stretch.first <= place.offset < stretch.last]
        count = sum(engine.graph.parameters[name].size for name in names)
        decay = "" if stretch.weight_decay is None else f", weight_decay {stretch.weight_decay:g}"
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        lines.append(f"group: lr {config.optimizer.lr * stretch.lr_factor:.3g}{decay}: {count:,} parameters, {shown}")
    return lines


def announce(parts: Parts, run: Run, table: Sequence[Mapping[str, Any]], display: Display) -> None:
    """The config's notes, the device, the model, memory, data, and the table of choices: once, at the start."""
    config, engine, data, micro = parts.config, parts.engine, parts.data, parts.micro
    graph = engine.graph
    sizes = ", ".join(f"{name} = {int(graph.dims[name]):,}" for name in BATCH if name in graph.dims)
    memory = engine.report(parts.plan).memory()
    for note in config.notes:
        display.line(note)
    display.line(f"run: {run.path}, on {engine.device.describe()}, in {engine.precision}")
    if engine.ranks.size > 1:
        display.line(f"ranks: {engine.ranks.describe()}")
        if engine.ranks.warning:
            display.line(f"warning: {engine.ranks.warning}")
    display.line(
        f"model: {graph.name}, {graph.parameter_count:,} parameters; {sizes}; "
        f"{micro} micro-step{'s' * (micro > 1)} a step"
    )
    ranks, shard = engine.ranks.size, " (a slice of it)" if engine.slices else ""
    parts_held = [f"{part} {human(memory[part])}{shard * (part == 'optimizer')}" for part in HELD if memory.get(part)]
    display.line(f"memory{f' of each of {ranks} ranks' * (ranks > 1)}: {', '.join(parts_held)}")
    for line in groups_in_words(config, engine):
        display.line(line)
    for note in data.notes:
        display.line(note)
    held_out = f", {data.val.tokens:,} to validate on" if data.val else ""
    display.line(f"data: {data.train.tokens:,} tokens to train on{held_out}")
    for line in copies_of(engine, parts.plan):
        display.line(line)
    header = ("op", "variant", "nodes", "source", "why", "check")
    for line in table_lines(header, [[row[name] for name in header] for row in table]):
        display.line(f"  {line}")


def announce_start(
    parts: Parts, before: Mapping[str, Any] | None, record: Mapping[str, Any], estimate: str, display: Display
) -> None:
    """The checkpoint or weights of the start, changes since then, and the estimate of time as text."""
    config, start = parts.config, parts.start
    if start is not None:
        from core.train.changes import announce_changes

        announce_changes(parts, start, before, record, display)
    if start is None and config.weights:
        display.line(f"weights: {config.weights}")
    if estimate:
        steps = config.train.steps - (start.step if start else 0)
        display.line(f"estimate: {steps:,} steps take {estimate}")
