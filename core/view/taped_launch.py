"""A taped launch as plain JSON: its source, buffers, sums, and each taped warp line by line.

A step is a warp's work of one source line at once: consecutive instructions with the same lanes, up to the next access
of a kind that the step already has. So each turn of a loop is a step, also of a loop that the compiler unrolled. Its
keys are short, since a page holds thousands:

f, l      file and line           m    mask of lanes that came; absent: all 32
n         instructions            t    the turn of the line's first access, or of the line
p         [first, count, ...] of the launch's `ptx`
v, r      values by lane of the last result, and its register
e         events: accesses, shuffles, barriers        fly    asynchronous work under way after the step

Lists with a number per lane have the form of `packed`. A kernel that stops with an error has the steps until then.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from core.device.launch import LaunchRecord
from core.dtypes import C_TYPES, NARROW, NUMPY
from core.kernels.sources import source_lines, with_headers
from core.kernels.tensors import DeviceTensor, TensorMap, decode
from core.sim.counting import Counted, Counts, line_in
from core.sim.ptx.syntax import Location, Register
from core.sim.tape import FULL, BarrierState, LoopTurns, Tape, TapeStep, WarpAccess, counts_of, lanes_in
from core.view.private import short_place

KINDS = {C_TYPES[dtype]: dtype for dtype in ("f32", *NARROW)}  # of variables, by their types in CUDA
AROUND = 3  # source lines that are shown before and after those that ran
SHOWN = ("instructions", "threads", "requests", "asked", "sectors", "fewest", "shared", "shared_bytes", "conflicts",
         "atomics", "contended", "flops")  # fmt: skip
Json = dict[str, Any]


@dataclass
class TapedLaunch:
    """A launch, its tape and its counts; counted: None where a fault ended it, and the tape's own sums replace them."""

    record: LaunchRecord
    tape: Tape
    counted: Counted | None
    budget: int  # steps
    files: list[str] = field(init=False)
    dtypes: dict[int, str] = field(init=False)
    buffers: list[Json] = field(default_factory=list)
    numbers: dict[tuple[str, str, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        *headers, source = with_headers(self.record.kernel.source)
        self.files = [path.as_posix() for path in (source, *headers)]
        tensors = (a.tensor if isinstance(a, TensorMap) else a for a in self.record.args)
        self.dtypes = {t.pointer: t.dtype for t in tensors if isinstance(t, DeviceTensor)}

    @cached_property
    def floats(self) -> set[str]:
        """The registers of bits that are then moved into one of floats, such as those of a shuffle."""
        registers = set()
        for ins in self.tape.program.instructions:
            into, source = ins.operands if ins.names[:2] == ("mov", "b32") and len(ins.operands) == 2 else (None, None)
            if isinstance(into, Register) and isinstance(source, Register):
                registers |= {source.name} if self.tape.program.kind(into).kind == "f" else set()
        return registers

    def as_json(self) -> Json:
        """The launch's dictionary; to be made while its memory exists."""
        record = self.record
        warps, left_out = self._warps()
        return {
            "kernel": record.kernel.name, "method": record.method, "place": short_place(record.line),
            "grid": list(record.grid), "block": list(record.block), "smem": record.smem,
            "totals": {name: getattr(self._sums.total, name) for name in SHOWN},
            "files": self._files(), "ptx": [ins.text for ins in self.tape.program.instructions],
            "buffers": self.buffers, "warps": warps, "left_out": left_out,
        }  # fmt: skip

    # --- source -------------------------------------------------------------------------------------------------

    def place(self, at: Location) -> tuple[int, int]:
        """(file, by its number, and line) where an instruction is shown."""
        file, line = line_in(self.files, at)
        return self.files.index(file), line

    @cached_property
    def _sums(self) -> Counted:
        """`counted`, or the tape's own sums."""
        if self.counted is not None:
            return self.counted
        sums = Counted()
        for block, warp in self.tape.warps:
            for step in self.tape.steps(block, warp):
                counts = counts_of(self.tape.program.instructions[step.pc], step)
                sums.lines.setdefault(step.location, Counts()).__iadd__(counts)
                sums.total += counts
        return sums

    def _files(self) -> list[Json]:
        """Each file's lines around those that ran, with their counts by line."""
        ran = self._sums.in_files(self.files)
        return [self._file(path, {line: n for (file, line), n in ran.items() if file == path}) for path in self.files]

    def _file(self, path: str, ran: dict[int, Counts]) -> Json:
        text = source_lines(Path(path))
        numbers = [line for line in ran if line]
        first = max(1, min(numbers) - AROUND) if numbers else 1
        last = min(len(text), max(numbers) + AROUND) if numbers else 0
        counts = {str(line): nonzero(asdict(ran[line])) for line in sorted(ran)}
        return {"name": short_place(path), "first": first, "lines": text[first - 1 : last], "counts": counts}

    # --- warps --------------------------------------------------------------------------------------------------

    def _warps(self) -> tuple[list[Json], str]:
        """Whole warps as far as the budget of steps reaches, the first one cut where it alone exceeds it; and the rest
        as text."""
        warps, used, every = list[Json](), 0, self.tape.warps
        for block, warp in every:
            steps = list(self.steps(block, warp))
            if used and used + len(steps) > self.budget:
                break
            warps.append({"block": block, "warp": warp, "steps": steps[: self.budget], "of": len(steps)})
            used += len(steps)
        total = math.prod(self.record.grid) * -(-math.prod(self.record.block) // 32)
        left = [f"{total - len(warps):,} of {total:,} warps"] if len(warps) < total else []
        left += [f"{w['of'] - len(w['steps']):,} steps of warp {w['warp']}" for w in warps if w["of"] > len(w["steps"])]
        return warps, " and ".join(left)

    def steps(self, block: int, warp: int) -> Iterator[Json]:
        """A warp's steps: its instructions by source line, lanes and turn."""
        turns = LoopTurns()
        for group in self._grouped(block, warp):
            yield self._step(group, turns, block)

    def _grouped(self, block: int, warp: int) -> Iterator[list[TapeStep]]:
        group: list[TapeStep] = []
        kinds: set[tuple[Any, ...]] = set()
        for step in self.tape.steps(block, warp):
            kind = kind_of(step)
            same = group and self.place(group[0].location) == self.place(step.location) and group[0].lanes == step.lanes
            if not same or kind in kinds or group[-1].barriers or group[-1].waits:
                if group:
                    yield group
                group, kinds = [], set()
            group.append(step)
            if kind is not None:
                kinds.add(kind)
        if group:
            yield group

    def _step(self, group: Sequence[TapeStep], turns: LoopTurns, block: int) -> Json:
        file, line = place = self.place(group[0].location)
        events = [event for step in group for event in self._events(step, block)]
        of_line = turns.next(place, lanes_in(group[0].lanes))
        turn = next((step.turn for step in group if kind_of(step) is not None), of_line)
        made: Json = {"f": file, "l": line, "n": len(group), "t": turn, "p": runs([step.pc for step in group])}
        if group[0].lanes != FULL:
            made["m"] = group[0].lanes
        last = next((step for step in reversed(group) if step.values is not None), None)
        if last is not None and last.values is not None and not events:
            made |= {"v": packed(shown_values(last.values)), "r": last.register}
        if events:
            made["e"] = events
        if group[-1].flying:
            made["fly"] = [{"kind": f.kind, "until": f.until, "warp": f.warp[1], "ptx": f.pc} for f in group[-1].flying]
        return made

    def _events(self, step: TapeStep, block: int) -> Iterator[Json]:
        for access in step.accesses:
            yield self._access(access, step)
        if step.source is not None:
            dtype = "f32" if step.register in self.floats else ""
            source = packed(lanes_on(step.source, step.on))
            yield {"kind": "shuffle", "from": source, "m": step.on} | self._values(step, dtype)
        for barrier in step.barriers:
            yield barrier_event(barrier, block)

    def _access(self, a: WarpAccess, step: TapeStep) -> Json:
        event: Json = {
            "kind": "access", "how": a.how, "b": self._buffer(a), "w": a.width,
            "a": packed([place - a.start for place in a.at]),
        }  # fmt: skip
        if list(a.lanes) != lanes_in(step.on):
            event["lanes"] = packed(list(a.lanes))
        elif step.on != FULL:
            event["m"] = step.on
        event |= nonzero({"sec": a.sectors, "need": a.needed, "pass": a.passes, "turns": a.turns})
        if step.text.startswith(("ld", "st", "atom", "red")):
            event |= self._values(step, self.buffers[event["b"]]["dtype"])
        return event

    def _values(self, step: TapeStep, dtype: str = "") -> Json:
        return {} if step.values is None else {"v": packed(shown_values(step.values, dtype)), "r": step.register}

    def _buffer(self, a: WarpAccess) -> int:
        key = a.space, a.buffer, a.start
        if key not in self.numbers:
            self.numbers[key] = len(self.buffers)
            variable = a.variable
            dtype = self.dtypes.get(a.start, "") if a.space == "global" else ""
            self.buffers.append(
                {
                    "name": a.buffer, "space": a.space, "item": a.item,
                    "dtype": dtype or KINDS.get(variable.kind if variable else "", ""),
                    "sizes": [n for n in variable.sizes if n > 0] if variable else [],
                    "nbytes": variable.size if variable else 0,
                    "start": a.start,
                }
            )  # fmt: skip
        return self.numbers[key]


# --- parts of steps ---------------------------------------------------------------------------------------------


def kind_of(step: TapeStep) -> tuple[Any, ...] | None:
    """The same for accesses of one kind to one buffer, and for shuffles; None for all other instructions."""
    name = step.text.split()[0]
    if step.accesses:
        return name, *(a.buffer for a in step.accesses)
    return (name,) if step.source is not None else None


def barrier_event(state: BarrierState, block: int) -> Json:
    """A barrier, with the warps that have arrived: of its own thread block as numbers, of others as [block, warp]."""
    came: list[Any] = [warp if at == block else [at, warp] for at, warp in state.came]
    return {
        "kind": "barrier", "name": state.name, "how": state.kind, "came": came, "arrived": state.arrived,
        "expected": state.expected, "bytes": state.bytes_left, "complete": state.complete,
    }  # fmt: skip


def lanes_on(values: Sequence[Any], mask: int) -> list[Any]:
    return [values[lane] for lane in lanes_in(mask)]


def shown_values(values: Sequence[Any], dtype: str = "") -> list[Any]:
    """Values of the active lanes as a page shows them: floats in six digits; bits by the buffer's dtype."""
    on = [value for value in values if value is not None]
    if on and isinstance(on[0], int) and not isinstance(on[0], bool) and dtype in ("f32", *NARROW):
        bits = np.array(on, np.uint64).astype(np.uint32 if dtype == "f32" else np.uint16)
        on = decode(bits.view(NUMPY[dtype]), dtype).tolist()
    return [digits(value) for value in on]


def digits(value: Any) -> Any:
    """A float in six digits, words for values that JSON lacks; whole numbers beyond a double's as text."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value if abs(value) < 1 << 53 else str(value)
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    return str(value)


def packed(values: Sequence[Any]) -> Any:
    """A list, or [start, stride, count] under "s" where each number follows from the one before."""
    if len(values) > 2 and all(type(v) is type(values[0]) and not isinstance(v, str) for v in values):
        stride = values[1] - values[0]
        whole = isinstance(stride, int) or stride == 0
        if whole and all(b - a == stride for a, b in zip(values, values[1:], strict=False)):
            return {"s": [values[0], stride, len(values)]}
    return list(values)


def unpacked(values: Any) -> list[Any]:
    """The list again."""
    if isinstance(values, dict):
        start, stride, count = values["s"]
        return [start + stride * i for i in range(count)]
    return list(values)


def runs(numbers: Sequence[int]) -> list[int]:
    """[first, count] of each run of numbers that follow each other, flat."""
    flat: list[int] = []
    for number in numbers:
        if flat and flat[-2] + flat[-1] == number:
            flat[-1] += 1
        else:
            flat += [number, 1]
    return flat


def nonzero(values: Json) -> Json:
    return {name: value for name, value in values.items() if value}
