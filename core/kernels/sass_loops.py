"""Loops of a kernel's SASS, and the way that a warp takes through one trip.

A branch around rare work, such as a mask, is inside a loop's text and outside of most trips. So a trip is one path: of
all paths from a loop's first instruction back to it, one with the most tensor-core instructions, of those with the most
accesses to shared memory, of those with the most arithmetic on floats where the kernel has no tensor-core instructions,
of those with the fewest instructions.
The whole kernel is the same path from its first instruction to its end, every loop taken once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from core.kernels.sass import SassInstruction, counts

SHARED = ("ldsm", "lds", "sts", "copy")
NOTHING = (0, 0, 0, 0)
Score = tuple[int, int, int, int]  # tensor-core instructions, accesses to shared memory, floats, minus all


@dataclass(frozen=True)
class BasicBlock:
    """Instructions [start, end), which run one after another. after: the blocks that may be next."""

    start: int
    end: int
    after: tuple[int, ...]


def blocks_of(code: Sequence[SassInstruction]) -> dict[int, BasicBlock]:
    """start -> basic block. A call leads to its target and to the next instruction: ptxas jumps with some."""
    starts = {0, *(i.target for i in code if i.target >= 0)}
    starts |= {at + 1 for at, i in enumerate(code) if i.kind == "branch" and _leaves(i)}
    ordered = sorted(at for at in starts if at < len(code))
    blocks = {}
    for start, end in zip(ordered, [*ordered[1:], len(code)], strict=True):
        last = code[end - 1]
        after = [last.target] if last.target >= 0 else []
        if end < len(code) and not (_ends(last) and not last.predicate):
            after.append(end)
        blocks[start] = BasicBlock(start, end, tuple(dict.fromkeys(after)))
    return blocks


def _leaves(i: SassInstruction) -> bool:
    return i.target >= 0 or i.opcode.startswith(("BRX", "JMX", "EXIT", "RET"))


def _ends(i: SassInstruction) -> bool:
    """Whether the next instruction does not follow; a call comes back."""
    return i.opcode.startswith(("BRA", "BRX", "JMP", "JMX", "EXIT", "RET"))


def back_edges(blocks: Mapping[int, BasicBlock]) -> dict[int, list[int]]:
    """header -> the blocks that jump back to it, by a depth-first walk from the first instruction."""
    edges: dict[int, list[int]] = {}
    state: dict[int, int] = {0: 1}  # 1: on the way, 2: done
    stack: list[tuple[int, Iterator[int]]] = [(0, iter(blocks[0].after))]
    while stack:
        at, after = stack[-1]
        to = next(after, None)
        if to is None:
            state[at] = 2
            stack.pop()
        elif state.get(to) == 1:
            edges.setdefault(to, []).append(at)
        elif to not in state:
            state[to] = 1
            stack.append((to, iter(blocks[to].after)))
    return edges


def body_of(blocks: Mapping[int, BasicBlock], header: int, latches: Sequence[int]) -> set[int]:
    """The blocks that reach a latch without passing the header."""
    before: dict[int, list[int]] = {}
    for block in blocks.values():
        for to in block.after:
            before.setdefault(to, []).append(block.start)
    body, todo = {header}, list(latches)
    while todo:
        at = todo.pop()
        if at not in body:
            body.add(at)
            todo += before.get(at, [])
    return body


def best_path(
    code: Sequence[SassInstruction], blocks: Mapping[int, BasicBlock], first: int, last: set[int], among: set[int]
) -> tuple[int, ...]:
    """The best path from `first` to one of `last`, as indexes of instructions; () where there is none."""
    skip = {(at, to) for to, ats in back_edges(blocks).items() for at in ats}
    next_of = {
        at: [to for to in block.after if to in among and (at, to) not in skip] for at, block in blocks.items()
    }  # fmt: skip
    tensor = any(i.kind == "tensor" for i in code)
    best: dict[int, tuple[Score, int]] = {}
    for at in _after_order(first, next_of):
        ahead = max(((best[to][0], to) for to in next_of[at] if to in best), default=None)
        if at in last and (ahead is None or ahead[0] < NOTHING):
            ahead = (NOTHING, -1)
        if ahead:
            (a, b, c, d), (e, f, g, h) = score(code[at : blocks[at].end], tensor), ahead[0]
            best[at] = ((a + e, b + f, c + g, d + h), ahead[1])
    path, at = list[int](), first
    while at in best:
        path += range(at, blocks[at].end)
        at = best[at][1]
    return tuple(path)


def score(code: Sequence[SassInstruction], tensor: bool) -> Score:
    """The worth of a part of a path. tensor: whether the kernel has tensor-core instructions."""
    kinds = counts(code)
    return kinds["tensor"], sum(kinds[k] for k in SHARED), 0 if tensor else kinds["float"], -len(code)


def _after_order(first: int, next_of: Mapping[int, Sequence[int]]) -> Iterator[int]:
    """Blocks that `first` leads to, each after all that it leads to."""
    seen, stack = {first}, [(first, iter(next_of[first]))]
    while stack:
        at, after = stack[-1]
        to = next(after, None)
        if to is None:
            yield at
            stack.pop()
        elif to not in seen:
            seen.add(to)
            stack.append((to, iter(next_of[to])))


def loops_of(code: Sequence[SassInstruction]) -> list[tuple[int, ...]]:
    """The loops, each as the indexes of a trip's instructions; that with the most tensor-core instructions, then
    accesses to shared memory, then floats, first."""
    blocks, trips = blocks_of(code), list[tuple[int, ...]]()
    for header, latches in back_edges(blocks).items():
        trips.append(best_path(code, blocks, header, set(latches), body_of(blocks, header, latches)))

    def size(trip: tuple[int, ...]) -> Score:
        tensor, shared, floats, slots = score([code[at] for at in trip], False)
        return tensor, shared, floats, -slots

    return sorted((trip for trip in trips if trip), key=size, reverse=True)


def way_through(code: Sequence[SassInstruction]) -> tuple[int, ...]:
    """A warp's path from the first instruction to an EXIT, each loop taken once."""
    blocks = blocks_of(code)
    ends = {block.start for block in blocks.values() if code[block.end - 1].opcode.startswith("EXIT")}
    return best_path(code, blocks, 0, ends, set(blocks))
