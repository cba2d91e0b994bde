"""The kernel lens in a terminal: a launch's sums, and the steps of one of its warps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.sim.tape import FULL
from core.view.taped_launch import unpacked
from core.words import extent, table

MOST = 120  # steps of a warp
WIDE = 60  # characters of a source line
SUMS = ("instructions", "sectors", "fewest", "shared", "conflicts", "contended")
VERBS = {"read": "reads", "write": "writes", "atomic": "updates"}
HEADER = ("STEP", "LINE", "TURN", "INSTR", "LANES", "SOURCE", "DOES")


def kernel_lines(data: Mapping[str, Any]) -> list[str]:
    """The lens's data as lines: of each launch one warp, that of `--warp`."""
    return [line for kernel in data["kernels"] for line in of_kernel(kernel, data["warp"])]


def of_kernel(kernel: Mapping[str, Any], warp: int) -> Iterator[str]:
    """A variant's launches, with strict mode's error in front."""
    yield f"{kernel['name']}  {kernel['dtype']}, {kernel['example']}" if kernel["dtype"] else kernel["name"]
    if kernel["error"] is not None:
        yield f"  strict mode: {kernel['error']['message']}"
        yield from (f"  hint: {kernel['error']['hint']}",) if kernel["error"]["hint"] else ()
    for launch in kernel["launches"]:
        yield ""
        yield from of_launch(launch, warp)
        if launch["left_out"]:
            yield "  " + "; ".join(filter(None, (f"left out: {launch['left_out']}", kernel["others"])))


def of_launch(launch: Mapping[str, Any], warp: int) -> Iterator[str]:
    """Heading, sums, the warp's steps, and the places of an error."""
    grid, block = extent(launch["grid"]), extent(launch["block"])
    yield f"  {launch['kernel']}  {launch['method']}, grid {grid}, block {block}  ({launch['place']})"
    totals = launch["totals"]
    yield "  " + ", ".join(f"{totals[name]:,} {NAMES[name]}" for name in SUMS if totals[name] or name == "instructions")
    for fault in launch.get("faults", ()):
        yield f"  {fault_words(fault)}"
    chosen = next((one for one in launch["warps"] if one["warp"] == warp), launch["warps"][0])
    yield f"  block {chosen['block']}, warp {chosen['warp']}: {len(chosen['steps']):,} steps"
    rows = [row_of(number, step, launch) for number, step in enumerate(chosen["steps"][:MOST], 1)]
    yield from table(HEADER, rows, (0, 1, 2, 3, 4), "  ")
    if len(chosen["steps"]) > MOST:
        yield f"  {len(chosen['steps']) - MOST:,} steps more: --json has them"


NAMES = {
    "instructions": "warp instructions", "sectors": "sectors moved", "fewest": "needed", "shared": "shared accesses",
    "conflicts": "bank conflicts", "contended": "contended turns",
}  # fmt: skip


def row_of(number: int, step: Mapping[str, Any], launch: Mapping[str, Any]) -> tuple[Any, ...]:
    lanes = step.get("m", FULL).bit_count()
    file = launch["files"][step["f"]]
    source = source_of(file, step["l"]).strip()
    line = str(step["l"] or "-") if step["f"] == 0 else f"{file['name'].rpartition('/')[2]}:{step['l']}"
    return number, line, step["t"], step["n"], lanes, source[:WIDE], does_words(step, launch)


def source_of(file: Mapping[str, Any], line: int) -> str:
    """A line's text, "" for line 0 and others that are not shown."""
    at = line - file["first"]
    return str(file["lines"][at]) if line and 0 <= at < len(file["lines"]) else ""


def does_words(step: Mapping[str, Any], launch: Mapping[str, Any]) -> str:
    """A step's events and the asynchronous work under way, as text."""
    parts = [event_words(event, launch["buffers"]) for event in step.get("e", ())]
    flying = step.get("fly", ())
    if flying:
        parts.append(f"{len(flying)} in flight")
    if not parts and "v" in step:
        values = unpacked(step["v"])
        parts.append(f"{step['r']} = {values[0] if values else ''}{' ...' if len(set(map(str, values))) > 1 else ''}")
    return "; ".join(parts)


def event_words(event: Mapping[str, Any], buffers: Sequence[Mapping[str, Any]]) -> str:
    if event["kind"] == "barrier":
        state = "complete" if event["complete"] else "waits" if event["how"] == "wait" else "not complete"
        left = f", {event['bytes']:,} bytes to come" if event["bytes"] else ""
        return f"{event['name']}: {event['arrived']} of {event['expected']} have come{left}, {state}"
    if event["kind"] == "shuffle":
        return f"each lane reads lane {few(unpacked(event['from']))}"
    buffer = buffers[event["b"]]
    places = [at // buffer["item"] for at in unpacked(event["a"])]
    text = f"{VERBS[event['how']]} {buffer['name']}[{few(places)}]"
    if "sec" in event:
        text += f", {event['sec']} sectors for {event['need']}"
    if "pass" in event:
        text += f", {event['pass']} passes too many over the banks"
    return text + (f", {event['turns']} turns more" if "turns" in event else "")


def few(values: Sequence[Any]) -> str:
    """The first, second and last of many."""
    if len(values) <= 3:
        return ", ".join(map(str, values))
    return f"{values[0]}, {values[1]}, ... {values[-1]}"


def fault_words(fault: Mapping[str, Any]) -> str:
    """An access of strict mode's error, with its step."""
    at = f"step {fault['step'] + 1}" if fault["step"] is not None else "a step that is not taped"
    how = f" {fault['how']}," if fault["how"] else ""
    return f"error:{how} line {fault['line']}, block {fault['block']}, warp {fault['warp']}, lane {fault['lane']}: {at}"
