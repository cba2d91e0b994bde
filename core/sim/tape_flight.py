"""Work in flight at each row of a tape: asynchronous copies without a wait so far, and arrivals at barriers.

Copies count by the program's own order: from their issue to the wait that covers them, whenever the simulator moved
the bytes. One pass over the rows, in the order in which groups of lanes ran them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from core.sim.ptx.program import Program
from core.sim.ptx.syntax import Immediate, Instruction
from core.sim.tape_rows import TapeRow, Visit

Warp = tuple[int, int]  # thread block in the grid, warp in it


@dataclass(frozen=True)
class Flight:
    """An asynchronous copy, or a wgmma, under way. warp: who issued it, in its step `since`; kind: "cp.async", "bulk"
    or "wgmma". group: of its warp's commits, from 0; None before the commit. mbarrier: (thread block, byte of shared
    memory) of the one that counts it."""

    warp: Warp
    since: int
    pc: int
    kind: str
    group: int | None = None
    mbarrier: tuple[int, int] | None = None

    @property
    def until(self) -> str:
        """The event that completes the work for its warp."""
        if self.mbarrier is not None:
            return "its mbarrier"
        return "a commit" if self.group is None else f"group {self.group}"


@dataclass
class Timeline:
    """Work in flight and arrivals, by row number. flying: (row, warp) -> asynchronous work in flight after the step,
    where there is any; came: (row, visit) -> the warps that have arrived at the barrier in this phase."""

    flying: dict[tuple[int, Warp], tuple[Flight, ...]] = field(default_factory=dict)
    came: dict[tuple[int, int], tuple[Warp, ...]] = field(default_factory=dict)


def timeline(program: Program, rows: Sequence[TapeRow]) -> Timeline:
    """The work under way, and the arrivals, at each row."""
    line = Timeline()
    _gather(rows, line)
    if any(issues(ins) for ins in program.instructions):
        _follow(program, rows, line)
    return line


# --- barriers ---------------------------------------------------------------------------------------------------


def _gather(rows: Sequence[TapeRow], line: Timeline) -> None:
    phases: dict[tuple[bool, int, int], dict[Warp, None]] = {}
    for number, row in enumerate(rows):
        for place, visit in enumerate(row.visits):
            phase = phases.setdefault((visit.kind in ("barrier", "cluster"), visit.block, visit.place), {})
            if visit.kind not in ("wait", "copy"):
                phase |= dict.fromkeys(_warps(row, visit))
            line.came[number, place] = tuple(sorted(phase))
            if visit.complete and visit.kind != "wait":
                phase.clear()


def _warps(row: TapeRow, visit: Visit) -> list[Warp]:
    """The warps of a visit's lanes."""
    present = {lane // 32 for lane in visit.lanes}
    firsts = row.here.lanes[list(row.here.starts[:-1])] // 32
    return [warp for warp, first in zip(row.here.warps, firsts.tolist(), strict=True) if first in present]


# --- copies -----------------------------------------------------------------------------------------------------


def issues(ins: Instruction) -> str:
    """The kind of asynchronous work that an instruction issues: "cp.async", "bulk", "wgmma"; "" for none."""
    names = ins.names
    if names[:2] == ("wgmma", "mma_async"):
        return "wgmma"
    if names[0] not in ("cp", "st") or "async" not in names or "prefetch" in names or "mbarrier" in names[:3]:
        return ""
    if names[-1] in ("commit_group", "wait_all") or "wait_group" in names or "commit_group" in names:
        return ""
    return "bulk" if "bulk" in names or names[0] == "st" else "cp.async"


def settles(ins: Instruction) -> tuple[str, str]:
    """(the kind of work, "commit" or "wait") of an instruction that groups work or waits for groups; else "", ""."""
    names = ins.names
    act = "commit" if "commit_group" in names else "wait" if {"wait_group", "wait_all"} & set(names) else ""
    if not act or "read" in names:
        return "", ""
    return ("wgmma" if names[0] == "wgmma" else "bulk" if "bulk" in names else "cp.async"), act


@dataclass
class _Follower:
    """State of the pass. groups: commits so far, by warp and kind; awaited: mbarriers that a warp has waited for, whose
    copies have landed when it resumes; seen: the last result of `seen_by`, until flights change."""

    flights: list[Flight] = field(default_factory=list)
    groups: dict[tuple[Warp, str], int] = field(default_factory=dict)
    awaited: dict[Warp, set[tuple[int, int]]] = field(default_factory=dict)
    seen: dict[Warp, tuple[Flight, ...]] = field(default_factory=dict)

    def change(self, flights: list[Flight]) -> None:
        self.flights, self.seen = flights, {}

    def resumes(self, warp: Warp) -> None:
        if landed := self.awaited.pop(warp, None):
            self.change([f for f in self.flights if f.mbarrier not in landed])

    def settle(self, ins: Instruction, warp: Warp, kind: str, act: str) -> None:
        commits = self.groups.get((warp, kind), 0)

        def own(f: Flight) -> bool:
            return f.warp == warp and f.kind == kind and f.mbarrier is None

        if act == "commit":
            self.change([replace(f, group=commits) if own(f) and f.group is None else f for f in self.flights])
            self.groups[warp, kind] = commits + 1
            return
        keep = ins.operands[0].bits if ins.operands and isinstance(ins.operands[0], Immediate) else 0
        every = "wait_all" in ins.names
        over = commits if every else commits - keep
        self.change([f for f in self.flights if not (own(f) and (every if f.group is None else f.group < over))])

    def visit(self, warp: Warp, visit: Visit, ins: Instruction) -> None:
        at = visit.block, visit.place
        if visit.kind == "wait":
            self.awaited.setdefault(warp, set()).add(at)
        elif ins.names[:3] == ("cp", "async", "mbarrier"):
            mine = [f.warp == warp and f.kind == "cp.async" and f.mbarrier is None for f in self.flights]
            self.change([replace(f, mbarrier=at) if m else f for f, m in zip(self.flights, mine, strict=True)])

    def seen_by(self, warp: Warp) -> tuple[Flight, ...]:
        """A warp's own work, and copies of its thread block that an mbarrier counts."""
        if warp not in self.seen:
            own = (f for f in self.flights if f.warp == warp or (f.mbarrier and f.mbarrier[0] == warp[0]))
            self.seen[warp] = tuple(own)
        return self.seen[warp]


def _follow(program: Program, rows: Sequence[TapeRow], line: Timeline) -> None:
    state, steps = _Follower(), dict[Warp, int]()
    for number, row in enumerate(rows):
        ins = program.instructions[row.pc]
        kind, (settled, act) = issues(ins), settles(ins)
        for warp, on in _running(row):
            steps[warp] = steps.get(warp, 0) + 1
            state.resumes(warp)
            if on and kind:
                counted = next(((v.block, v.place) for v in row.visits if v.kind == "copy"), None)
                state.change([*state.flights, Flight(warp, steps[warp], row.pc, kind, None, counted)])
            if on and act:
                state.settle(ins, warp, settled, act)
            for visit in row.visits if on else ():
                state.visit(warp, visit, ins)
            if state.flights and (flying := state.seen_by(warp)):
                line.flying[number, warp] = flying


def _running(row: TapeRow) -> Iterator[tuple[Warp, bool]]:
    """Each warp of a row, and whether the predicate lets any of its lanes run."""
    for i, warp in enumerate(row.here.warps):
        yield warp, row.on is None or bool(row.on[row.here.starts[i] : row.here.starts[i + 1]].any())
