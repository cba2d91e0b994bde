"""`core bench --sass`: a model of a config's micro-step from the code that the compiler emits. Nothing runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from core.cli.kernel_runs import status_line, with_architectures
from core.cli.show import emit_json
from core.errors import UsageError
from core.words import human, ms, percent, table

if TYPE_CHECKING:
    from core.devices import DeviceKind
    from core.measure.sass_bench import SassBench
    from core.measure.sass_model import KernelRow
    from core.registry import Registry

DEFAULT_GPU = "H100 80GB HBM3"
LISTED = 0.002  # of the sum: kernels with less have no row


def report_sass(
    config: str, overrides: Sequence[str], device: str, gpu: str | None, plugin: Sequence[str], as_json: bool
) -> None:
    """Print the model of a config's micro-step on a GPU. Raises BuildError without nvdisasm."""
    from core.config import resolve_config
    from core.graph import load_model
    from core.kernels.chips import CHIPS
    from core.kernels.sass import nvdisasm
    from core.measure.sass_bench import known_gpu, planned_for, sass_bench
    from core.train.wiring import build_engine

    nvdisasm()
    name = (gpu or DEFAULT_GPU).removeprefix("NVIDIA ").removeprefix("GeForce ")
    chip = known_gpu(name)
    kind = _compiling(device, plugin)
    loaded, registry = resolve_config(config, overrides=overrides, device=kind.name, plugins=plugin)
    there = planned_for(kind.planned(CHIPS[chip.number].arch), name)
    with status_line(f"compiling kernels for {there.arch}"):
        engine = build_engine(loaded, registry, load_model(loaded.model, registry), None, there)
        made = sass_bench(engine)
    if as_json:
        emit_json(made.data() | {"precision": engine.precision})
        return
    sizes = ", ".join(f"{axis} = {size}" for axis, size in engine.input_sizes.items())
    click.echo(f"{engine.graph.name} on {name} ({there.arch}), in {engine.precision}; {sizes}")
    for line in lines(made):
        click.echo(line)


def _compiling(device: str, plugin: Sequence[str]) -> DeviceKind:
    """The device to plan for: of that name, or with auto the first that compiles for an architecture."""
    from core.devices.kind import AUTO
    from core.loader import load_registry

    registry: Registry = load_registry(plugin)
    if device == AUTO:
        return next(kind for kind in registry.devices.values() if kind.planner is not None)
    kind = registry.device(device)
    if kind.planner is None:
        raise UsageError(f"--sass: {kind.name} compiles for no GPU", hint=f"add {with_architectures(registry)}")
    return kind


def lines(made: SassBench) -> Iterator[str]:
    yield "a model from the compiler's code (docs/kernels.md): times are lower bounds, and nothing was measured"
    yield ""
    yield from table(HEADER, [_cells(row, made.seconds) for row in _listed(made.micro)], right=range(1, 12))
    yield ""
    yield "instructions of one trip through the main loop"
    yield from _kinds(_listed(made.micro))
    yield ""
    ratio = f", {made.over_floor:.2f} times the roofline's {ms(made.floor)} ms" if made.floor else ""
    yield f"micro-step: at least {ms(made.seconds)} ms{ratio}"
    yield f"update: at least {ms(made.update_seconds)} ms"
    if made.left_out:
        yield f"left out: {made.left_out} commands other than kernels of corelm"


HEADER = (
    "kernel", "launches", "slots a trip", "a product", "trips", "other slots", "registers", "shared", "blocks an SM",
    "waves", "ms", "of sum", "limit",
)  # fmt: skip


def _listed(rows: Sequence[KernelRow]) -> list[KernelRow]:
    whole = sum(row.seconds for row in rows)
    return [row for row in rows if row.seconds >= LISTED * whole]


def _cells(row: KernelRow, whole: float) -> list[Any]:
    bound, code = row.bound, row.bound.code
    each = "" if code.slots_per_tensor is None else f"{code.slots_per_tensor:.2f}"
    spilt = f" ({code.resources.spills} spilt)" if code.resources.spills else ""
    return [
        row.kernel, row.launches, code.trip.kinds.total(), each, f"{bound.trips:.0f}", code.rest.kinds.total(),
        f"{code.resources.registers}{spilt}", human(code.resources.shared + bound.launch.smem), bound.resident,
        f"{bound.waves:.2f}", ms(row.seconds), percent(row.seconds / whole), row.limit,
    ]  # fmt: skip


def _kinds(rows: Sequence[KernelRow]) -> list[str]:
    from core.kernels.sass import KINDS

    looped = [row for row in rows if row.bound.code.trip.kinds]
    held = [kind for kind in KINDS if any(row.bound.code.trip.kinds[kind] for row in looped)]
    cells = [[row.kernel, *(row.bound.code.trip.kinds[kind] or "" for kind in held)] for row in looped]
    return table(("kernel", *held), cells, right=range(1, len(held) + 1)) if cells else []
