"""`core trace OP.VARIANT...`: instructions, accesses and FLOPs of a variant's kernels by source line, without a GPU.

The kernels of one forward and one backward run in the simulator. The figures follow from their PTX and from the
addresses that they touch; they are no measurement of caches and time.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from core.cli.kernel_runs import branches_option, status_line
from core.cli.show import json_option, json_text, plugin_option
from core.device.launch import LaunchRecord
from core.dtypes import NARROW
from core.endings import ending
from core.errors import UsageError
from core.kernels.sources import shown, source_lines, with_headers
from core.loader import load_registry
from core.op import Op, Variant
from core.plan.way import kernel_place
from core.registry import Registry
from core.sim.counting import Counted, Counts
from core.sim.launching.launch_report import Report
from core.sim.ptx.syntax import Location
from core.testing.case import Case
from core.testing.traced import DIRECTIONS, See, TraceRunner, case_for, kernels_of, run_launchers
from core.words import extent, table

DTYPES = ("f32", *NARROW)
COUNT = "{:,}"
ELSEWHERE = "(functions that the compiler did not inline)"
WIDE = 120  # characters of a line without a terminal's width
LEAST_SOURCE = 24  # characters of a source line that are shown at least


@click.command("trace")
@click.argument("names", nargs=-1, required=True, metavar="OP.VARIANT...")
@click.option(
    "--shape",
    multiple=True,
    metavar="NAME=SIZES",
    help="An input's shape (x=64,768) or an attr (features=96); without any, the largest example that it takes.",
)
@click.option(
    "--dtype", type=click.Choice(DTYPES), default="f32", show_default=True, help="Element type of activations."
)
@click.option(
    "--direction",
    type=click.Choice([*DIRECTIONS, "both"]),
    default="both",
    show_default=True,
    help="Launchers to trace.",
)
@click.option(
    "--lines/--no-lines", default=True, show_default=True, help="Counts by source line, or each kernel's sum alone."
)
@branches_option
@plugin_option
@json_option
def command(
    names: tuple[str, ...],
    shape: tuple[str, ...],
    dtype: str,
    direction: str,
    lines: bool,
    plugin: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run a variant's kernels in the simulator and count by source line; several variants side by side.

    \b
    INSTR     warp instructions              SECTORS    32-byte pieces of global memory moved
    ACTIVE    share of 32 lanes that ran     COALESCED  share of moved sectors that were needed
    CONFLICTS extra passes over the banks    BYTES      of global memory that threads accessed
    FLOPS     a fused multiply-add is two    MEMORY     bytes of different sectors touched
    SHARE     of the kernel's INSTR          CONTENDED  extra turns of atomics at one address

    A table omits empty columns, and in a narrow terminal the last ones; --json has all.
    """
    registry = load_registry(plugin)
    pairs = [kernels_of(name, registry) for name in names]
    if len({op.name for op, _ in pairs}) > 1 and shape:
        raise UsageError("--shape is for variants of one op", hint="trace one op at a time, or leave --shape out")
    traces: list[Trace] = []

    def text(cut_off: str) -> str:
        if as_json:
            return rows_text(traces, pairs, dtype, cut_off)
        return "\n".join(lines_of(traces, pairs, lines, direction, cut_off))

    with ending(text, traces):
        for schema, variant in pairs:
            with status_line(f"simulating {schema.name}.{variant.name}"):
                traces.append(trace(schema, variant, registry, shape, dtype, direction))


def rows_text(traces: Sequence[Trace], pairs: Sequence[tuple[Op, Variant]], dtype: str, cut_off: str) -> str:
    """All traces as JSON. cut_off: why the command ended early, in the rows of variants without one."""
    rows = [traced.as_json() | {"cut_off": ""} for traced in traces]
    about: dict[str, Any] = {"dtype": dtype, "example": "", "kernels": [], "cut_off": cut_off}
    return json_text([*rows, *({"op": op.name, "variant": v.name, **about} for op, v in pairs[len(traces) :])])


def lines_of(
    traces: Sequence[Trace], pairs: Sequence[tuple[Op, Variant]], lines: bool, direction: str, cut_off: str
) -> Iterator[str]:
    """The traces one by one, comparisons of those of an op, and the variants without one."""
    width = shutil.get_terminal_size((WIDE, 24)).columns
    for traced in traces:
        yield from (*traced.text(lines, width), "")
    for op in dict.fromkeys(traced.op for traced in traces):
        for way in DIRECTIONS if direction == "both" else (direction,):
            yield from (*comparison([t for t in traces if t.op == op], way), "")
    if waiting := [f"{op.name}.{variant.name}" for op, variant in pairs[len(traces) :]]:
        yield f"not traced: {', '.join(waiting)}: {cut_off}"


def trace(
    op: Op, variant: Variant, registry: Registry, shapes: Sequence[str], dtype: str, direction: str = "both"
) -> Trace:
    """Run the variant's launchers once, `direction` forward, backward or both, and count."""
    case = case_for(op, variant, registry, shapes, dtype)
    launches: list[CountedLaunch] = []

    def keep(record: LaunchRecord, report: Report) -> None:
        assert report.counts is not None
        launches.append(CountedLaunch(record, report.counts))

    def runner(see: See) -> TraceRunner:
        return TraceRunner(registry, see, count=True)

    run_launchers(op, variant, case, registry, dtype, direction, runner, keep)
    return Trace(op.name, variant.name, dtype, case, launches)


# --- findings --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CountedLaunch:
    """One launch of a kernel, counted."""

    record: LaunchRecord
    counted: Counted

    @property
    def lines(self) -> dict[tuple[str, int], Counts]:
        """(file, line) -> counts: of the kernel's source, then of the headers that it includes; line 0 of the source
        is the work without a line in any of them."""
        *headers, source = with_headers(self.record.kernel.source)
        return self.counted.in_files([path.as_posix() for path in (source, *headers)])

    def written(self, file: str, line: int) -> str:
        """The text of a line."""
        lines = source_lines(Path(file))
        return lines[line - 1] if 0 < line <= len(lines) else ELSEWHERE

    @property
    def sizes(self) -> tuple[str, str]:
        """The sizes of the grid and of a thread block."""
        return extent(self.record.grid), extent(self.record.block)

    @property
    def sums(self) -> tuple[str, ...]:
        return cells(self.counted.total, self.counted.total)

    def heading(self, width: int) -> Iterator[str]:
        """The kernel with its place, its launch, and the launcher's place; two or three lines where one is too long."""
        record, (grid, block) = self.record, self.sizes
        smem = f", {record.smem:,} bytes of dynamic shared memory" if record.smem else ""
        kernel = f"{INDENT}{kernel_place(record)}  {record.kernel.name}"
        launch, place = f"{record.method}, grid {grid}, block {block}{smem}", f"({record.line})"
        deeper = INDENT + INDENT
        if len(f"{kernel}  {launch}  {place}") <= width:
            yield f"{kernel}  {launch}  {place}"
        elif len(f"{deeper}{launch}  {place}") <= width:
            yield from (kernel, f"{deeper}{launch}  {place}")
        else:
            yield from (kernel, f"{deeper}{launch}", f"{deeper}{place}")

    def as_json(self) -> dict[str, Any]:
        record = self.record
        return {
            "kernel": record.kernel.name,
            "method": record.method,
            "source": shown(record.kernel.source),
            "grid": record.grid,
            "block": record.block,
            "smem": record.smem,
            **numbers(self.counted.total),
            "memory": self.counted.memory,
            "lines": [
                {"file": shown(Path(at[0])), "line": at[1], "source": self.written(*at), **numbers(counts)}
                for at, counts in self.lines.items()
            ],
        }


def numbers(counts: Counts) -> dict[str, Any]:
    return {**asdict(counts), "active": counts.active, "coalescing": counts.coalescing, "moved": counts.moved}


@dataclass(frozen=True)
class Trace:
    """The launches of one variant on one case."""

    op: str
    variant: str
    dtype: str
    case: Case
    launches: list[CountedLaunch]

    @property
    def name(self) -> str:
        return f"{self.op}.{self.variant}"

    def total(self, direction: str) -> tuple[Counts, int]:
        """(counts, bytes of memory) of a direction's launches; a fused launch counts only where it is the only one."""
        methods = DIRECTIONS[direction]
        able = {launch.record.method for launch in self.launches} & set(methods)
        method = next((m for m in methods if m in able), "")
        chosen = [launch for launch in self.launches if launch.record.method == method]
        counts = Counts()
        for launch in chosen:
            counts += launch.counted.total
        return counts, sum(launch.counted.memory for launch in chosen)

    def as_json(self) -> dict[str, Any]:
        return {
            "op": self.op,
            "variant": self.variant,
            "dtype": self.dtype,
            "example": self.case.label,
            "kernels": [launch.as_json() for launch in self.launches],
        }

    def text(self, lines: bool, width: int) -> Iterator[str]:
        """Each launch with its source lines; or one row for each launch. width: characters that fit."""
        yield f"{self.name}  {self.dtype}, {self.case.label}"
        if not lines:
            yield from summary(self.launches, width)
        for launch in self.launches if lines else ():
            yield ""
            yield from launch.heading(width)
            yield from table_of(launch, width)


# --- tables -----------------------------------------------------------------------------------------------------

COLUMNS = ("INSTR", "SHARE", "ACTIVE", "SECTORS", "COALESCED", "CONFLICTS", "CONTENDED", "BYTES", "FLOPS")
FIRST_OUT = ("FLOPS", "BYTES", "ACTIVE", "COALESCED", "SECTORS", "CONFLICTS", "INSTR")  # where the terminal is narrow
INDENT = "  "


def table_of(launch: CountedLaunch, width: int) -> Iterator[str]:
    """A launch's source lines, those of each header after its name, then their sum."""
    lines = launch.lines
    texts = [launch.written(*at) for at in lines]
    drawn = [cut(line, width) for line in counted_table(launch.counted, lines, texts, width, INDENT)]
    yield drawn[0]
    before = launch.record.kernel.source.as_posix()
    for (file, line), text in zip(lines, drawn[1:-1], strict=True):
        if file != before:
            yield f"{INDENT}{Location(shown(Path(file)), line)}"
        before = file
        yield text
    yield drawn[-1]


def counted_table(
    counted: Counted, lines: Mapping[tuple[str, int], Counts], texts: Sequence[str], width: int, indent: str = ""
) -> list[str]:
    """The header, a row for each source line with its text, and the sum. width: characters for the columns and some
    source."""
    rows = [(str(line or "-"), cells(counts, counted.total)) for (_, line), counts in lines.items()]
    rows.append(("sum", cells(counted.total, counted.total)))
    lead = max(len("LINE"), *(len(at) for at, _ in rows))
    columns = columns_kept([row for _, row in rows], width - len(indent) - lead - 2 - LEAST_SOURCE)
    header = ("LINE", *(COLUMNS[i] for i in columns), "SOURCE")
    ends = [*texts, f"memory {counted.memory:,}"]
    made = [(at, *(row[i] for i in columns), text) for (at, row), text in zip(rows, ends, strict=True)]
    return table(header, made, range(len(header) - 1), indent)


def summary(launches: Sequence[CountedLaunch], width: int) -> Iterator[str]:
    """A row for each launch."""
    heads = [(launch.record.kernel.name, *launch.sizes) for launch in launches]
    ends = [f"{launch.counted.memory:,}" for launch in launches]
    sums = [launch.sums for launch in launches]
    taken = sum(max(len(text) for text in texts) + 2 for texts in zip(("KERNEL", "GRID", "BLOCK"), *heads, strict=True))
    columns = columns_kept(sums, width - len(INDENT) - taken - max(len("MEMORY"), *map(len, ends)))
    columns = [i for i in columns if COLUMNS[i] != "SHARE"]
    rows = [(*head, *(row[i] for i in columns), end) for head, row, end in zip(heads, sums, ends, strict=True)]
    header = ("KERNEL", "GRID", "BLOCK", *(COLUMNS[i] for i in columns), "MEMORY")
    yield from table(header, rows, range(1, len(header)), INDENT)


def cells(counts: Counts, total: Counts) -> tuple[str, ...]:
    """The columns of a line of a kernel with these sums; "" for work that the line does not do."""
    return (
        f"{counts.instructions:,}",
        f"{counts.instructions / max(1, total.instructions):.0%}",
        f"{counts.active:.0%}",
        f"{counts.sectors:,}" if counts.requests else "",
        f"{counts.coalescing:.0%}" if counts.requests else "",
        f"{counts.conflicts:,}" if counts.shared else "",
        f"{counts.contended:,}" if counts.atomics else "",
        f"{counts.asked:,}" if counts.requests else "",
        f"{counts.flops:,}" if counts.flops else "",
    )


def columns_kept(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """The columns, by index, that hold something and fit into `width` characters."""
    columns = [i for i in range(len(COLUMNS)) if any(row[i] for row in rows)]
    sizes = {i: 2 + max(len(COLUMNS[i]), *(len(row[i]) for row in rows)) for i in columns}
    for name in FIRST_OUT:
        if sum(sizes[i] for i in columns) > width:
            columns = [i for i in columns if COLUMNS[i] != name]
    return columns


def cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 3] + "..."


def comparison(traces: Sequence[Trace], direction: str) -> Iterator[str]:
    """Variants of one op in columns; with two, the ratio of the first to the second."""
    totals = [t.total(direction) for t in traces]
    if not any(counts.instructions for counts, _ in totals):
        return
    two = len(traces) == 2
    rows = [
        (
            f"{traces[0].op} {direction}",
            *(t.variant for t in traces),
            *((f"{traces[0].variant} / {traces[1].variant}",) if two else ()),
        )
    ]
    for label, values, form in measures(totals):
        ratio = (f"{values[0] / values[1]:.2f}",) if two and values[1] and form == COUNT else ()
        rows.append((label, *(form.format(v) for v in values), *ratio))
    width = len(rows[0])
    yield from table(None, [(*row, *[""] * (width - len(row))) for row in rows], range(1, width))


def measures(totals: Sequence[tuple[Counts, int]]) -> Iterator[tuple[str, list[float], str]]:
    """(label, a value for each variant, how it is written)."""
    counts = [c for c, _ in totals]
    yield "warp instructions", [c.instructions for c in counts], COUNT
    yield "active lanes", [c.active for c in counts], "{:.0%}"
    yield "global accesses of warps", [c.requests for c in counts], COUNT
    yield "sectors moved", [c.sectors for c in counts], COUNT
    yield "coalesced", [c.coalescing for c in counts], "{:.0%}"
    yield "bytes requested", [c.asked for c in counts], COUNT
    yield "bytes moved", [c.moved for c in counts], COUNT
    yield "bytes of memory", [memory for _, memory in totals], COUNT
    yield "shared accesses of warps", [c.shared for c in counts], COUNT
    yield "bank conflicts", [c.conflicts for c in counts], COUNT
    if any(c.atomics for c in counts):
        yield "turns of contended atomics", [c.contended for c in counts], COUNT
    yield "FLOPs", [c.flops for c in counts], COUNT
    yield "FLOPs per byte moved", [c.flops / c.moved if c.moved else 0.0 for c in counts], "{:.2f}"
