"""Pictures of the last lessons: pairs that turn, and a ring of ranks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .drawing import EDGE, WIDTH, Canvas
from .source import page, puzzle

POSITIONS = (0, 1, 8, 64)
HANDS = ("dim", "blue", "green", "orange")  # of these positions
PAIRS = 4
RANKS = ("blue", "orange", "green", "violet")
SIDE, HIGH = 19, 25  # of a chunk


def turning() -> str:
    """Lesson 13's pairs: the angles that the page's `turned` gives to four pairs of columns."""
    turned = page("13_architectures", "def turned")["turned"]

    def angles(position: int) -> list[float]:
        ones = turned(np.tile([1.0, 0.0], PAIRS), position)
        return [math.atan2(y, x) for x, y in ones.reshape(PAIRS, 2)]

    speeds = [10000.0 ** (-2 * p / (2 * PAIRS)) for p in range(PAIRS)]
    products = [math.cos(q - k) for q, k in zip(angles(5), angles(3), strict=True)]
    c = Canvas(
        "Pairs of columns that turn with the position",
        f"Four clocks, one for each pair of a head's {2 * PAIRS} columns, with hands at the positions "
        f"{', '.join(map(str, POSITIONS))}. The first pair turns by 1 radian a position, the others by "
        f"{', '.join(f'{s:g}' for s in speeds[1:])}: the first distinguishes neighbours, the last moves little. Below, "
        "a query and a key, at 5 and 3, and at 905 and 903: both hands have turned on, and the angle between them is "
        "the same for each pair.",
        498,
    )
    c.headline(
        "Only the angle between two positions counts",
        "Each pair of columns is a hand with a speed of its own. A dot product sees the angle between q and k.",
    )
    left, wide = 150, 142
    for p, speed in enumerate(speeds):
        x = left + wide * p
        c.text(x, 88, f"pair {p}", anchor="middle", bold=True)
        c.text(x, 104, f"{speed:g} radian a position", size=11, fill="dim", anchor="middle")
        clock(c, x, 172, 48)
        for position, colour in zip(POSITIONS, HANDS, strict=True):
            hand(c, x, 172, 48, angles(position)[p], colour)
        for y, (i, j) in ((302, (5, 3)), (406, (905, 903))):
            wedge(c, x, y, 38, angles(j)[p], angles(i)[p])
            hand(c, x, y, 38, angles(j)[p], "red")
            hand(c, x, y, 38, angles(i)[p], "blue")
        c.text(x, 466, f"cosine {products[p]:.2f}".replace("-", "−"), size=12.5, anchor="middle")
    c.text(EDGE, 160, "positions", bold=True)
    for i, (position, colour) in enumerate(zip(POSITIONS, HANDS, strict=True)):
        c.text(EDGE + 32 * (i % 2), 178 + 18 * (i // 2), str(position), size=13, fill=colour, bold=True)
    for y, i, j in ((298, 5, 3), (402, 905, 903)):
        c.text(EDGE, y, [("q", "blue"), (f" at {i}", "ink")], bold=True)
        c.text(EDGE, y + 18, [("k", "red"), (f" at {j}", "ink")], bold=True)
    c.line([(EDGE, 246), (WIDTH - EDGE, 246)], "grid", width=1)
    return c.svg()


def clock(c: Canvas, x: float, y: float, r: float) -> None:
    """A face, with a mark at the right, where the angle is 0."""
    c.circle(x, y, r, "plain", "dim")
    c.line([(x + r - 5, y), (x + r, y)], "dim", width=1)


def hand(c: Canvas, x: float, y: float, r: float, angle: float, colour: str) -> None:
    """A hand; angles grow anticlockwise, as in mathematics."""
    c.line([(x, y), (x + 0.92 * r * math.cos(angle), y - 0.92 * r * math.sin(angle))], colour, width=2.2, arrow=True)


def wedge(c: Canvas, x: float, y: float, r: float, start: float, end: float) -> None:
    """A face with the sector from one angle to another, the short way."""
    clock(c, x, y, r)
    turn = (end - start + math.pi) % (2 * math.pi) - math.pi
    arc = [start + turn * step / 24 for step in range(25)]
    c.shape([(x, y), *((x + 0.8 * r * math.cos(a), y - 0.8 * r * math.sin(a)) for a in arc)], "orange-soft")


def ring_turns() -> tuple[list[Any], list[tuple[int, int]]]:
    """(states, log) of puzzle l14's solution. states, before the first turn and after each: by rank and chunk, how
    often each rank's share is in it. log: (rank, chunk) of each send."""
    space: dict[str, Any] = {}
    exec(puzzle("l14_ring")[1], space)
    n = len(RANKS)
    parts = [[np.eye(n, dtype=int)[rank] for _ in range(n)] for rank in range(n)]  # each source counts in its own place
    states: list[Any] = []
    log: list[tuple[int, int]] = []

    def state() -> list[list[list[int]]]:
        return [[chunk.tolist() for chunk in chunks] for chunks in parts]

    def send(rank: int, chunk: int) -> Any:
        if len(log) % n == 0:
            states.append(state())
        log.append((rank, chunk))
        return parts[rank][chunk].copy()

    space["ring"](parts, send)
    assert state() == [[[1] * n] * n] * n, "each rank has all shares, once"
    return [*states, state()], log


def ring() -> str:
    """Lesson 14's ring: the states of four ranks between the turns of puzzle l14's solution."""
    states, log = ring_turns()
    n = len(RANKS)
    half = n - 1
    c = Canvas(
        "A sum over four ranks, as a ring",
        f"{len(states)} grids, before the first turn and after each of {len(states) - 1} turns; a row is a rank, a "
        f"column a chunk of the gradient, and a stripe of a cell is the share of one rank. In the first {half} turns a "
        f"chunk grows by a stripe each time that it travels to the next rank; then each rank has one whole chunk. In "
        f"the last {half} turns the whole chunks travel on, until all cells are whole.",
        328,
    )
    c.headline(
        "A chunk grows once around the ring, then its sum travels once more",
        "Rows are ranks, columns are chunks of the gradient. Framed: what has just come from the rank before.",
    )
    gap = 17
    step = n * SIDE + gap
    for turn, ranks in enumerate(states):
        x = EDGE + 18 + step * turn
        c.text(x + n * SIDE / 2, 102, "start" if not turn else f"turn {turn}", size=12, anchor="middle", bold=True)
        came = {((r + 1) % n, k) for r, k in log[n * (turn - 1) : n * turn]} if turn else set()
        grid(c, x, 112, ranks, came)
    for rank, colour in enumerate(RANKS):
        c.text(EDGE + 8, 112 + HIGH * rank + 17, str(rank), size=12, fill=colour, anchor="middle", bold=True)
    for first, words, note in (
        (1, "reduce-scatter", "sums grow, one stripe a turn"), (half + 1, "all-gather", "whole sums replace parts"),
    ):  # fmt: skip
        a = EDGE + 18 + step * first
        b = a + step * half - gap
        c.line([(a, 220), (a, 226), (b, 226), (b, 220)], "dim", width=1)
        c.text((a + b) / 2, 244, words, size=12.5, anchor="middle", bold=True)
        c.text((a + b) / 2, 260, note, size=11.5, fill="dim", anchor="middle")
    c.text(EDGE, 304, "a stripe: the share of rank", size=11.5, fill="dim")
    c.legend(EDGE + 168, 304, [(colour, str(rank)) for rank, colour in enumerate(RANKS)], size=11.5)
    sent = len(log) // n
    words = f"each rank sends {sent} chunks, {sent / n:g} of its gradient"
    c.text(WIDTH - EDGE, 304, words, size=12, anchor="end", bold=True)
    return c.svg()


def grid(c: Canvas, x: float, y: float, ranks: list[list[list[int]]], came: set[tuple[int, int]]) -> None:
    """The chunks of all ranks. came: (rank, chunk) of those that have just arrived."""
    for rank, chunks in enumerate(ranks):
        for k, shares in enumerate(chunks):
            left, top = x + SIDE * k, y + HIGH * rank
            c.box(left + 1.5, top + 1.5, SIDE - 3, HIGH - 3, "plain", r=1)
            wide = (SIDE - 3) / len(shares)
            for source in (source for source, count in enumerate(shares) if count):
                c.box(left + 1.5 + wide * source, top + 1.5, wide, HIGH - 3, RANKS[source], r=0)
            if (rank, k) in came:
                c.box(left + 0.2, top + 0.2, SIDE - 0.4, HIGH - 0.4, "", "ink", r=2, width=1.4)
