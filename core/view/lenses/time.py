"""Each node's time beside its floor: bytes, FLOPs and seconds of every entry of a micro-step, as in `core bench`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from core.lens import Lens
from core.measure.bench import Launched, launched_step, peaks_of, random_batch, timed_launches
from core.plan.arena import folded_name
from core.train.runs import number
from core.view.subject import Subject
from core.words import ms, percent, table

ROUNDS = 3  # each entry is timed as often; the least counts
CHEAP = 3.0  # seconds: a measurement that takes no longer is made by default
UNKNOWN = "unknown"


class TimeLens(Lens):
    """Measured time and floor of each node, forward and backward; "unknown" on a device without known rates."""

    name, title, scripts = "time", "Time", ("time.js",)
    question = "Which node is far from its floor?"

    def collect(self, subject: Subject) -> dict[str, Any] | None:
        """The dictionary of `time_data`; None without a run. Times the nodes with `--measure`, or where
        it is cheap."""
        if not subject.runs:
            return None
        record, engine = subject.run, subject.engine
        why, launched, update = why_not_timed(subject), list[Launched](), None
        if not why:
            own = record.new_engine()
            own.initialize(record.config.seed)
            launched, update = timed_launches(own, random_batch(own, 0), ROUNDS)
        launched = launched or [launched_step(step, 0.0) for step in subject.plan.steps]
        return {
            "run": record.name,
            "device": engine.device.describe(),
            "precision": engine.precision,
            "micro_steps": record.micro,
            "recorded": recorded_seconds(subject) if record.own_device else None,
            "why_not_timed": why,
            "measure": " ".join(["core view", *subject.words, "--lens time --measure"]) * record.kind.real_time,
            "update": update,
        } | time_data(launched, not why, *peaks_of(engine))

    def lines(self, data: Mapping[str, Any]) -> list[str]:
        """Sums, then a row for each node and direction, repeats folded, the longest first."""
        head = f"{data['run']} on {data['device']}, in {data['precision']}"
        rates = (
            f"{data['peak'] / 1e12:,.1f} TFLOP/s, {data['memory_rate'] / 1e9:,.0f} GB/s" if data["known"] else UNKNOWN
        )
        lines = [head, f"the chip's rates: {rates}"]
        if data["recorded"]:
            lines.append(f"a step of the run: {ms(data['recorded'])} ms, in {data['micro_steps']} micro-steps")
        if data["why_not_timed"]:
            lines.append("; ".join(filter(None, (f"not timed: {data['why_not_timed']}", data["measure"]))))
        else:
            took = sum(row["seconds"] for row in data["rows"])
            lines.append(f"a micro-step launch by launch: {ms(took)} ms; the update: {ms(data['update'])} ms")
        header = ("node", "op", "variant", "direction", "times", "ms", "share", "MB", "GFLOP", "floor ms", "over floor")
        return [*lines, "", *table(header, [cells(row) for row in data["groups"]], right=set(range(4, 11)))]


def why_not_timed(subject: Subject) -> str:
    """The reason why the nodes are not timed; "" where they are."""
    record = subject.run
    if not record.kind.real_time:
        return f"the time of {record.kind.name} does not predict real hardware"
    if subject.options.measure:
        return ""
    if not record.own_device:
        return "this is not the run's device"
    seconds = recorded_seconds(subject)
    if seconds is None:
        return "no step of the run has a duration"
    estimate = (ROUNDS + 1) * seconds / record.micro
    return "" if estimate <= CHEAP else f"it takes about {estimate:,.0f} s"


def recorded_seconds(subject: Subject) -> float | None:
    """The median of the run's own steps; None without any."""
    taken = [ms / 1e3 for line in subject.run.metrics if (ms := number(line.get("ms")))]
    return statistics.median(taken) if taken else None


def time_data(
    launched: Sequence[Launched], timed: bool, peak: float | None, memory_rate: float | None
) -> dict[str, Any]:
    """Rows of node, group (its name without a repeat's number), op, variant, kind, bytes, flops, and of seconds and
    floor, None where it was not timed or no floor is known; groups: `grouped` of them. peak: FLOP/s; memory_rate:
    bytes/s; known: whether both are."""
    rows = [
        {
            "node": x.node,
            "group": folded_name(x.node) or x.op,
            "op": x.op,
            "variant": x.variant,
            "kind": x.kind,
            "bytes": x.nbytes,
            "flops": x.flops,
            "seconds": x.seconds if timed else None,
            "floor": x.floor(peak, memory_rate),
        }
        for x in launched
    ]
    rates = {"peak": peak, "memory_rate": memory_rate, "known": bool(peak and memory_rate)}
    return {**rates, "rows": rows, "groups": grouped(rows)}


SUMS = ("seconds", "bytes", "flops", "floor")


def grouped(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the same group, op, variant and kind as one, with their sums, count, and share of the time, else of the
    bytes; the largest first."""
    groups: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("group", "op", "variant", "kind"))
        if key not in groups:
            groups[key] = {**row, "count": 1}
            continue
        one = groups[key]
        one["count"] += 1
        one |= {name: None if one[name] is None else one[name] + row[name] for name in SUMS}
    by = "bytes" if any(row["seconds"] is None for row in rows) else "seconds"
    total = sum(one[by] for one in groups.values()) or 1
    return sorted(({**one, "share": one[by] / total} for one in groups.values()), key=lambda one: -one[by])


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row of the terminal's table."""
    seconds, floor = row["seconds"], row["floor"]
    times = f"{seconds / floor:.1f}" if seconds is not None and floor else UNKNOWN if seconds is not None else "-"
    return [
        *(row[name] for name in ("group", "op", "variant", "kind")),
        str(row["count"]),
        "-" if seconds is None else ms(seconds),
        percent(row["share"]),
        f"{row['bytes'] / 1e6:,.1f}",
        f"{row['flops'] / 1e9:,.2f}" if row["flops"] else "",
        UNKNOWN if floor is None else ms(floor),
        times,
    ]
