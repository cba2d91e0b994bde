"""Pictures of matrix products: tiles in shared memory, and the fragments of a tensor core."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import core
import core.sim

from .drawing import EDGE, Canvas
from .source import page, puzzle

Element = tuple[int, int]  # row, column
REGISTERS = ("blue", "green", "orange", "violet")  # a0 to a3


def tiles() -> str:
    """Lesson 11's tiles: the elements that a thread block of p11's solution reads in a slice, and one thread of it."""
    y, x, block, tile, n = 3, 5, 3, 16, 32
    a, b, out = (np.zeros((n, n), np.float32) for _ in range(3))
    size = [np.int32(n)] * 3
    solution = puzzle("p11_matmul_tiled")[1]
    tape = core.sim.run(solution, "matmul", (2, 2), (tile, tile), [out, a, b, *size], strict=False, tape=[block]).tape
    assert tape is not None
    thread = y * tile + x
    fetched: dict[str, list[list[Element]]] = {"a": [], "b": []}  # by matrix and slice, the elements of all warps
    mine: dict[str, set[Element]] = {"left": set(), "right": set()}  # by shared tile, the elements of the thread
    for warp in range(tile * tile // 32):
        turns = dict.fromkeys(fetched, 0)
        for access in (one for step in tape.steps(block, warp) for one in step.accesses if one.how == "read"):
            if access.buffer in fetched:
                slices, turn = fetched[access.buffer], turns[access.buffer]
                slices.extend([] for _ in range(turn + 1 - len(slices)))
                slices[turn] += [divmod(i, n) for i in access.index]
                turns[access.buffer] += 1
            elif access.buffer in mine and warp == thread // 32:
                pairs = zip(access.lanes, access.at, strict=True)
                words = [(at - access.start) // 4 for lane, at in pairs if lane == thread % 32]
                mine[access.buffer].update(divmod(i, tile) for i in words)
    return drawn_tiles(fetched, mine, (block // 2 * tile, block % 2 * tile), (y, x), n, tile)


def drawn_tiles(
    fetched: dict[str, list[list[Element]]], mine: dict[str, set[Element]], corner: Element, thread: Element, n: int,
    tile: int,
) -> str:  # fmt: skip
    """The three matrices: b above c, a at its left. corner: the first element of the block's tile of c."""
    count = len(mine["left"]), len(mine["right"])
    c = Canvas(
        "Tiles of a matrix product",
        f"Three matrices of {n} x {n}: a at the left of c, b above it. A thread block makes a tile of {tile} x {tile} "
        f"of c. It goes along a's rows and b's columns in {len(fetched['a'])} slices; the second is in shared memory. "
        f"Thread {thread} reads a row of a's tile and a column of b's, {count[0]} numbers each, for its element.",
        470,
    )
    c.headline("A tile of c needs a band of a and a band of b, slice by slice")
    cell, gap, left, top = 5.6, 22, EDGE + 20, 62
    side, width = cell * n, cell * tile
    where = {"a": (left, top + side + gap), "b": (left + side + gap, top), "c": (left + side + gap, top + side + gap)}
    for x, y in where.values():
        c.box(x, y, side, side, "plain", "dim", r=0)
    for name, slices in fetched.items():
        for elements in slices:
            (r, k), now = min(elements), elements is slices[-1]
            x, y = where[name][0] + cell * k, where[name][1] + cell * r
            c.box(x, y, width, width, "orange-soft" if now else "", "orange", r=0, width=1.4, dash=not now)
        r, k = min(slices[-1])
        for row, column in sorted(mine["left" if name == "a" else "right"]):
            x, y = where[name][0] + cell * (k + column), where[name][1] + cell * (r + row)
            c.box(x + 0.3, y + 0.3, cell - 0.6, cell - 0.6, "blue", r=0)
    x, y = where["c"][0] + cell * corner[1], where["c"][1] + cell * corner[0]
    c.box(x, y, width, width, "green-soft", "green", r=0, width=1.4)
    x, y = x + cell * thread[1], y + cell * thread[0]
    c.box(x, y, cell, cell, "blue", r=0)
    c.line([(where["a"][0] + side + 2, y + cell / 2), (x - 2, y + cell / 2)], "blue", width=1.2, arrow=True)
    c.line([(x + cell / 2, where["b"][1] + side + 2), (x + cell / 2, y - 2)], "blue", width=1.2, arrow=True)
    for name, (x, y) in where.items():
        c.text(x + 8, y + 20, name, size=16, bold=True, mono=True)
    c.text(where["a"][0], where["a"][1] - 8, "K →", size=11, fill="dim")
    c.text(where["b"][0] - 8, where["b"][1] + 30, "K ↓", size=11, fill="dim", anchor="end")
    tile_notes(c, where["c"][0] + side + 26, top + 26, thread, count, tile)
    return c.svg()


def tile_notes(c: Canvas, x: float, y: float, thread: Element, count: tuple[int, int], tile: int) -> None:
    """The meanings of the colours, from (x, y) on."""
    size = f"{tile} x {tile}"
    rows = [
        ("green", "a block's tile of c", (f"{size} results, one a thread",)),
        ("orange", "the slice in shared memory", (f"{size} of a, {size} of b;", "dashed: the slice before it")),
        (
            "blue",
            f"the reads of thread {thread}",
            (f"{count[0]} of a and {count[1]} of b, for its", "one element of c"),
        ),
    ]
    for colour, head, lines in rows:
        c.box(x, y - 11, 13, 13, colour, r=2)
        c.text(x + 21, y, head, size=13, bold=True)
        for i, line in enumerate(lines):
            c.text(x + 21, y + 18 + 16 * i, line, size=12, fill="dim")
        y += 74
    c.text(x, y + 14, "Each number of a slice is loaded", size=12.5)
    c.text(x, y + 31, f"once, and read by {tile} threads.", size=12.5)


HELD = """
#include "core/mma.cuh"
extern "C" __global__ void held(u32* y) {
    __shared__ alignas(16) elem tile[16 * 16];
    for (int i = threadIdx.x; i < 256; i += 32) reinterpret_cast<unsigned short*>(tile)[i] = i;
    __syncthreads();
    u32 out[4];
    fragment<true>(out, 0, 0, [&](int line, int chunk) { return tile + line * 16 + chunk * CHUNK; });
    for (int n = 0; n < 4; n++) y[threadIdx.x * 4 + n] = out[n];
}
"""


def fragments() -> str:
    """Lesson 11's fragments of a 16 x 16 operand: the registers that the product's own `fragment` fills in each lane,
    which are those of the page's map."""
    held = np.zeros((32, 4), np.uint32)
    headers = Path(core.__file__).parent / "kernels/include"
    core.sim.run(HELD, "held", 1, 32, [held], prelude=True, defines={"ELEM": "bf16"}, include=[headers])
    owners: dict[Element, tuple[int, int]] = {}  # element -> lane, register
    for lane, words in enumerate(held.view(np.uint16).reshape(32, 8).tolist()):
        owners |= {divmod(element, 16): (lane, i // 2) for i, element in enumerate(words)}
    assert len(owners) == 256 and page("11_matmul", "owners[row, column] += 1")["owners"].max() == 1
    shown = 6
    g, t = shown // 4, shown % 4
    c = Canvas(
        "The lanes that hold the left operand of mma",
        "A grid of 16 x 16 elements of a, each with the number of its lane. Registers a0 to a3 of all lanes cover the "
        f"four quarters: upper left, lower left, upper right, lower right. Lane {shown}, in strong colours, has rows "
        f"{g} and {g + 8}, and there columns {2 * t}, {2 * t + 1}, {2 * t + 8} and {2 * t + 9}.",
        520,
    )
    c.headline("The lane that holds each element of a")
    left, top, cell = 62, 88, 25

    def at(i: int) -> float:
        return cell * i + (6 if i > 7 else 0)

    for (r, k), (lane, register) in owners.items():
        x, y, is_shown = left + at(k), top + at(r), lane == shown
        c.box(x, y, cell - 1.5, cell - 1.5, REGISTERS[register] + ("" if is_shown else "-soft"), r=2)
        ink = "paper" if is_shown else "ink"
        c.text(x + cell / 2 - 0.7, y + 16, str(lane), size=11, fill=ink, anchor="middle", bold=is_shown)
    for i in range(16):
        c.text(left + at(i) + cell / 2, top - 8, str(i), size=10, fill="dim", anchor="middle")
        c.text(left - 8, top + at(i) + cell / 2 + 4, str(i), size=10, fill="dim", anchor="end")
    c.text(left + cell * 8, top - 24, "column", size=11.5, fill="dim", anchor="middle")
    c.text(EDGE + 10, top + cell * 8, "row", size=11.5, fill="dim", anchor="middle", turned=True)
    lane_notes(c, left + 16 * cell + 34, top + 16, shown, [e for e in owners if owners[e][0] == shown])
    return c.svg()


def lane_notes(c: Canvas, x: float, y: float, lane: int, elements: list[Element]) -> None:
    """The registers of a lane, two elements each, from (x, y) on."""
    c.text(x, y, f"lane {lane}", size=15, bold=True)
    c.text(x, y + 20, f"g = {lane} / 4 = {lane // 4}", size=12.5, mono=True)
    c.text(x, y + 37, f"t = {lane} % 4 = {lane % 4}", size=12.5, mono=True)
    y += 70
    for register, colour in enumerate(REGISTERS):
        (row, first), (_, second) = elements[2 * register : 2 * register + 2]
        c.box(x, y - 12, 14, 14, colour, r=2)
        c.text(x + 22, y, f"a{register}", size=13, bold=True, mono=True)
        c.text(x + 46, y, f"row {row}, columns {first}, {second}", size=12.5)
        words = f"row g{' + 8' * (register % 2)}, from 2t{' + 8' * (register // 2)}"
        c.text(x + 46, y + 16, words, size=11.5, fill="dim")
        y += 46
    c.text(x, y + 12, "Two bf16 fill a register of 32", size=12, fill="dim")
    c.text(x, y + 28, "bits, so neighbours share one.", size=12, fill="dim")
