"""Strict mode's barriers of a thread block: the threads that must arrive, and those that may be absent.

bar.sync is `aligned`: all threads of a warp reach the same one together. __syncthreads() is legal in a branch only if
the whole thread block takes it. Threads that have exited do not count (since Volta), so that an early `return` before a
barrier is legal; a barrier inside an `if` is none of that, although there too the others may have exited by then. PTX
does not distinguish the two, so the source does: the `if` at which the threads diverged, and whether it holds a
`return`.
"""

from __future__ import annotations

import re

import numpy as np

from core.sim.faults import KernelError
from core.sim.machine.lanes import Lanes
from core.sim.machine.resident_blocks import ResidentBlocks
from core.sim.machine.waiting import Barrier
from core.sim.ptx.cuda_source import CudaStatement, Sources, SourceText
from core.sim.ptx.program import EXIT, Program, per_program
from core.sim.ptx.register_types import Array
from core.sim.ptx.syntax import Instruction, Location, Symbol

WARP = 32
HINT = "let every thread of the block reach the same __syncthreads(): move it out of the branch"


def is_aligned(ins: Instruction) -> bool:
    return ins.names[0] == "bar" or "aligned" in ins.names


def is_whole(ins: Instruction) -> bool:
    """Whether an instruction is a barrier of all threads of the thread block."""
    if ins.names[0] not in ("bar", "barrier") or not {"warp", "cluster", "arrive"}.isdisjoint(ins.names):
        return False
    return "red" in ins.names or len(ins.operands) == 1


# ------------------------------------------------------------------ the flow of control
@per_program
def following(program: Program) -> dict[int, list[int]]:
    """Block of instructions -> the blocks that may run after it, EXIT among them."""
    return {start: _after(program, block.stop) for start, block in program.blocks.items()}


def _after(program: Program, stop: int) -> list[int]:
    if not 0 < stop <= len(program.instructions):
        return []
    last = program.instructions[stop - 1]
    straight = [stop] if last.predicate is not None else []
    if last.names[0] in ("ret", "exit"):
        return [*straight, EXIT]
    if last.names[0] in ("bra", "brx"):
        return successors(program, last) + straight
    return [stop]


def successors(program: Program, branch: Instruction) -> list[int]:
    """The targets of a taken branch."""
    if branch.names[0] == "brx":
        table = branch.operands[1]
        return [program.target(n) for n in program.tables[table.name]] if isinstance(table, Symbol) else []
    label = branch.operands[-1]
    return [program.target(label.name)] if isinstance(label, Symbol) else []


@per_program
def partings(program: Program) -> dict[int, dict[int, list[int]]]:
    """A branch's pc -> where it may go -> the barriers that can be reached from the branch, and no more from there."""
    after = following(program)
    before: dict[int, list[int]] = {}
    for start, nexts in after.items():
        for one in nexts:
            before.setdefault(one, []).append(start)
    by_branch: dict[int, dict[int, list[int]]] = {}
    for pc, ins in enumerate(program.instructions):
        if not is_whole(ins):
            continue
        # A barrier ends its block: every thread in the block reaches it.
        home = max(start for start in program.blocks if start <= pc)
        comes, stack = {home}, [home]
        while stack:
            for one in before.get(stack.pop(), []):
                if one not in comes:
                    comes.add(one)
                    stack.append(one)
        for start in comes:
            branch = program.blocks[start].stop - 1
            for one in after[start] if len(after[start]) > 1 else ():
                if one not in comes:
                    by_branch.setdefault(branch, {}).setdefault(one, []).append(pc)
    return by_branch


# ------------------------------------------------------------------ evidence of the source
def _frames(place: Location) -> list[tuple[str, int]]:
    """The lines of a location, that of the kernel first, then those of functions that were inlined there."""
    frames: list[tuple[str, int]] = []
    at: Location | None = place
    while at is not None:
        frames.append((at.file, at.line))
        at = at.outer
    return frames[::-1]


def meeting(branch: Location, barrier: Location) -> tuple[int, tuple[str, int], tuple[str, int]]:
    """Call depth of the function with both a branch and a barrier (0: the kernel), and their lines in it."""
    pairs = list(zip(_frames(branch), _frames(barrier), strict=False))
    level = next((i for i, (ours, theirs) in enumerate(pairs) if ours != theirs), len(pairs) - 1)
    return level, *pairs[level]


def returns_early(sources: Sources, branch: tuple[str, int], barrier: tuple[str, int]) -> bool | None:
    """Whether threads that a branch keeps from a barrier take a `return` there; None where the source does not show it.

    branch, barrier: file and line in the function that holds them both.
    """
    (file, line), (other, where) = branch, barrier
    text = sources.text(file)
    if text is None or file != other:
        return None
    row = text.of_line(line)
    around = [s for s in text.statements if s.header.start < row.stop and s.header.stop > row.start]
    if not around:
        return None
    places = _barriers(text, where)
    early = any(_early(text, statement, place) for statement in around for place in places)
    if line != where:
        return early
    # One line holds all: which `if` it was cannot be seen. None of them may hold the barrier.
    return early and not any(_holds(s, place) for s in around if s.branching for place in places)


def _barriers(text: SourceText, line: int) -> list[int]:
    """The places of barriers in a line."""
    row = text.of_line(line)
    words = text.plain[row.start : row.stop]
    offsets = [row.start + one.start() for one in re.finditer(r"__syncthreads|\bsync\b", words)]
    return offsets or [row.start + len(words) - len(words.lstrip())]


def _holds(statement: CudaStatement, place: int) -> bool:
    return place in statement.body or (statement.otherwise is not None and place in statement.otherwise)


def _early(text: SourceText, statement: CudaStatement, place: int) -> bool:
    """Whether an `if` returns on a side of it that does not hold `place`."""
    if not statement.branching:
        return False
    sides = [side for side in (statement.body, statement.otherwise) if side and place not in side]
    return any(re.search(r"\breturn\b", text.plain[side.start : side.stop]) for side in sides)


def _exits_in_words(program: Program, start: int) -> bool:
    """Whether a block of instructions ends in `exit`, which compilers write for nothing but asm("exit;")."""
    block = program.blocks.get(start)
    return block is not None and block.stop > start and program.instructions[block.stop - 1].names[0] == "exit"


# ------------------------------------------------------------------ the watch
class Meetings:
    """The barriers of one batch. `notes`: accesses that are accepted without proof, one line each."""

    def __init__(self, batch: ResidentBlocks, sources: Sources) -> None:
        self.batch, self.sources = batch, sources
        self.partings = partings(batch.program)
        self.parted: dict[int, Array] = {}  # barrier -> of each thread of the batch, the branch that keeps it away
        self.judged: dict[tuple[int, int], bool] = {}
        self.notes: list[str] = []

    def took(self, g: Lanes, pc: int, lanes: Array, to: int) -> None:
        """Lanes go from the branch at `pc` to `to`."""
        for barrier in self.partings.get(pc, {}).get(to, ()):
            if barrier not in self.parted:
                self.parted[barrier] = np.full(len(self.batch.numbers) * self.batch.padded, -1, np.int32)
            self.parted[barrier][self._threads(g, lanes)] = pc

    def _threads(self, g: Lanes, lanes: Array) -> Array:
        """Lanes, numbered over the batch."""
        return np.asarray(g.block[lanes] * self.batch.padded + g.thread[lanes])

    def live(self) -> Array:
        """The threads of the batch that have not exited."""
        mask = np.zeros(len(self.batch.numbers) * self.batch.padded, np.bool_)
        for g in self.batch.groups:
            mask[self._threads(g, np.arange(g.lanes))] = g.live
        return mask

    def comes(self, g: Lanes, ins: Instruction, barrier: Barrier, index: Array) -> None:
        """Lanes reach a barrier of their thread block: all of it, or all of a warp, at the same instruction."""
        threads = self._threads(g, index)
        for before, there in barrier.came if is_aligned(ins) else ():
            if before is ins:
                continue
            same = np.ones(len(index), np.bool_) if barrier.count is None else np.isin(threads // WARP, there // WARP)
            if same.any():
                raise self._divergent(g, ins, int(index[same][0]), before, int(there[0]))
        barrier.came.append((ins, threads))

    def complete(self, g: Lanes, ins: Instruction, index: Array, count: int | None, came: Array, block: int) -> None:
        """Threads `came` of the batch have met at a barrier of `block`; lanes `index` are among them."""
        if count is None:
            if self.batch.remaining[block] < self.batch.threads:
                self._absent(g, ins, index, block)
            return
        if not is_aligned(ins):
            return
        live = self.live()
        for warp in np.unique(came // WARP).tolist():
            members = np.arange(warp * WARP, (warp + 1) * WARP)
            missing = members[live[members] & ~np.isin(members, came)]
            if missing.size:
                message = f"{{who}} reaches this barrier, {self._named(int(missing[0]))} of the same warp does not"
                raise self.batch.fault(ins, "divergent", message, g, int(index[0]), hint="a barrier counts whole warps")

    # ------------------------------------------------------------------ findings
    def _divergent(self, g: Lanes, ins: Instruction, lane: int, before: Instruction, other: int) -> KernelError:
        where = self.batch.words.line(before.location)
        message = f"{{who}} reaches this barrier, and {self._named(other)} waits at another, {where}"
        return self.batch.fault(ins, "divergent", message, g, lane, hint=HINT)

    def _named(self, thread: int) -> str:
        """A thread of the batch, as text."""
        block, thread = divmod(thread, self.batch.padded)
        return self.batch.words.thread(int(self.batch.numbers[block]), thread)

    def _absent(self, g: Lanes, ins: Instruction, index: Array, block: int) -> None:
        """Threads have exited: by an early return, or past a barrier that a branch of theirs does not hold."""
        number = next(i for i, one in enumerate(self.batch.program.instructions) if one is ins)
        own = slice(block * self.batch.padded, block * self.batch.padded + self.batch.threads)
        gone = ~self.live()[own]
        parted = self.parted.get(number)
        branches = np.full(int(gone.sum()), -1) if parted is None else parted[own][gone]
        for branch in np.unique(branches).tolist():
            if branch < 0 or not self._legal(branch, number):
                thread = own.start + int(np.flatnonzero(gone)[np.flatnonzero(branches == branch)[0]])
                raise self._conditional(g, ins, int(index[g.block[index] == block][0]), thread, branch)

    def _legal(self, branch: int, barrier: int) -> bool:
        if (branch, barrier) not in self.judged:
            self.judged[branch, barrier] = self._judge(branch, barrier)
        return self.judged[branch, barrier]

    def _judge(self, branch: int, barrier: int) -> bool:
        program = self.batch.program
        ins, barred = program.instructions[branch], program.instructions[barrier]
        if ins.names[0] in ("ret", "exit"):
            return True
        level, *lines = meeting(ins.location, barred.location)
        early = returns_early(self.sources, *lines)
        ends = [to for to, barriers in self.partings[branch].items() if barrier in barriers]
        if all(_exits_in_words(program, to) for to in ends):
            return True
        if early is not None and (level == 0 or not early):
            return early
        if not all(program.exits(to) for to in ends):
            return False  # nor is the return of a function that was inlined, if more follows it
        if early:
            return True
        self.notes.append(
            f"{barred.location}: a barrier without the threads that exit at {ins.location}: legal after an early "
            "return, and not in an if; without the source the two look the same"
        )
        return True

    def _conditional(self, g: Lanes, ins: Instruction, lane: int, thread: int, branch: int) -> KernelError:
        where = f" ({self.batch.words.line(self.batch.program.instructions[branch].location)})" if branch >= 0 else ""
        message = (
            f"{{who}} waits at a barrier in a branch that {self._named(thread)} did not take{where}: it has exited, "
            "and not by an early return"
        )
        return self.batch.fault(ins, "divergent", message, g, lane, hint=HINT)
